"""Runs a job that was posted to Dataflow, as Dataflow's workers would: from what was staged alone.

The staged pipeline.pb runs on Prism; its workers are started by the SDK container's own `boot`,
which installs the staged packages into a fresh environment. That environment sees the site-packages
of this one, as an image would bring them, but nothing of this project: only the staged sdist does.

Run as a command, it takes the file of a posted job and prints the outcome as a line of JSON:
`python -m tests.dataflow.execute_job JOB.json`. From Python (benchmarks): `execute_job(job)`.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from apache_beam import version
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import (
    beam_artifact_api_pb2_grpc,
    beam_job_api_pb2,
    beam_job_api_pb2_grpc,
    beam_runner_api_pb2,
    endpoints_pb2,
)
from apache_beam.runners.portability import artifact_service, portable_metrics
from google.protobuf import json_format, struct_pb2

from shardstream.pipelines.job.runners import find_prism

_BOOT = f"github.com/apache/beam/sdks/v2/python/container@v{version.__version__}"
_TIMEOUT_SECS = 300
# Prism gives a worker a minute to install and connect; on a machine that is busy, or that was
# stopped meanwhile, that says nothing about the job.
_WORKER_WAS_LATE = "didn't get control connection"
_PROJECT = ("shardstream", "__editable__")  # entries of site-packages that stand for this project


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job; counters have namespace, name, step and value."""

    state: str
    errors: list[str]
    counters: list[dict[str, Any]]


def find_boot() -> Path | None:
    """Returns the container's boot binary, built if need be; None where there is no Go."""
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    cache = base / "shardstream-tests" / f"beam-{version.__version__}"
    binary = cache / "container"
    if binary.exists():
        return binary
    if shutil.which("go") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["go", "install", _BOOT], env=os.environ | {"GOBIN": folder}, check=True)
        cache.mkdir(parents=True, exist_ok=True)
        private = cache / f"container.{os.getpid()}"
        shutil.copy(Path(folder) / "container", private)
        private.replace(binary)
    return binary


def execute_job(job: dict[str, Any], *, timeout_secs: float = _TIMEOUT_SECS) -> Outcome:
    """Runs a posted job to its end.

    Args:
        job: the JSON that was posted.
        timeout_secs: after which it counts as failed.

    Raises:
        RuntimeError: what was staged is not what the job says, or a binary is missing.
    """
    outcome = _execute(job, timeout_secs)
    if any(_WORKER_WAS_LATE in error for error in outcome.errors):
        print("Prism: the worker was late; once more", file=sys.stderr, flush=True)
        outcome = _execute(job, timeout_secs)
    return outcome


def _execute(job: dict[str, Any], timeout_secs: float) -> Outcome:
    sdk = job["environment"]["sdkPipelineOptions"]
    pipeline = _read_pipeline(sdk["options"])
    with tempfile.TemporaryDirectory(prefix="dataflow-job-") as name, contextlib.ExitStack() as end:
        folder = Path(name)
        pool_port, prism_port = _free_port(), _free_port()
        environment = _make_environment(folder)
        _use_pool(pipeline, pool_port)
        python = str(folder / "venv/bin/python")
        pool = ["-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={pool_port}"]
        boot = f"--container_executable={folder / 'boot'}"
        prism = [str(find_prism()), "--serve_http=false", f"--job_port={prism_port}"]
        for command in ([python, *pool, boot], prism):
            end.enter_context(_process(command, folder, environment))
        _wait_for(pool_port)
        _wait_for(prism_port)
        channel = end.enter_context(grpc.insecure_channel(f"127.0.0.1:{prism_port}"))
        jobs = beam_job_api_pb2_grpc.JobServiceStub(channel)
        return _run(jobs, job["name"], pipeline, sdk, timeout_secs)


def _read_pipeline(options: dict[str, Any]) -> beam_runner_api_pb2.Pipeline:
    with FileSystems.open(options["pipelineUrl"]) as stream:
        raw = stream.read()
    if hashlib.sha256(raw).hexdigest() != options["pipelineProtoHash"]:
        raise RuntimeError(f"{options['pipelineUrl']}: not the pipeline the job was posted with")
    return beam_runner_api_pb2.Pipeline.FromString(raw)


def _make_environment(folder: Path) -> dict[str, str]:
    """Makes the worker's Python; returns the environment of its processes."""
    boot = find_boot()
    if boot is None or find_prism() is None:
        raise RuntimeError(f"no Prism or no boot: go install {_BOOT}")
    image = folder / "image"
    image.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(_PROJECT):
            (image / entry.name).symlink_to(entry)
    command = [sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")]
    subprocess.run(command, check=True)
    (site,) = (folder / "venv/lib").glob("python*/site-packages")
    (site / "image.pth").write_text(f"{image}\n")
    script = folder / "boot"  # boot's default folder, /tmp, would be shared between jobs
    script.write_text(f'#!/bin/sh\nexec {boot} --semi_persist_dir={folder} "$@"\n')
    script.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HF_TOKEN")}
    return environment | {
        "PATH": f"{folder / 'venv/bin'}:{os.environ['PATH']}",
        "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT": "1",  # else boot makes /opt/apache/beam-venv
        # The "image" has all that is needed, and no network is touched.
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "1",
    }


def _use_pool(pipeline: beam_runner_api_pb2.Pipeline, port: int) -> None:
    """Has workers started by the pool, and staged files read through Beam's file systems."""
    endpoint = endpoints_pb2.ApiServiceDescriptor(url=f"127.0.0.1:{port}")
    payload = beam_runner_api_pb2.ExternalPayload(endpoint=endpoint).SerializeToString()
    for environment in pipeline.components.environments.values():
        for dependency in environment.dependencies:
            url = beam_runner_api_pb2.ArtifactUrlPayload.FromString(dependency.type_payload)
            dependency.type_urn = "beam:artifact:type:file:v1"
            dependency.type_payload = beam_runner_api_pb2.ArtifactFilePayload(
                path=url.url, sha256=url.sha256
            ).SerializeToString()
        environment.urn, environment.payload = "beam:env:external:v1", payload


def _run(
    jobs: beam_job_api_pb2_grpc.JobServiceStub,
    name: str,
    pipeline: beam_runner_api_pb2.Pipeline,
    sdk: dict[str, Any],
    timeout_secs: float,
) -> Outcome:
    options = json_format.ParseDict(sdk, struct_pb2.Struct())
    prepared = jobs.Prepare(
        beam_job_api_pb2.PrepareJobRequest(
            job_name=name, pipeline=pipeline, pipeline_options=options
        )
    )
    reader = artifact_service.BeamFilesystemHandler(None).file_reader
    with grpc.insecure_channel(prepared.artifact_staging_endpoint.url) as channel:
        artifact_service.offer_artifacts(
            beam_artifact_api_pb2_grpc.ArtifactStagingServiceStub(channel),
            artifact_service.ArtifactRetrievalService(reader),
            prepared.staging_session_token,
        )
    run = beam_job_api_pb2.RunJobRequest(preparation_id=prepared.preparation_id)
    job_id = jobs.Run(run).job_id
    errors: list[str] = []
    watcher = threading.Thread(target=_collect_errors, args=(jobs, job_id, errors), daemon=True)
    watcher.start()
    state = "FAILED"
    request = beam_job_api_pb2.GetJobStateRequest(job_id=job_id)
    try:
        for event in jobs.GetStateStream(request, timeout=timeout_secs):
            state = beam_job_api_pb2.JobState.Enum.Name(event.state)
            if state in ("DONE", "FAILED", "CANCELLED", "DRAINED"):
                break
    except grpc.RpcError as error:
        errors.append(f"{error.code()}: {error.details()}")
        return Outcome(state="FAILED", errors=errors, counters=[])
    watcher.join(5)
    return Outcome(state=state, errors=errors, counters=_counters(jobs, job_id))


def _collect_errors(
    jobs: beam_job_api_pb2_grpc.JobServiceStub, job_id: str, errors: list[str]
) -> None:
    request = beam_job_api_pb2.JobMessagesRequest(job_id=job_id)
    with contextlib.suppress(grpc.RpcError):
        for answer in jobs.GetMessageStream(request):
            message = answer.message_response
            if message.importance >= beam_job_api_pb2.JobMessage.JOB_MESSAGE_ERROR:
                errors.append(message.message_text)


def _counters(jobs: beam_job_api_pb2_grpc.JobServiceStub, job_id: str) -> list[dict[str, Any]]:
    metrics = jobs.GetJobMetrics(beam_job_api_pb2.GetJobMetricsRequest(job_id=job_id)).metrics
    counters = portable_metrics.from_monitoring_infos(metrics.committed, user_metrics_only=True)[0]
    return [
        {
            "namespace": key.metric.namespace,
            "name": key.metric.name,
            "step": key.step,
            "value": int(value),
        }
        for key, value in counters.items()
    ]


@contextlib.contextmanager
def _process(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Runs a process with all its children while the block lasts; its output goes to stderr."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=sys.stderr, start_new_session=True
    )
    try:
        yield
    finally:  # the group: a signal to the pool alone orphans boot and the worker
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(port: int) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def main() -> None:
    """Executes the job of a file; SIGTERM ends it with its processes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    FileSystems.set_options(PipelineOptions([]))
    job = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps(dataclasses.asdict(execute_job(job))), flush=True)


if __name__ == "__main__":
    main()
