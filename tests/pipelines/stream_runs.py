"""Runs streams in processes of their own, and reads what they have committed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardstream.shard_format.commit_log import read_commits
from shardstream.shard_format.provenance import read_provenance
from shardstream.shard_format.storage import open_directory

STREAM = ["--mode", "stream", "--poll_secs", "0.3", "--max_shard_latency_secs", "0.5"]
_TIMEOUT_SECS = 300  # a machine that is shared may pause a test for minutes


def put(path: Path, texts: list[str]) -> None:
    """A file that appears whole, and looks settled at once."""
    private = path.with_suffix(".incoming")
    pq.write_table(pa.table({"text": texts}), private)
    os.utime(private, (0, 0))
    private.rename(path)


def texts(prefix: str, count: int = 30) -> list[str]:
    return [f"{prefix} number {i}" for i in range(count)]


class FollowRun:
    """A stream in a process of its own."""

    def __init__(
        self, output: Path, *flags: object, follow: bool = True, env: dict[str, str] | None = None
    ) -> None:
        self.output = output
        command = [
            sys.executable,
            "-m",
            "shardstream.pipelines.preprocess",
            *STREAM,
            "--no-progress",
        ]
        command += ["--follow_source"] if follow else []
        command += ["--output", str(output), *map(str, flags)]
        self._process = subprocess.Popen(
            command,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, what: Callable[[], bool]) -> None:
        until = time.monotonic() + _TIMEOUT_SECS
        while not what():
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise AssertionError(self._process.communicate()[0])
            time.sleep(0.02)

    def terminate(self) -> str:
        self._process.send_signal(signal.SIGTERM)
        text, _ = self._process.communicate(timeout=_TIMEOUT_SECS)
        assert self._process.returncode == 0, text
        return text

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)


def documents_by_file(output: Path) -> list[tuple[str, int]]:
    """(file name, row) of every committed document, as often as it is there."""
    directory = open_directory(output)
    names: dict[int, str] = {}
    found: list[tuple[str, int]] = []
    for commit in read_commits(directory):
        names |= {file.index: file.name for file in commit.files}
        for entry in commit.shards:
            table = read_provenance(directory, entry.shard.file)
            first = table.filter(pc.equal(table["start"], 0)).to_pylist()
            found += [(names[piece["partition"]], piece["row"]) for piece in first]
    return sorted(found)


def expect(*files: str, count: int = 30) -> list[tuple[str, int]]:
    return sorted((name, row) for name in files for row in range(count))
