"""`shardstream COMMAND` in fresh interpreters: what it costs, what it prints, how it refuses."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from shardstream import __version__
from shardstream.pipelines.command import COMMANDS
from shardstream.pipelines.extras import missing_package
from shardstream.pipelines.sample import SampleFiles
from tests.pipeline_runs import build, parquet_flags

REPOSITORY = Path(__file__).parents[2]
_RUN = """
import sys
sys.modules.update(dict.fromkeys({blocked!r}))
from shardstream.pipelines.command import main
sys.exit(main({argv!r}))
"""
# Whose import costs seconds.
HEAVY = ("apache_beam", "jax", "datasets", "transformers")


def run(*argv: object, blocked: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Runs the command where some packages can't be imported."""
    code = _RUN.format(blocked=list(blocked), argv=[str(word) for word in argv])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.fixture
def dataset(tmp_path: Path, twelve_documents: list[str], tokenizer_directory: str) -> Path:
    build(tmp_path / "out", *parquet_flags(twelve_documents, tokenizer_directory))
    return tmp_path / "out"


def test_help_lists_every_command_in_a_line_each() -> None:
    done = run("--help", blocked=[*HEAVY, "pyarrow", "numpy"])
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) < 20
    for name, (_, _, text) in COMMANDS.items():
        assert f"  {name:9}{text}" in lines


def test_version_is_the_distribution_s() -> None:
    done = run("--version", blocked=[*HEAVY, "pyarrow", "numpy"])
    assert done.stdout == f"shardstream {__version__}\n"


def test_verify_needs_neither_beam_nor_jax(dataset: Path) -> None:
    done = run("verify", dataset, blocked=HEAVY)
    assert done.returncode == 0, done.stderr
    assert "verified: " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_needs_no_package_that_costs_seconds(command: str) -> None:
    done = run(command, "--help", blocked=HEAVY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: shardstream {command} ")


@pytest.mark.parametrize("command", ["build", "stream", "plan"])
def test_help_of_a_build_has_its_flags_in_groups(command: str) -> None:
    done = run(command, "--help")
    groups = ("source", "tokenizer", "packing", "output", "stream", "work")
    assert [line[:-1] for line in done.stdout.splitlines() if line[:-1] in groups] == list(groups)


@pytest.mark.parametrize(
    ("argv", "message", "command"),
    [
        ([], "no command, expected one of build, ", "shardstream"),
        (["bild"], "unknown command 'bild'; did you mean build?", "shardstream"),
        (["--seed", "1"], "unknown command '--seed'; expected build, ", "shardstream"),
        (["build"], "required: --dataset, --tokenizer, --output", "shardstream build"),
        (["build", "--max_docs", "1"], "--max_documents", "shardstream build"),
        (["stream", "--epoch", "1"], "did you mean --epochs?", "shardstream stream"),
        (["plan", "--mode", "x"], "invalid choice: 'x'", "shardstream plan"),
        (["verify"], "required: directory", "shardstream verify"),
        (["verify", "/no/such"], "no dataset.json", "shardstream verify"),
        (["inspect", "/no/such"], "no dataset.json", "shardstream inspect"),
        (["show", "/no/such"], "no dataset.json", "shardstream show"),
        (["show", "x", "--seed", "y"], "invalid int value: 'y'", "shardstream show"),
        (["sample", "a", "b"], "unrecognized arguments: b", "shardstream sample"),
        (["build", "--dataset=d", "--tokenizer=t", "--output=ftp://x"], "ftp://x", ""),
    ],
)
def test_wrong_usage_is_two_lines(argv: list[str], message: str, command: str) -> None:
    done = run(*argv)
    assert (done.returncode, done.stdout) == (2, "")
    error, see = done.stderr.splitlines()
    assert error.startswith("error: ") and message in error
    assert see == f"see '{command or 'shardstream build'} --help'"


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        ("build", "apache_beam", "shardstream[pipeline]"),
        ("build", "datasets", "shardstream[pipeline]"),
        ("stream", "transformers", "shardstream[pipeline]"),
        ("plan", "tokenizers", "shardstream[pipeline]"),
        ("show", "jax", "shardstream"),
        ("show", "transformers", "shardstream[pipeline]"),
    ],
)
def test_missing_package_names_what_to_install(
    tmp_path: Path, sample: SampleFiles, dataset: Path, command: str, package: str, extra: str
) -> None:
    flags: list[object] = [dataset]
    if command != "show":
        flags = ["--dataset", sample.directory / "data", "--output", tmp_path / "new"]
        flags += ["--tokenizer", sample.tokenizer_directory, "--runner", "FnApiRunner"]
    done = run(command, *flags, blocked=[package])
    assert (done.returncode, done.stdout) == (1, "")
    quoted = f"'{extra}'" if "[" in extra else extra
    assert done.stderr == f"error: {package} is not installed: pip install {quoted}\n"


@pytest.mark.parametrize("scheme", ["gs", "s3"])
@pytest.mark.parametrize("command", ["build", "verify", "inspect", "show"])
def test_store_without_its_package_names_the_extra(
    sample: SampleFiles, command: str, scheme: str
) -> None:
    flags: list[object] = [f"{scheme}://bucket/out"]
    if command == "build":
        flags = ["--dataset", sample.directory / "data", "--output", *flags]
        flags += ["--tokenizer", sample.tokenizer_directory]
    done = run(command, *flags, blocked=["obstore"])
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {scheme}://bucket: ")
    assert done.stderr.endswith("pip install 'shardstream[stores]'\n")


def test_packages_are_in_the_extras_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import runpy

    import setuptools

    found: dict = {}
    monkeypatch.setattr(setuptools, "setup", found.update)
    runpy.run_path(str(REPOSITORY / "setup.py"))
    extras = {"": found["install_requires"], **found["extras_require"]}
    for extra in ("", "pipeline", "stores"):
        for requirement in extras[extra]:
            package = requirement.split(">=")[0].split("[")[0].replace("-", "_")
            message = missing_package(
                ModuleNotFoundError(f"No module named {package}", name=package)
            )
            named = f"'shardstream[{extra}]'" if extra else "shardstream"
            assert message == f"{package} is not installed: pip install {named}"
    assert missing_package(ModuleNotFoundError("No module named 'mine'", name="mine")) is None


def test_console_script_and_module_are_the_command() -> None:
    setup = (REPOSITORY / "setup.py").read_text()
    assert '"shardstream = shardstream.pipelines.command:main"' in setup
    command = [sys.executable, "-m", "shardstream", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout == f"shardstream {__version__}\n"


@pytest.mark.parametrize(("command", "mode"), [("build", "batch"), ("stream", "stream")])
def test_commands_build_what_inspect_and_show_then_tell(
    tmp_path: Path, twelve_documents: list[str], tokenizer_directory: str, command: str, mode: str
) -> None:
    flags = [*parquet_flags(twelve_documents, tokenizer_directory), "--output", tmp_path / "out"]
    flags += ["--runner", "FnApiRunner", "--no-progress", "--sequence_length", 64]
    plan = run("plan", *flags)
    assert plan.returncode == 0, plan.stderr
    assert "nothing was run" in plan.stdout and not (tmp_path / "out").exists()
    done = run(command, *flags)
    assert done.returncode == 0, done.stderr
    told = run("inspect", tmp_path / "out")
    assert f"complete, {mode} mode, fingerprint " in told.stdout
    shown = run("show", tmp_path / "out", "--num_batches", 1)
    assert shown.returncode == 0, shown.stderr
    assert "step 0: tokens jnp.int32[4, 64]" in shown.stdout


def test_sample_is_written(tmp_path: Path) -> None:
    done = run("sample", tmp_path / "sample")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sample/tokenizer/tokenizer.json").exists()
