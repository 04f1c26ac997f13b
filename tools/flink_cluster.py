"""A Flink cluster of one job manager and several task managers on this machine, without docker.

For tests and for trying things out: real processes that can be killed, a real shuffle between them,
checkpoints in a folder. Everything it starts is a child of this process and ends with it.

    python -m tools.flink_cluster --task_managers 2   # prints the flags to run with; Ctrl-C ends it
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tools.fetch_runners import cluster_boot_path, fetch_flink

_START_SECS = 120
_STOP_SECS = 15
_JOB_SERVER_MAIN = "org.apache.beam.runners.flink.FlinkJobServerDriver"


class FlinkCluster:
    """Starts a cluster and a job server for it; a context manager.

    Args:
        task_managers: processes, one slot each.
        environment: added to theirs; what the Python workers they start see.
        folder: for logs, checkpoints and savepoints; a temporary one where None.

    Attributes:
        job_endpoint: for `--job_endpoint`.
        task_managers: their processes, to be killed.
    """

    def __init__(
        self,
        *,
        task_managers: int = 2,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._count = task_managers
        self._environment = os.environ | (environment or {})
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="flink-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self.task_managers: list[subprocess.Popen[bytes]] = []

    @property
    def beam_args(self) -> list[str]:
        """The flags that send a pipeline here, but for the workers' environment."""
        return [
            "--runner=FlinkRunner",
            f"--job_endpoint={self.job_endpoint}",
            f"--parallelism={self._count}",
        ]

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every process, and removes the folder unless it was given."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(_STOP_SECS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes, self.task_managers = [], []
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start_task_manager(self) -> None:
        """Starts one more."""
        process = self._popen(
            [str(self._home / "bin" / "taskmanager.sh"), "start-foreground"],
            f"task_manager_{len(self._processes)}",
        )
        self.task_managers.append(process)

    def logs(self) -> list[str]:
        """Returns what each task manager has printed, its Python workers' lines included."""
        found = (self.folder / "logs").glob("task_manager_*.out")
        return [path.read_text(errors="replace") for path in found]

    def jobs(self) -> dict[str, str]:
        """Returns the state of each job, by id, the latest last."""
        jobs = self.rest("/jobs/overview")["jobs"]
        return {job["jid"]: job["state"] for job in sorted(jobs, key=lambda j: j["start-time"])}

    def checkpoints(self, job: str) -> int:
        """Returns how many checkpoints of a job are complete."""
        return self._count_checkpoints(job, "completed")

    def restores(self, job: str) -> int:
        """Returns how often a job went back to a checkpoint or savepoint.

        Flink keeps this with the job; its metric numRestarts is gone when the job has ended, and
        empty until somebody has asked for it some seconds ago.
        """
        return self._count_checkpoints(job, "restored")

    def cancel(self, job: str) -> None:
        """Cancels a job for good; Beam's own cancel leaves it running on a cluster."""
        self.rest(f"/jobs/{job}?mode=cancel", method="PATCH")
        self._wait_for(f"job {job} to end", lambda: self.jobs()[job] in ("CANCELED", "FAILED"))

    def savepoint(self, job: str, *, cancel: bool) -> str:
        """Saves a job's state; returns the path to pass as `--savepoint_path`."""
        request = {"target-directory": (self.folder / "savepoints").as_uri(), "cancel-job": cancel}
        trigger = self.rest(f"/jobs/{job}/savepoints", request)["request-id"]
        found: dict[str, Any] = {}

        def is_done() -> bool:
            found.update(self.rest(f"/jobs/{job}/savepoints/{trigger}"))
            return found["status"]["id"] == "COMPLETED"

        self._wait_for("the savepoint", is_done)
        if "location" not in found["operation"]:
            raise RuntimeError(f"the savepoint failed: {found['operation']['failure-cause']}")
        return found["operation"]["location"]

    def rest(
        self, path: str, data: dict[str, Any] | None = None, *, method: str | None = None
    ) -> dict[str, Any]:
        """Returns the job manager's answer to a request, a JSON object."""
        body = None if data is None else json.dumps(data).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(
            f"{self._rest_url}{path}", data=body, method=method, headers=headers
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"{}")

    def _count_checkpoints(self, job: str, kind: str) -> int:
        with contextlib.suppress(urllib.error.HTTPError):  # 404 before its first one
            return self.rest(f"/jobs/{job}/checkpoints")["counts"][kind]
        return 0

    def _start(self) -> None:
        self._home = fetch_flink()
        class_path, boot_path = cluster_boot_path()
        rest, rpc, blob, job = _free_ports(4)
        self._rest_url = f"http://localhost:{rest}"
        self.job_endpoint = f"localhost:{job}"
        self._write_configuration(rest, rpc, blob)
        jobs = [str(self._home / "bin" / "jobmanager.sh"), "start-foreground"]
        self._popen(jobs, "job_manager")
        for _ in range(self._count):
            self.start_task_manager()
        self._popen(
            [
                "java",
                "-Xmx512m",
                "-Dorg.slf4j.simpleLogger.showDateTime=true",
                f"-Xbootclasspath/a:{':'.join(map(str, boot_path))}",
                "-cp",
                ":".join(map(str, class_path)),
                _JOB_SERVER_MAIN,
                f"--flink-master=localhost:{rest}",
                f"--flink-conf-dir={self.folder / 'conf'}",
                f"--artifacts-dir={self.folder / 'artifacts'}",
                f"--job-port={job}",
                "--artifact-port=0",
                "--expansion-port=0",
            ],
            "job_server",
        )
        self._wait_for("the task managers", self._has_task_managers)
        self._wait_for("the job server", lambda: _listens(job))

    def _write_configuration(self, rest: int, rpc: int, blob: int) -> None:
        conf = self.folder / "conf"
        conf.mkdir(parents=True)
        for name in ("masters", "workers"):
            (conf / name).write_text("localhost\n")
        options = {
            "jobmanager.rpc.address": "localhost",
            "jobmanager.rpc.port": rpc,
            "jobmanager.bind-host": "localhost",
            "jobmanager.memory.process.size": "1000m",
            "taskmanager.host": "localhost",
            "taskmanager.bind-host": "localhost",
            "taskmanager.numberOfTaskSlots": 1,
            "taskmanager.memory.process.size": "1400m",
            "taskmanager.memory.managed.fraction": 0.2,
            "blob.server.port": blob,
            "rest.address": "localhost",
            "rest.bind-address": "localhost",
            "rest.port": rest,
            "execution.checkpointing.dir": (self.folder / "checkpoints").as_uri(),
            "state.checkpoints.dir": (self.folder / "checkpoints").as_uri(),
            "state.savepoints.dir": (self.folder / "savepoints").as_uri(),
            "classloader.resolve-order": "parent-first",
            "io.tmp.dirs": str(self.folder / "tmp"),
            # A task manager that was killed refuses connections, so two settle it; one that
            # is only slow, on a machine that does other things too, must not be taken for dead.
            "heartbeat.interval": 1000,
            "heartbeat.rpc-failure-threshold": 2,
            "heartbeat.timeout": 300_000,
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": 4,
            "restart-strategy.fixed-delay.delay": "4 s",
        }
        lines = [f"{name}: {value}" for name, value in options.items()]
        java = f"{_java_options(self._home)} -Dorg.slf4j.simpleLogger.showDateTime=true"
        lines.append(f"env.java.opts.all: {java}")
        (conf / "config.yaml").write_text("\n".join(lines) + "\n")
        self._environment |= {
            "FLINK_CONF_DIR": str(conf),
            "FLINK_LOG_DIR": str(self.folder / "logs"),
            "FLINK_PID_DIR": str(self.folder / "pids"),
        }
        for name in ("logs", "pids", "tmp", "artifacts"):
            (self.folder / name).mkdir()

    def _popen(self, command: list[str], name: str) -> subprocess.Popen[bytes]:
        with (self.folder / "logs" / f"{name}.out").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )
        self._processes.append(process)
        return process

    def _has_task_managers(self) -> bool:
        with contextlib.suppress(OSError):
            return len(self.rest("/taskmanagers")["taskmanagers"]) >= self._count
        return False

    def _wait_for(self, what: str, happened: Callable[[], bool]) -> None:
        until = time.monotonic() + _START_SECS
        while not happened():
            dead = [p for p in self._processes if p.poll() is not None]
            if time.monotonic() > until or (dead and not self.task_managers):
                raise RuntimeError(f"waited for {what} in vain; see {self.folder}/logs")
            time.sleep(0.2)


def _java_options(home: Path) -> str:
    """Returns the options Flink's own configuration gives to Java 11 and later."""
    for line in (home / "conf" / "config.yaml").read_text().splitlines():
        if line.strip().startswith("all: --add-exports"):
            return line.split("all:", 1)[1].strip()
    raise RuntimeError(f"{home}/conf/config.yaml has no env.java.opts.all")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
        return True
    return False


def main() -> int:
    """Runs a cluster until interrupted; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task_managers", type=int, default=2)
    with FlinkCluster(task_managers=parser.parse_args().task_managers) as cluster:
        print(" ".join(cluster.beam_args), flush=True)
        print(f"logs: {cluster.folder}/logs", file=sys.stderr)
        with contextlib.suppress(KeyboardInterrupt):
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
