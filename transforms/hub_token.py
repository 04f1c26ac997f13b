"""The hub's token on workers: by environment, or from Secret Manager by name, never in the graph.

Options and graph of a Dataflow job are kept with the job and shown to everyone who may look at it,
so a token in them would be published. The name of a secret may be seen; its content is fetched by
the worker, with the worker's own service account, into the worker's own environment.
"""

import base64
import os
import re
import threading

from shardstream.shard_format.errors import OptionError

_NAME = re.compile(r"projects/[^/]+/secrets/[^/]+(/versions/[^/]+)?")
# gcloud's own variable for another address of the service; tests use it.
_ENDPOINT = "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER"
_TIMEOUT_SECS = 30
_lock = threading.Lock()


def check_secret_name(name: str) -> None:
    """Raises OptionError where name is not a secret's.

    The message doesn't repeat it: what was given may be the token itself.
    """
    if not _NAME.fullmatch(name):
        raise OptionError(
            "--hub_token_secret is not the name of a secret, expected "
            "projects/PROJECT/secrets/NAME or projects/PROJECT/secrets/NAME/versions/VERSION. "
            "Put the token into Secret Manager, and its name here."
        )


def use_hub_token(secret: str | None) -> None:
    """Sets HF_TOKEN from Secret Manager, where a secret is named and none is set; once a process.

    Raises:
        PermissionError: the secret can't be read; the message says by whom it should be.
    """
    if secret is None:
        return
    with _lock:
        if not os.environ.get("HF_TOKEN"):
            os.environ["HF_TOKEN"] = _read_secret(secret)


def _read_secret(name: str) -> str:
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    if "/versions/" not in name:
        name = f"{name}/versions/latest"
    endpoint = os.environ.get(_ENDPOINT, "https://secretmanager.googleapis.com/")
    credentials, _ = google.auth.default(["https://www.googleapis.com/auth/cloud-platform"])
    with AuthorizedSession(credentials) as session:
        url = f"{endpoint.rstrip('/')}/v1/{name}:access"
        answer = session.get(url, timeout=_TIMEOUT_SECS)
    if not answer.ok:
        raise PermissionError(
            f"secret {name}: can't be read ({answer.status_code} {answer.reason}). It must exist, "
            "and the workers' service account needs roles/secretmanager.secretAccessor on it."
        )
    return base64.b64decode(answer.json()["payload"]["data"]).decode().strip()
