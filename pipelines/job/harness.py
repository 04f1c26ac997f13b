"""Beam's worker, told by the engine's provision service what its environment must hold.

Beam's containers have a boot program that does so; `shardstream-worker` takes its place.
"""

import json
import os
import tempfile
from collections.abc import Callable

import grpc
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
from apache_beam.runners.worker import sdk_worker_main
from google.protobuf import json_format, text_format

_TIMEOUT_SECS = 60


def work(worker_id: str, endpoint: str) -> None:
    """Works for the engine that answers at endpoint until it closes the connection."""
    worker_id = worker_id.strip("'")  # Prism quotes it
    with tempfile.TemporaryDirectory(prefix="shardstream-worker-") as folder:
        os.environ.update(_environment(_ask(worker_id, endpoint), worker_id))
        os.environ["SEMI_PERSISTENT_DIRECTORY"] = folder
        sdk_worker_main.main([])


def _ask(worker_id: str, endpoint: str) -> beam_provision_api_pb2.ProvisionInfo:
    """Returns the engine's ProvisionInfo for a worker."""
    channel = grpc.intercept_channel(grpc.insecure_channel(endpoint), _Identify(worker_id))
    stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
    request = beam_provision_api_pb2.GetProvisionInfoRequest()
    return stub.GetProvisionInfo(request, timeout=_TIMEOUT_SECS, wait_for_ready=True).info


def _environment(info: beam_provision_api_pb2.ProvisionInfo, worker_id: str) -> dict[str, str]:
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

    def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.ClientCallDetails, object], object],
        details: grpc.ClientCallDetails,
        request: object,
    ) -> object:
        """Passes the call on with the id."""
        details = details._replace(metadata=self._metadata)  # pyright: ignore[reportAttributeAccessIssue]
        return continuation(details, request)
