"""Dataflow's job service on loopback, as far as Beam's client talks to it; jobs may really run.

REST on http://127.A.B.C/sandbox: Beam takes REST only for addresses with "sandbox" or "localhost"
in them, and skips its own validation for "localhost". No port may stand in the address, so the
server takes port 80 of a loopback address of its own, drawn at random: tests can run side by side.

What it shows is the shape of what is sent, and what becomes of it on Prism and the SDK container's
boot. It has no quotas, IAM, autoscaling or validation of Google's.
"""

import http.server
import json
import random
import re
import socketserver
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Self

import pytest

RUNNING, DONE, FAILED, CANCELLED = 2, 3, 4, 5
BASIC, ERROR = 5, 4  # importance of messages
_PATH = re.compile(
    r"/v1b3/projects/[^/]+/locations/[^/]+/jobs(?:/(?P<job>[^/:?]+))?(?:[/:](?P<part>\w+))?(?:\?|$)"
)


class DataflowStub:
    """A running job service.

    Args:
        folder: where posted jobs and logs of their execution go.
        execute: run each job on Prism and boot; False calls it done at once.

    Attributes:
        endpoint: for --dataflow_endpoint.
        jobs: what was posted, by id, with the service's own fields.
    """

    def __init__(self, folder: Path, *, execute: bool) -> None:
        self._folder = folder
        self._execute = execute
        self._bodies: dict[str, dict[str, Any]] = {}
        self._metrics: dict[str, list[dict[str, Any]]] = {}
        self._messages: dict[str, list[dict[str, Any]]] = {}
        self._processes: dict[str, subprocess.Popen] = {}
        self._threads: list[threading.Thread] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self._server = _listen(self)
        self.endpoint = f"http://{self._server.server_address[0]}/sandbox"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def posted(self) -> dict[str, Any]:
        """The one job that was posted, as it was sent."""
        (body,) = self._bodies.values()
        return body

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Takes a job and starts it; the client wants the first answer to say RUNNING."""
        job_id = uuid.uuid4().hex
        self._bodies[job_id] = body
        kept = ("projectId", "name", "type", "clientRequestId", "labels")
        job = {key: body[key] for key in kept if key in body}
        job |= {"id": job_id, "location": "us-central1", "createTime": _now()}
        self.jobs[job_id] = job | {"currentState": RUNNING}
        self._messages[job_id], self._metrics[job_id] = [], []
        answer = dict(self.jobs[job_id])
        if self._execute:
            thread = threading.Thread(target=self._run, args=(job_id,))
            self._threads.append(thread)
            thread.start()
        else:
            self.jobs[job_id]["currentState"] = DONE
        return answer

    def answer(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the reply to a request, None where there is no such thing."""
        match = _PATH.search(path)
        if match is None:
            return None
        job_id, part = match["job"], match["part"]
        if job_id is None:
            if method == "POST":
                return self.create(body)
            return {"jobs": list(self.jobs.values())}
        if job_id not in self.jobs:
            return None
        if part == "messages":
            return {"jobMessages": self._messages[job_id]}
        if part == "metrics":
            return {"metricTime": _now(), "metrics": self._metrics[job_id]}
        if method == "PUT" and body.get("requestedState") == CANCELLED:
            self.jobs[job_id]["currentState"] = CANCELLED
            if job_id in self._processes:
                self._processes[job_id].terminate()
        return self.jobs[job_id]

    def _run(self, job_id: str) -> None:
        path = self._folder / f"{job_id}.json"
        path.write_text(json.dumps(self._bodies[job_id]))
        command = [sys.executable, "-m", "tests.dataflow.execute_job", str(path)]
        with (self._folder / f"{job_id}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
            self._processes[job_id] = process
            text, _ = process.communicate()
        if self.jobs[job_id]["currentState"] == CANCELLED:
            return
        outcome = json.loads(text.splitlines()[-1]) if text.strip() else {"state": "FAILED"}
        self._metrics[job_id] = [
            {
                "name": {
                    "origin": "user",
                    "name": counter["name"],
                    "context": {"namespace": counter["namespace"], "step": counter["step"]}
                    | tentative,
                },
                "scalar": counter["value"],
                "updateTime": _now(),
            }
            for counter in outcome.get("counters", [])
            for tentative in ({}, {"tentative": "true"})  # Beam wants every counter both ways
        ]
        for error in outcome.get("errors", []):
            self._messages[job_id].append(
                {
                    "id": uuid.uuid4().hex,
                    "time": _now(),
                    "messageText": error,
                    "messageImportance": ERROR,
                }
            )
        self.jobs[job_id]["currentState"] = DONE if outcome["state"] == "DONE" else FAILED

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.terminate()
        for thread in self._threads:
            thread.join()
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


def _listen(stub: DataflowStub) -> _Server:
    class Handler(http.server.BaseHTTPRequestHandler):
        def _serve(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = stub.answer(self.command, self.path, json.loads(raw or b"{}"))
            data = json.dumps(found if found is not None else {"error": {"code": 404}}).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _serve

        def log_message(self, *_: object) -> None:
            pass

    return loopback_server(80, lambda address: _Server(address, Handler))


def loopback_server(port: int, make: Any) -> Any:
    """Returns make((address, port)) for a free loopback address; skips the test where it may not.

    Ports below 1024 are free for root, and for all where net.ipv4.ip_unprivileged_port_start is
    low enough.
    """
    for _ in range(20):
        address = ".".join(map(str, (127, *(random.SystemRandom().randint(2, 250) for _ in "abc"))))
        try:
            return make((address, port))
        except PermissionError:
            pytest.skip(
                f"port {port} of {address} is not to be had: Dataflow tests run as root, or with "
                "sysctl net.ipv4.ip_unprivileged_port_start=80"
            )
        except OSError:
            continue
    raise RuntimeError(f"no loopback address with a free port {port} found in 20 tries")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
