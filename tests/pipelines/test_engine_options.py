"""The job servers' own account of their options is what `engine_options` says."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from shardstream.pipelines.job.engine_options import OF_RUNNER
from shardstream.pipelines.job.runner_flags import runner_parser
from tests.runners.engines import needs_java
from tools.fetch_runners import fetch_job_server

_TIMEOUT_SECS = 120


@pytest.fixture
def options(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, bool]]:
    """Of a job server that runs: every option, and whether it is a switch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["java", "-jar", str(fetch_job_server(request.param)), f"--job-port={port}"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--artifact-port=0", "--expansion-port=0"], stdout=log, stderr=log
        )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=_TIMEOUT_SECS)
            service = beam_job_api_pb2_grpc.JobServiceStub(channel)
            request_ = beam_job_api_pb2.DescribePipelineOptionsRequest()
            found = service.DescribePipelineOptions(request_).options
        switch = beam_job_api_pb2.PipelineOptionType.BOOLEAN
        yield {option.name: option.type == switch for option in found}
    finally:
        server.terminate()
        server.wait()


@needs_java
@pytest.mark.engines
@pytest.mark.parametrize(
    ("options", "runner"),
    [("flink", "FlinkRunner"), ("spark", "SparkRunner")],
    indirect=["options"],
)
def test_options_are_those_that_the_job_server_describes(
    options: dict[str, bool], runner: str
) -> None:
    registered = {name.removeprefix("--") for name in runner_parser([]).names}
    described = {name: switch for name, switch in options.items() if name not in registered}
    values, switches = OF_RUNNER[runner]
    assert dict.fromkeys(values, False) | dict.fromkeys(switches, True) == described
