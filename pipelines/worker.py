"""The program that an engine starts for each Python worker: `--environment_type=PROCESS`.

Beam's containers have a boot program; a Flink or Spark machine without containers needs one too.
The engine calls it with a worker id and an address; that address tells the rest, which Beam's
worker wants in its environment. `pip install` puts it on PATH as `shardstream-worker`:

    --environment_type=PROCESS --environment_config='{"command": "/venv/bin/shardstream-worker"}'

The machine must have the same shardstream installed as the one that submits: nothing is staged.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import grpc
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
from apache_beam.runners.worker import sdk_worker_main
from google.protobuf import json_format, text_format

_TIMEOUT_SECS = 60


def main(argv: Sequence[str] | None = None) -> None:
    """Works for the engine until it closes the connection."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--id", required=True)
    parser.add_argument("--provision_endpoint", required=True)
    flags, _ = parser.parse_known_args(argv)
    worker_id = flags.id.strip("'")  # Prism quotes it
    with tempfile.TemporaryDirectory(prefix="shardstream-worker-") as folder:
        os.environ.update(_environment(_ask(worker_id, flags.provision_endpoint), worker_id))
        os.environ["SEMI_PERSISTENT_DIRECTORY"] = folder
        sdk_worker_main.main([])


def _ask(worker_id: str, endpoint: str) -> Any:
    """Returns the engine's ProvisionInfo for a worker."""
    channel = grpc.intercept_channel(grpc.insecure_channel(endpoint), _Identify(worker_id))
    stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
    request = beam_provision_api_pb2.GetProvisionInfoRequest()
    return stub.GetProvisionInfo(request, timeout=_TIMEOUT_SECS, wait_for_ready=True).info


def _environment(info: Any, worker_id: str) -> dict[str, str]:
    """Returns what sdk_worker_main reads from its environment."""
    found = {
        "WORKER_ID": worker_id,
        "PIPELINE_OPTIONS": json.dumps(json_format.MessageToDict(info.pipeline_options)),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }
    for name in ("logging", "control", "status"):
        endpoint = getattr(info, f"{name}_endpoint")
        if endpoint.url:
            text = text_format.MessageToString(endpoint)
            found[f"{name.upper()}_API_SERVICE_DESCRIPTOR"] = text
    return found


class _Identify(grpc.UnaryUnaryClientInterceptor):
    """Adds the worker's id to a call."""

    def __init__(self, worker_id: str) -> None:
        self._metadata = (("worker_id", worker_id),)

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Passes the call on with the id."""
        return continuation(details._replace(metadata=self._metadata), request)


if __name__ == "__main__":
    main()
