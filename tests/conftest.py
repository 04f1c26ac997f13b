"""Small real data for every test: parquet files on disk, a trained tokenizer, no network."""

import os
from collections.abc import Callable, Iterator

# Tests reach no hub but the loopback one, which subprocesses are pointed at; failing fast is kinder.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardstream.pipelines.sample import SampleFiles, build_sample
from tests.store_servers import StoreServer


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleFiles:
    """The embedded sample: 4 parquet files of real English, a tokenizer of 8,192 entries."""
    return build_sample(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="session")
def tokenizer_directory(sample: SampleFiles) -> str:
    return str(sample.tokenizer_directory)


@pytest.fixture(scope="session")
def sample_files(sample: SampleFiles) -> list[str]:
    return [str(path) for path in sample.parquet_files]


TWELVE_DOCUMENTS = [
    "The quick brown fox jumps over the lazy dog.",
    "",
    "Naïve café — ½ price, 東京, привет, 👩‍👩‍👧‍👦!",
    "a " * 400,
    "tabs\tand\r\nnew lines\n\n",
    "   leading and trailing   ",
    "def f(x):\n    return x ** 2\n",
    "It's, we'll, THEY'RE, don'T",
    "1234567890 3.14159 1e-9",
    "<|endoftext|> is written here as text",
    "x",
    "The quick brown fox jumps over the lazy dog.",
]


@pytest.fixture
def twelve_documents(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two parquet files with 5 and 7 documents in row groups of 2, beside columns nobody wants."""
    folder = tmp_path_factory.mktemp("twelve")
    paths = []
    for index, texts in enumerate((TWELVE_DOCUMENTS[:5], TWELVE_DOCUMENTS[5:])):
        table = pa.table({"id": range(len(texts)), "text": texts, "url": ["u"] * len(texts)})
        path = folder / f"part-{index}.parquet"
        pq.write_table(table, path, row_group_size=2)
        paths.append(str(path))
    return paths


@pytest.fixture(scope="session")
def store_servers() -> Iterator[Callable[[str], StoreServer]]:
    """Starts the server of "gs" or "s3" when it is first asked for; one a session."""
    servers: dict[str, StoreServer] = {}

    def server_of(scheme: str) -> StoreServer:
        if scheme not in servers:
            servers[scheme] = StoreServer(scheme)
        return servers[scheme]

    yield server_of
    for server in servers.values():
        server.close()


def _use_store(
    scheme: str,
    servers: Callable[[str], StoreServer],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> str:
    server = servers(scheme)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server.root(f"{request.function.__name__}-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def gs_root(
    store_servers: Callable[[str], StoreServer],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> str:
    """An empty gs:// directory of this test's own, on a server that the environment names."""
    return _use_store("gs", store_servers, monkeypatch, request)


@pytest.fixture(params=["gs", "s3"])
def store_root(
    store_servers: Callable[[str], StoreServer],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> str:
    """An empty directory on each kind of store, as `gs_root`."""
    return _use_store(request.param, store_servers, monkeypatch, request)
