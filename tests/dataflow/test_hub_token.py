"""The hub's token on workers: from Secret Manager's own API, by name."""

import base64
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardstream.pipelines.job.options import parse_options
from shardstream.transforms.hub_token import use_hub_token
from tests.store_servers import StoreServer

NAME = "projects/p/secrets/hub"


@pytest.fixture
def secret_manager(
    store_servers: Callable[[str], StoreServer], monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """Secret Manager with one secret; yields the paths asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers['Authorization']}")
            found = self.path.startswith(f"/v1/{NAME}/versions/")
            content = {"payload": {"data": base64.b64encode(b"hf_from_secret\n").decode()}}
            data = json.dumps(content if found else {"error": {"code": 403}}).encode()
            self.send_response(200 if found else 403)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in store_servers("gs").environment.items():  # credentials
        monkeypatch.setenv(name, value)
    address = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER", address)
    monkeypatch.setenv("HF_TOKEN", "")  # monkeypatch restores it, whatever is set meanwhile
    yield asked
    server.shutdown()
    server.server_close()


def test_token_comes_from_the_secret_once(secret_manager: list[str]) -> None:
    use_hub_token(NAME)
    assert os.environ["HF_TOKEN"] == "hf_from_secret"
    use_hub_token(NAME)
    assert secret_manager == [f"/v1/{NAME}/versions/latest:access Bearer fake"]


def test_token_of_the_environment_goes_first(
    secret_manager: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_own")
    use_hub_token(NAME)
    assert os.environ["HF_TOKEN"] == "hf_own" and not secret_manager


def test_secret_that_may_not_be_read_says_who_needs_what(secret_manager: list[str]) -> None:
    with pytest.raises(PermissionError, match=r"secretmanager\.secretAccessor"):
        use_hub_token("projects/p/secrets/other/versions/3")


def test_token_in_place_of_a_name_is_refused_and_not_repeated(tmp_path: Path) -> None:
    token = "hf_" + "abcdefghijklmnopqrstuvw"
    flags = ["--dataset", "d", "--tokenizer", "t", "--output", str(tmp_path)]
    with pytest.raises(ValueError, match="expected projects/PROJECT") as caught:
        parse_options([*flags, "--hub_token_secret", token])
    assert token not in str(caught.value)
