"""Worker processes: the same dataset for any number of them, and none is ever left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.pipeline_runs import build, needs_prism, parquet_flags

_SMALL = ("--num_shards", 4, "--partition_mb", 1, "--block_kb", 64)


@pytest.fixture
def flags(sample_files: list[str], tokenizer_directory: str) -> list[str]:
    """Builds the sample in several partitions."""
    return [*parquet_flags(sample_files, tokenizer_directory), *map(str, _SMALL)]


@pytest.mark.parametrize("runner", ["FnApiRunner", pytest.param("PrismRunner", marks=needs_prism)])
def test_dataset_is_the_same_for_any_number_of_processes(
    tmp_path: Path, flags: list[str], runner: str
) -> None:
    manifests = [
        build(tmp_path / str(processes), *flags, "--processes", processes, runner=runner)
        for processes in (1, 2, 3)
    ]
    assert len({manifest.fingerprint for manifest in manifests}) == 1
    assert [manifest.run["processes"] for manifest in manifests] == [1, 2, 3]
    assert _workers(os.getpid()) == []


def test_worker_that_is_killed_ends_the_job_clearly_and_the_same_command_goes_on(
    tmp_path: Path, flags: list[str]
) -> None:
    expected = build(tmp_path / "whole", *flags).fingerprint
    out = tmp_path / "killed"
    process = _start(out, flags)
    worker = _first_worker(process)
    worker.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a worker process of this job ended" in output and "run the same command" in output
    assert "Traceback" not in output
    assert build(out, *flags, "--processes", 2).fingerprint == expected


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_a_job_that_is_stopped(
    tmp_path: Path, flags: list[str], sent: signal.Signals
) -> None:
    process = _start(tmp_path / "out", flags)
    _first_worker(process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(sent)
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert [each.cmdline() for each in alive] == []


def test_script_without_a_main_guard_is_not_run_again_by_workers(
    tmp_path: Path, flags: list[str]
) -> None:
    script = tmp_path / "script.py"
    argv = [*flags, "--processes", "2", "--output", str(tmp_path / "out"), "--no-progress"]
    script.write_text(
        "from shardstream.pipelines.job.options import parse_options\n"
        "from shardstream.pipelines.preprocess import preprocess\n"
        "print('began')\n"
        f"print(preprocess(parse_options({argv!r})).status)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("began") == 1 and "complete" in done.stdout


def _start(out: Path, flags: list[str]) -> subprocess.Popen[str]:
    """Starts a build that takes a while, in two worker processes."""
    command = [sys.executable, "-m", "shardstream.pipelines.preprocess", *flags]
    command += ["--output", str(out), "--processes", "2", "--runner", "FnApiRunner"]
    command += ["--tokenizer_engine", "transformers", "--block_kb", "4", "--no-progress"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def _first_worker(process: subprocess.Popen[str]) -> psutil.Process:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := _workers(process.pid):
            return found[0]
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    raise TimeoutError("no worker was started")


def _workers(pid: int) -> list[psutil.Process]:
    """The workers that a process has: children of its fork server."""
    servers = [
        child
        for child in psutil.Process(pid).children()
        if "forkserver" in " ".join(child.cmdline())
    ]
    return [worker for server in servers for worker in server.children()]
