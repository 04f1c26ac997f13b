"""The documentation speaks of what is there: links, commands, flags, files and code blocks.

A document is read as Markdown by a few expressions, enough for how these documents are written.
Commands are checked by what parses them, so a flag that is renamed is found here.
"""

import ast
import dataclasses
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")])
MOST_WORDS_OF_README = 600

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_PATH = re.compile(r"(\./)?[\w.-]+(/[\w.-]+)*/?")
_BUILDS = ("build", "stream", "plan")
_FOREIGN_MODULES = ("pip", "pytest", "venv")
# Of gcloud and docker, which docs/dataflow.md speaks of.
_FOREIGN_FLAGS = ("--secret", "--update")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
    """A Markdown file taken apart.

    Attributes:
        path: of the file.
        prose: the text without code blocks.
        blocks: (language, code) of each code block.
    """

    path: Path
    prose: str
    blocks: tuple[tuple[str, str], ...]

    @property
    def spans(self) -> list[str]:
        """Code inside the prose, tables included."""
        return _SPAN.findall(self.prose)

    @property
    def anchors(self) -> set[str]:
        """What `#...` may name: headings as GitHub writes them in addresses."""
        texts = (heading.replace("`", "").lower() for heading in _HEADING.findall(self.prose))
        return {re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-") for text in texts}

    @property
    def commands(self) -> Iterator[list[str]]:
        """The words of each shell command, of blocks and of the prose."""
        lines = [*self.spans]
        for language, code in self.blocks:
            if language == "bash":
                lines += code.replace("\\\n", " ").splitlines()
        for line in lines:
            if "shardstream " in line or "python -m " in line:
                for part in re.split(r"&&|\$\(|\)$", line):
                    yield shlex.split(part, comments=True)


def read_document(path: Path) -> Document:
    text = path.read_text(encoding="utf-8")
    blocks = tuple((language, code) for _, language, code in _FENCE.findall(text))
    return Document(path=path, prose=_FENCE.sub("", text), blocks=blocks)


def module_commands(document: Document) -> Iterator[tuple[str, list[str]]]:
    """Yields (module, arguments) of each `python -m module arguments`."""
    for words in document.commands:
        if "-m" in words[:-1] and "python" in words[words.index("-m") - 1]:
            at = words.index("-m") + 1
            yield words[at], words[at + 1 :]


def shardstream_commands(document: Document) -> Iterator[tuple[str, list[str]]]:
    """Yields (command, arguments) of each `shardstream command arguments`."""
    for words in document.commands:
        if words and words[0] == "shardstream" and len(words) > 1:
            yield words[1], words[2:]


def own_file(module: str) -> Path | None:
    """Returns the file of a module of this repository; None for a module of another project."""
    path = ROOT.joinpath(*module.split("."))
    if not ROOT.joinpath(module.split(".")[0]).is_dir():
        return None
    return path / "__main__.py" if path.is_dir() else path.with_suffix(".py")


def flags_in(words: list[str]) -> list[str]:
    return [word.split("=")[0] for word in words if re.match(r"--\w", word)]


def sources_of(folder: str) -> str:
    return "\n".join(path.read_text() for path in (ROOT / folder).glob("*.py"))


@pytest.fixture(params=DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def document(request: pytest.FixtureRequest) -> Document:
    return read_document(request.param)


def test_readme_is_read_in_a_minute() -> None:
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()
    assert len(words) <= MOST_WORDS_OF_README


def test_readme_is_true_to_the_documents_it_stands_for() -> None:
    """The first screen names the dataset, and every document is reached from README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "HuggingFaceFW/fineweb-edu" in "\n".join(text.splitlines()[:15])
    missing = [
        path.name for path in (ROOT / "docs").glob("*.md") if f"docs/{path.name}" not in text
    ]
    assert not missing


def test_links_resolve(document: Document) -> None:
    for target in _LINK.findall(document.prose):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (document.path.parent / name).resolve() if name else document.path
        assert path.exists(), f"{document.path.name}: no file for the link {target}"
        if anchor:
            assert anchor in read_document(path).anchors, f"{document.path.name}: {target}"


def test_python_blocks_compile_and_call_with_names_that_exist(document: Document) -> None:
    import shardstream

    for language, code in document.blocks:
        if language != "python":
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module == "shardstream":
                assert {alias.name for alias in node.names} <= set(shardstream.__all__)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                _check_keywords(node.func.id, [word.arg for word in node.keywords])


def _check_keywords(function: str, keywords: list[str | None]) -> None:
    import shardstream

    if function not in shardstream.__all__:
        return
    parameters = inspect.signature(getattr(shardstream, function)).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        assert set(keywords) <= set(parameters), f"{function} has no such option"


def test_paths_exist(document: Document) -> None:
    folders = {path.parent.name for path in ROOT.glob("*/*") if path.suffix in (".md", ".py")}
    folders |= {".ci", "deploy"}
    for span in document.spans:
        for word in span.split():
            first, slash, _ = word.removeprefix("./").partition("/")
            is_own = (bool(slash) and first in folders) or word.startswith("./")
            if is_own and _PATH.fullmatch(word):
                assert (ROOT / word).exists(), f"{document.path.name}: there is no {word}"


def test_modules_that_are_run_exist_and_know_their_flags(document: Document) -> None:
    for module, arguments in module_commands(document):
        path = own_file(module)
        if path is None:
            assert module in _FOREIGN_MODULES, f"{document.path.name}: python -m {module}"
            continue
        assert path.exists(), f"{document.path.name}: no module {module}"
        if not module.startswith("pipelines."):
            source = sources_of(module.split(".")[0])
            unknown = [flag for flag in flags_in(arguments) if f'"{flag}"' not in source]
            assert not unknown, f"{document.path.name}: {module} has no {unknown}"


def test_commands_exist_and_know_their_flags(document: Document) -> None:
    from shardstream.pipelines import command
    from shardstream.pipelines.job.options import make_parser
    from shardstream.pipelines.job.runner_flags import check_flags

    builds = [
        ("build", rest)
        for name, rest in module_commands(document)
        if name == "pipelines.preprocess"
    ]
    for name, arguments in [*shardstream_commands(document), *builds]:
        assert name in command.COMMANDS, f"{document.path.name}: shardstream {name}"
        if name in _BUILDS:
            check_flags(arguments, make_parser(name).names)


def test_flags_in_prose_exist(document: Document) -> None:
    from shardstream.pipelines.job.options import make_parser
    from shardstream.pipelines.job.runner_flags import runner_parser
    from shardstream.pipelines.verify import make_parser as make_verify_parser

    known = {*make_parser().names, *runner_parser(["--runner=PortableRunner"]).names}
    known |= {*make_verify_parser().names}
    of_benchmarks = sources_of("benchmarks")
    for span in document.spans:
        if span.startswith("--"):
            for flag in flags_in(shlex.split(span)):
                assert flag in known or flag in _FOREIGN_FLAGS or f'"{flag}"' in of_benchmarks, (
                    f"{document.path.name}: {flag}"
                )


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (test_links_resolve, "[there](missing.md)"),
        (test_links_resolve, "# Here\n\n[there](#nowhere)"),
        (test_python_blocks_compile_and_call_with_names_that_exist, "```python\nfor\n```"),
        (
            test_python_blocks_compile_and_call_with_names_that_exist,
            "```python\nfrom shardstream import Sieve\n```",
        ),
        (test_paths_exist, "see `loaders/nothing.py`"),
        (test_modules_that_are_run_exist_and_know_their_flags, "`python -m benchmarks.nothing`"),
        (
            test_modules_that_are_run_exist_and_know_their_flags,
            "```bash\npython -m benchmarks.loader \\\n    --nothing 3\n```",
        ),
    ],
)
def test_what_is_not_there_is_found(
    check: Callable[[Document], None], text: str, tmp_path: Path
) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises((AssertionError, SyntaxError)):
        check(read_document(tmp_path / "page.md"))
