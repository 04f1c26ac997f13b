"""What the tests of real engines share: the workers' program, flags, and a stream under way."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from shardstream.shard_format.commit_log import read_commits
from shardstream.shard_format.storage import open_directory
from tools.fetch_runners import missing_tools

REPOSITORY = Path(__file__).parents[2]
# Pauses of a busy machine included.
_TIMEOUT_SECS = 240

needs_java = pytest.mark.skipif(
    missing_tools() is not None,
    reason=f"{missing_tools()}: Flink and Spark can't be fetched; install a JDK and Maven",
)


def write_worker(folder: Path) -> Path:
    """Writes what `pip install` makes of the entry point shardstream-worker, for this checkout."""
    path = folder / "worker"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from pipelines.worker import main\nmain()\n"
    )
    path.chmod(0o755)
    return path


def process_flags(worker: Path) -> list[str]:
    """Python workers as processes of their own."""
    configuration = f'{{"command": "{worker}"}}'
    return ["--environment_type=PROCESS", f"--environment_config={configuration}"]


class Run:
    """`python -m pipelines.preprocess` in a process of its own."""

    def __init__(self, output: Path, flags: Sequence[object]) -> None:
        self.output = output
        self._log = (output.parent / f"{output.name}-{time.monotonic_ns()}.log").open("w+")
        command = [sys.executable, "-m", "shardstream.pipelines.preprocess", "--no-progress"]
        self._process = subprocess.Popen(
            [*command, "--output", str(output), *map(str, flags)],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )

    @property
    def text(self) -> str:
        """What it has printed."""
        self._log.flush()
        return Path(self._log.name).read_text()

    @property
    def num_commits(self) -> int:
        return sum(1 for _ in read_commits(open_directory(self.output)))

    def wait_for(self, what: Callable[[], bool]) -> None:
        until = time.monotonic() + _TIMEOUT_SECS
        while not what():
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise AssertionError(f"exit {self._process.returncode}\n{self.text}")
            time.sleep(0.1)

    def finish(self) -> int:
        """Returns the exit status."""
        try:
            return self._process.wait(_TIMEOUT_SECS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"didn't end\n{self.text}") from None

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
