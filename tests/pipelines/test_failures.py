"""Whose mistake it is: options end in two lines, the world outside in one, our faults in a traceback."""

import errno
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.runners.worker import sdk_worker

from shardstream.pipelines.job import failures
from shardstream.pipelines.job.runners import run, tell_exceptions_once
from shardstream.pipelines.preprocess import main
from shardstream.shard_format.errors import OptionError
from shardstream.transforms.errors import JobError
from tests.pipeline_runs import needs_prism, parquet_flags

RUNNERS = ["FnApiRunner", "BundleBasedDirectRunner", pytest.param("PrismRunner", marks=needs_prism)]

# What a worker raises, and the one line that is said of it, None where it is a fault of ours.
RAISED: dict[str, tuple[Callable[[], Exception], str | None]] = {
    "disk": (
        lambda: OSError(errno.ENOSPC, "No space left on device", "/data/x"),
        "OSError: [Errno 28] No space left on device: '/data/x'",
    ),
    "file": (
        lambda: FileNotFoundError(2, "No such file or directory", "/data/y"),
        "FileNotFoundError: [Errno 2] No such file or directory: '/data/y'",
    ),
    "network": (lambda: ConnectionError("hub: refused"), "ConnectionError: hub: refused"),
    "lines": (lambda: OSError("one\ntwo: three"), "OSError: one two: three"),
    "arrow": (lambda: pa.ArrowInvalid("a.parquet: broken"), "ArrowInvalid: a.parquet: broken"),
    "zlib": (lambda: zlib.error("bad data"), "error: bad data"),
    "text": (lambda: UnicodeError("a.txt: byte 7"), "UnicodeError: a.txt: byte 7"),
    "source": (
        lambda: type("SourceError", (ValueError,), {"__module__": "shardstream.sources.errors"})(
            "a.csv, row 7: too wide"
        ),
        "a.csv, row 7: too wide",
    ),
    "job": (lambda: JobError("2 of 4 documents are dead"), "2 of 4 documents are dead"),
    "option": (lambda: OptionError("seed is 7"), "seed is 7"),
    "value": (lambda: ValueError("zip() argument 3 is longer than arguments 1-2"), None),
    "key": (lambda: KeyError("text"), None),
    "type": (lambda: TypeError("no such thing"), None),
    "assertion": (lambda: AssertionError("never"), None),
}


class _Raise(beam.DoFn):
    def __init__(self, kind: str) -> None:
        self._kind = kind

    def process(self, _: int) -> None:
        raise RAISED[self._kind][0]()


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("kind", RAISED)
def test_exception_of_a_worker_is_never_the_user_s_mistake(
    runner: str, kind: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sdk_worker.__dict__, "print", print)  # put back with the test
    tell_exceptions_once()  # as the command does

    def body() -> int:
        with failures.running():
            run(beam.Create([1]) | beam.ParDo(_Raise(kind)), [f"--runner={runner}"])
        return 0

    assert failures.guarded("shardstream build", body) == 1
    printed = capsys.readouterr().err
    expected = RAISED[kind][1]
    if expected is None:
        assert "Traceback (most recent call last)" in printed
        assert "a fault of shardstream and not of an option" in printed.splitlines()[-1]
    else:
        assert printed == f"error: {expected}\n"


@pytest.mark.parametrize("mode", ["batch", "stream"])
def test_fault_of_ours_while_a_job_runs_keeps_its_traceback(
    tmp_path: Path,
    twelve_documents: list[str],
    tokenizer_directory: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    mode: str,
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise ValueError("zip() argument 3 is longer than arguments 1-2")

    monkeypatch.setattr("shardstream.pipelines.job.build.run", fail)
    monkeypatch.setattr("shardstream.pipelines.job.build.run_stream", fail)
    flags = [*parquet_flags(twelve_documents, tokenizer_directory), "--output", str(tmp_path / "o")]
    assert main([*flags, "--no-progress", "--mode", mode]) == 1
    assert "Traceback" in capsys.readouterr().err


_VANISH = """
import sys
from pathlib import Path
from shardstream.pipelines.process import set_up_process
set_up_process()
from shardstream.pipelines import preprocess
from shardstream.pipelines.logs import end_logs
from shardstream.pipelines.job import build
run = build.run
def remove_then_run(*args, **kwargs):
    Path(sys.argv[1]).unlink()
    return run(*args, **kwargs)
build.run = remove_then_run
status = preprocess.main(sys.argv[2:])
end_logs()
sys.exit(status)
"""


@pytest.mark.parametrize("runner", RUNNERS)
def test_file_that_vanishes_while_the_job_runs_is_one_line(
    tmp_path: Path, tokenizer_directory: str, runner: str
) -> None:
    """In a process of its own, whose whole stderr is looked at: runners write to it themselves."""
    paths = [tmp_path / f"{i}.parquet" for i in range(2)]
    for path in paths:
        pq.write_table(pa.table({"text": ["a", "b"]}), path)
    flags = [*parquet_flags(list(map(str, paths)), tokenizer_directory), "--no-progress"]
    flags += ["--output", str(tmp_path / "out"), "--runner", runner]
    command = [sys.executable, "-c", _VANISH, str(paths[1]), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    expected = f"error: FileNotFoundError: [Errno 2] No such file or directory: '{paths[1]}'\n"
    assert done.stderr == expected, done.stderr


def test_planning_makes_option_errors_of_what_cannot_be_opened() -> None:
    for error in (ValueError("no split 'x'"), FileNotFoundError(2, "No such file", "f")):
        with pytest.raises(OptionError), failures.planning():
            raise error
    with pytest.raises(ConnectionError), failures.planning():
        raise ConnectionError("hub: refused")
    with pytest.raises(OptionError, match=r"^same$"), failures.planning():
        raise OptionError("same")


def test_interrupted_command_says_so(capsys: pytest.CaptureFixture) -> None:
    def body() -> int:
        raise KeyboardInterrupt

    assert failures.guarded("shardstream build", body) == 130
    assert capsys.readouterr().err == "interrupted\n"
