"""Object stores on loopback: real servers that speak the stores' own protocols.

gs:// is fake-gcs-server with the two things it lacks for this project's clients (tests/gcsd, Go),
built once into a cache outside the repository, keyed by its sources. s3:// is moto's server.
Neither needs credentials beyond made-up ones, and both keep objects in memory.

Run as a command, it starts both and prints the environment to use them by:
`python -m tests.store_servers`.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

import pytest

BUCKET = "bkt"
_GCSD = Path(__file__).with_name("gcsd")
_MOTO = """
import logging, signal
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%s" % server.get_host_and_port(), flush=True)
signal.pause()
"""


def find_gcsd() -> Path | None:
    """Returns the server's binary, built if need be; None where there is no Go."""
    sources = sorted(path for path in _GCSD.iterdir() if path.suffix in (".go", ".mod", ".sum"))
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "shardstream"
    binary = cache / f"gcsd-{key}"
    if binary.exists():
        return binary
    if shutil.which("go") is None:
        return None
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        made = Path(folder) / "gcsd"
        subprocess.run(["go", "build", "-o", made, "."], cwd=_GCSD, check=True)
        made.replace(binary)
    return binary


class StoreServer:
    """A running store with one empty bucket.

    Args:
        scheme: "gs" or "s3".
        latency_ms: how long every answer of gs:// waits.
        mb_per_sec: of all its answers together, 0 for no limit.

    Attributes:
        url: where it listens.
        environment: variables that lead every client to it: obstore, Beam, google-cloud-storage,
            google-cloud-cpp, boto3.
    """

    def __init__(self, scheme: str, *, latency_ms: float = 0, mb_per_sec: float = 0) -> None:
        self.scheme = scheme
        self._limits = [f"-latency={latency_ms}ms", f"-rate={mb_per_sec}"]
        self._folder = tempfile.TemporaryDirectory(prefix="store-server-")
        self._process = subprocess.Popen(
            self._command(), stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.url = self._process.stdout.readline().strip()
        if not self.url.startswith("http://"):
            raise RuntimeError(f"the {scheme}:// server didn't start: {self.url!r}")
        self.environment = self._gs_environment() if scheme == "gs" else self._s3_environment()
        if scheme == "s3":
            self._make_bucket()

    def _command(self) -> list[str]:
        if self.scheme == "s3":
            return [sys.executable, "-c", _MOTO]
        binary = find_gcsd()
        if binary is None:
            pytest.skip("no Go toolchain: tests of gs:// need it to build tests/gcsd")
        return [str(binary), "-bucket", BUCKET, *self._limits]

    def _gs_environment(self) -> dict[str, str]:
        # A token that doesn't expire: nothing of Google's is asked for one.
        credentials = Path(self._folder.name) / "credentials.json"
        names = ("client_id", "client_secret", "refresh_token")
        content = dict.fromkeys(names, "x") | {"type": "authorized_user", "token": "fake"}
        credentials.write_text(json.dumps(content | {"expiry": "2099-01-01T00:00:00Z"}))
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": self.url,
            "GOOGLE_APPLICATION_CREDENTIALS": str(credentials),
            "NO_GCE_CHECK": "true",
        }

    def _s3_environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_REGION": "us-east-1",
        }

    def _make_bucket(self) -> None:
        import urllib.request

        request = urllib.request.Request(f"{self.url}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request).close()

    def root(self, name: str) -> str:
        """Returns the address of a directory in the bucket."""
        return f"{self.scheme}://{BUCKET}/{name}"

    def close(self) -> None:
        """Ends the server; its objects are gone."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main() -> None:
    """Runs both servers until Enter is pressed."""
    with StoreServer("gs") as google, StoreServer("s3") as amazon:
        for name, value in (google.environment | amazon.environment).items():
            print(f"export {name}={value}")
        print(f"# {google.root('out')} and {amazon.root('out')}; Enter ends them", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main()
