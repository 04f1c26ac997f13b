"""Settings of a process: none by an import, all of a command's own, put back after a call."""

import contextlib
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shardstream.pipelines.job.options import parse_options
from shardstream.pipelines.preprocess import preprocess
from shardstream.pipelines.process import Lent, borrowed_process
from tests.pipeline_runs import parquet_flags

_SETTINGS = """
import gc, json, logging, os, sys
def settings():
    filters = [len(logging.getLogger(name).filters) for name in ("root", "apache_beam")]
    return gc.get_threshold(), sys.getswitchinterval(), dict(os.environ), filters
before = settings()
"""
_MODULES = (
    "shardstream.pipelines",
    "shardstream.pipelines.command",
    "shardstream.pipelines.preprocess",
    "shardstream.pipelines.worker",
    "shardstream.pipelines.sample",
    "shardstream.pipelines.job.options",
    "shardstream.pipelines.job.account",
)


def _python(code: str, *argv: object, env: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-c", code, *map(str, argv)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ARROW_")}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment | (env or {}), check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", _MODULES)
def test_import_changes_no_setting_and_loads_no_arrow_before_one_is_made(module: str) -> None:
    code = f"{_SETTINGS}import {module}\nassert settings() == before, settings()\n"
    if "job" not in module:
        code += "assert 'pyarrow' not in sys.modules and 'apache_beam' not in sys.modules\n"
    _python(code)


def test_call_from_a_script_leaves_the_process_as_it_was(
    tmp_path: Path, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    code = (
        _SETTINGS
        + """
from shardstream import preprocess
from shardstream.pipelines.job.options import parse_options
manifest = preprocess(parse_options(sys.argv[1:]))
assert manifest.status == "complete"
assert settings() == before, settings()
"""
    )
    flags = [*parquet_flags(twelve_documents, tokenizer_directory), "--output", tmp_path / "out"]
    _python(code, *flags, "--runner=FnApiRunner", "--no-progress")


def test_call_that_fails_leaves_the_process_as_it_was(
    tmp_path: Path, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    before = gc.get_threshold(), sys.getswitchinterval(), dict(os.environ)
    flags = parquet_flags(twelve_documents, tokenizer_directory)
    options = parse_options([*flags, "--output", str(tmp_path), "--split", "none"])
    with pytest.raises(ValueError, match="has no split 'none'"):
        preprocess(options)
    assert (gc.get_threshold(), sys.getswitchinterval(), dict(os.environ)) == before


def test_token_that_a_call_fetched_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with borrowed_process:
        os.environ["HF_TOKEN"] = "hf_fetched"
    assert "HF_TOKEN" not in os.environ
    monkeypatch.setenv("HF_TOKEN", "hf_own")
    with borrowed_process:
        os.environ["HF_TOKEN"] = "hf_fetched"
    assert os.environ["HF_TOKEN"] == "hf_own"


def test_calls_side_by_side_and_inside_each_other_leave_nothing_behind() -> None:
    made: list[str] = []

    def change() -> Callable[[], None]:
        made.append("made")
        return lambda: made.append("undone")

    lent = Lent(change)
    both_inside = threading.Barrier(2)

    def call() -> None:
        with lent, lent:
            both_inside.wait()
            assert made == ["made"]

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["made", "undone"]
    with contextlib.suppress(ValueError), lent:
        raise ValueError
    assert made == ["made", "undone"] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="other wheels come without jemalloc")
@pytest.mark.parametrize(
    ("main", "argv"),
    [
        ("shardstream.pipelines.command", ["build"]),
        ("shardstream.pipelines.command", ["verify"]),
        ("shardstream.pipelines.preprocess", []),
        ("shardstream.pipelines.verify", []),
    ],
)
def test_command_chooses_arrow_s_allocator_before_arrow_is_loaded(
    main: str, argv: list[str]
) -> None:
    code = f"""
import sys
from {main} import main
assert "pyarrow" not in sys.modules
assert main({argv!r}) == 2
import gc, pyarrow
print(pyarrow.default_memory_pool().backend_name, gc.get_threshold()[0], sys.getswitchinterval())
"""
    assert _python(code) == "jemalloc 100000 0.0005\n"
    mine = _python(code, env={"ARROW_DEFAULT_MEMORY_POOL": "system"})
    assert mine.startswith("system ")  # what the user chose stays


@pytest.mark.skipif(sys.platform != "linux", reason="other wheels come without jemalloc")
def test_module_run_by_name_chooses_it_too(
    tmp_path: Path, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    """`python -m pipelines.preprocess`: no import of the module itself may load Arrow first."""
    code = """
import runpy, sys
sys.argv[0] = "preprocess"
try:
    runpy.run_module("pipelines.preprocess", run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert end.code == 0, end.code
import pyarrow
print(pyarrow.default_memory_pool().backend_name)
"""
    flags = [*parquet_flags(twelve_documents, tokenizer_directory), "--output", tmp_path / "out"]
    repository = str(Path(__file__).parents[2])
    printed = _python(
        code, *flags, "--runner=FnApiRunner", "--no-progress", env={"PYTHONPATH": repository}
    )
    assert printed.splitlines()[-1] == "jemalloc"
