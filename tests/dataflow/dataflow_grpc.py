"""Dataflow's job service over gRPC and TLS: creating a job and asking for it, nothing more."""

import datetime
import ipaddress
import random
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.cloud import dataflow_v1beta3

_SERVICE = "google.dataflow.v1beta3.JobsV1Beta3"


class DataflowGrpcStub:
    """A running job service on port 443 of a loopback address of its own.

    Args:
        folder: where its certificate goes.

    Attributes:
        endpoint: for --dataflow_endpoint.
        certificate: for GRPC_DEFAULT_SSL_ROOTS_FILE_PATH.
        jobs: that were created.
    """

    def __init__(self, folder: Path) -> None:
        self.jobs: list[dataflow_v1beta3.Job] = []
        address = ".".join(map(str, (127, *(random.SystemRandom().randint(2, 250) for _ in "abc"))))
        key, certificate = _make_certificate(address)
        self.endpoint = f"https://{address}"
        self.certificate = folder / "root.pem"
        self.certificate.write_bytes(certificate)
        self._server = grpc.server(ThreadPoolExecutor(4))
        calls = {
            "CreateJob": _call(self._create, dataflow_v1beta3.CreateJobRequest),
            "GetJob": _call(lambda _: self.jobs[-1], dataflow_v1beta3.GetJobRequest),
        }
        handler = grpc.method_handlers_generic_handler(_SERVICE, calls)
        self._server.add_generic_rpc_handlers((handler,))
        credentials = grpc.ssl_server_credentials([(key, certificate)])
        try:
            self._server.add_secure_port(f"{address}:443", credentials)
        except RuntimeError:
            pytest.skip(f"port 443 of {address} is not to be had: this test runs as root")
        self._server.start()

    def _create(self, request: dataflow_v1beta3.CreateJobRequest) -> dataflow_v1beta3.Job:
        job = request.job
        job.id = uuid.uuid4().hex
        job.current_state = dataflow_v1beta3.JobState.JOB_STATE_RUNNING
        job.location = request.location
        self.jobs.append(job)
        return job

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()


def _call(answer: Any, request: Any) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(
        lambda message, _: answer(message),
        request_deserializer=request.deserialize,
        response_serializer=dataflow_v1beta3.Job.serialize,
    )


def _make_certificate(address: str) -> tuple[bytes, bytes]:
    """Returns (key, certificate), PEM, for a server at an address; it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dataflow stub")])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(pem)
