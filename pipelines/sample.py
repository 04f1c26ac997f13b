"""The embedded sample: real English text and a tokenizer, from what every Python carries.

`pydoc_data.topics` and the docstrings of the standard library become a small parquet dataset, and
a byte-level BPE tokenizer is trained on it, so the whole road can be run with no network. Sources
are parsed, never imported: an import may open windows, start threads or print poems.

Invariant: one interpreter build gives one sample, byte for byte. `sample.json` is written last,
and a directory whose `sample.json` names the same inputs is reused as it is.

Run it: `shardstream sample DIR`.
"""

import ast
import dataclasses
import hashlib
import json
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from pydoc_data.topics import topics

from shardstream.pipelines.job.failures import guarded
from shardstream.pipelines.job.flags import FlagParser
from shardstream.pipelines.process import set_up_process

END_OF_TEXT = "<|endoftext|>"
NUM_FILES = 4
ROW_GROUP_ROWS = 500  # several row groups a file, so that reading has something to split
VOCABULARY_SIZE = 8192
MIN_DOCUMENTS = 1000  # a standard library of .py files gives about 8,000

_FORMAT = 1  # raise it when the same inputs would give other files
_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
_MARKER = "sample.json"
_LIBRARIES = ("pyarrow", "tokenizers", "transformers")  # whose versions shape the files


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleFiles:
    """Where a built sample is and what it holds.

    Attributes:
        directory: the sample; `data/` is a dataset directory, `tokenizer/` a tokenizer's.
        parquet_files: columns id, title, text; all strings.
        tokenizer_directory: loads with `AutoTokenizer.from_pretrained`.
        num_documents: rows over all files; no two texts are equal.
        text_bytes: UTF-8 bytes of the text column.
        vocabulary_size: ids of the tokenizer, `<|endoftext|>` included.
    """

    directory: Path
    parquet_files: tuple[Path, ...]
    tokenizer_directory: Path
    num_documents: int
    text_bytes: int
    vocabulary_size: int


def build_sample(directory: Path | str) -> SampleFiles:
    """Builds the sample in `directory`, or returns the complete one already there.

    Guarantees: deterministic for one interpreter and one set of libraries; a build that was
    killed is never taken for a complete one; other files in `directory` are left alone.

    Raises:
        RuntimeError: the standard library has no sources to read (zipped or stripped).
    """
    directory = Path(directory)
    sources = standard_library_sources()
    inputs = _inputs_digest(sources)
    if (built := _read_marker(directory, inputs)) is not None:
        return built
    documents = list(_unique_texts(sources))
    if len(documents) < MIN_DOCUMENTS:
        raise RuntimeError(
            f"{sysconfig.get_path('stdlib')}: {len(documents)} documents in {len(sources)} source "
            f"files, expected at least {MIN_DOCUMENTS}. This Python has no standard library "
            "sources; name a dataset of your own instead of the sample."
        )
    texts = [text for _, text in documents]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / _MARKER).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".building-") as scratch:
        fresh = Path(scratch)
        _write_parquet(documents, fresh / "data")
        vocabulary_size = _train_tokenizer(texts, fresh / "tokenizer")
        summary = {
            "inputs": inputs,
            "num_documents": len(documents),
            "text_bytes": sum(len(text.encode()) for text in texts),
            "vocabulary_size": vocabulary_size,
        }
        (fresh / _MARKER).write_text(json.dumps(summary, indent=2) + "\n")
        files = sorted(path for path in fresh.rglob("*") if path.is_file())
        for file in sorted(files, key=lambda path: path.name == _MARKER):  # the marker is last
            target = directory / file.relative_to(fresh)
            target.parent.mkdir(exist_ok=True)
            file.replace(target)
    built = _read_marker(directory, inputs)
    assert built is not None
    return built


def standard_library_sources() -> list[Path]:
    """The standard library's own .py files, tests and installed packages aside, sorted."""
    root = Path(sysconfig.get_path("stdlib"))
    return sorted(
        path
        for path in root.rglob("*.py")
        if _SKIPPED_FOLDERS.isdisjoint(path.relative_to(root).parts)
    )


def docstrings(source: bytes, module: str) -> Iterator[tuple[str, str]]:
    """Yields (dotted name, docstring) of a module, its classes and functions, in source order.

    Only statements are visited: a docstring cannot be inside an expression, and expressions are
    nearly all of a syntax tree.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in old sources
        pending: list[tuple[str, ast.AST]] = [(module, ast.parse(source))]
    while pending:
        name, node = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not isinstance(node, ast.Module):
                name = f"{name}.{node.name}"
            if text := (ast.get_docstring(node) or "").strip():
                yield name, text
        nested: list[ast.AST] = []
        for field in ("body", "handlers", "orelse", "finalbody", "cases"):
            children = getattr(node, field, None)
            if isinstance(children, list):  # `body` of a lambda or a conditional is one expression
                nested += children
        pending += [(name, child) for child in reversed(nested)]


def _unique_texts(sources: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Yields (title, text) in a fixed order, each text once: topics first, then modules."""
    seen: set[str] = set()
    for title, text in _all_texts(sources):
        if text not in seen:
            seen.add(text)
            yield title, text


def _all_texts(sources: Sequence[Path]) -> Iterator[tuple[str, str]]:
    for topic in sorted(topics):
        yield f"topic {topic}", topics[topic].strip()
    root = Path(sysconfig.get_path("stdlib"))
    for path in sources:
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        try:
            yield from docstrings(path.read_bytes(), module.removesuffix(".__init__"))
        except (SyntaxError, ValueError):  # templates and samples of other Python versions
            continue


def _write_parquet(documents: Sequence[tuple[str, str]], directory: Path) -> None:
    """Writes `NUM_FILES` files of nearly equal row counts, in document order."""
    import pyarrow as pa  # once the process is set up
    import pyarrow.parquet as pq

    directory.mkdir()
    titles, texts = zip(*documents, strict=True)
    ids = [f"doc-{index:05d}" for index in range(len(documents))]
    table = pa.table({"id": ids, "title": titles, "text": texts})
    for index in range(NUM_FILES):
        start, stop = (len(documents) * edge // NUM_FILES for edge in (index, index + 1))
        pq.write_table(
            table.slice(start, stop - start),
            directory / _parquet_name(index),
            row_group_size=ROW_GROUP_ROWS,
            compression="zstd",
        )


def _train_tokenizer(texts: Sequence[str], directory: Path) -> int:
    """Trains a byte-level BPE in GPT-2's manner; every string has an encoding, none is unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast  # heavy: not for a reused sample

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(directory)
    return tokenizer.get_vocab_size()


def _inputs_digest(sources: Sequence[Path]) -> str:
    """Names everything the sample depends on, without parsing a source."""
    versions = [f"{name} {metadata.version(name)}" for name in _LIBRARIES]
    sizes = [f"{path} {path.stat().st_size}" for path in sources]
    lines = [f"format {_FORMAT}", sys.version, *versions, *sizes]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _read_marker(directory: Path, inputs: str) -> SampleFiles | None:
    """Returns the sample in `directory` if it is complete and of the same inputs."""
    parquet_files = tuple(directory / "data" / _parquet_name(i) for i in range(NUM_FILES))
    try:
        summary = json.loads((directory / _MARKER).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    needed = [*parquet_files, directory / "tokenizer/tokenizer.json"]
    if summary.pop("inputs", None) != inputs or not all(path.exists() for path in needed):
        return None
    return SampleFiles(
        directory=directory,
        parquet_files=parquet_files,
        tokenizer_directory=directory / "tokenizer",
        **summary,
    )


def _parquet_name(index: int) -> str:
    return f"train-{index:05d}-of-{NUM_FILES:05d}.parquet"


def main(argv: Sequence[str] | None = None) -> int:
    """Builds the embedded sample and says what it holds; returns 0."""
    set_up_process()
    words = sys.argv[1:] if argv is None else argv
    return guarded("shardstream sample", lambda: _run(words))


def _run(argv: Sequence[str]) -> int:
    parser = FlagParser(
        prog="shardstream sample",
        description="Builds the embedded sample, real English text and a tokenizer from what "
        "every Python carries, and says what it holds.",
    )
    parser.add_argument("directory", type=Path, help="made if missing; reused if complete")
    sample = build_sample(parser.parse_args(argv).directory)
    print(
        f"{sample.directory}: {sample.num_documents:,} documents, {sample.text_bytes:,} bytes of "
        f"text, {len(sample.parquet_files)} parquet files, vocabulary {sample.vocabulary_size:,}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
