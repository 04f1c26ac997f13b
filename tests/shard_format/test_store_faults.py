"""What a store client does when the store or the network fails, request by request."""

from collections.abc import Callable, Iterator

import pytest

from shardstream.shard_format.storage import open_directory, store_client
from shardstream.shard_format.storage.store_client import StoreError
from tests.faulty_proxy import FaultyProxy
from tests.store_servers import StoreServer

ENDPOINT = {"gs": "STORAGE_EMULATOR_HOST", "s3": "AWS_ENDPOINT_URL"}


@pytest.fixture
def proxy(
    store_root: str,
    store_servers: Callable[[str], StoreServer],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FaultyProxy]:
    """Stands before the server of store_root."""
    scheme = store_root.split(":")[0]
    monkeypatch.setattr(store_client, "RETRY_SECS", 20.0)
    with FaultyProxy(store_servers(scheme).url) as proxy:
        monkeypatch.setenv(ENDPOINT[scheme], proxy.url)
        yield proxy


@pytest.mark.parametrize("kind", ["500", "503", "429", "reset", "cut"])
def test_passing_faults_are_waited_out(store_root: str, proxy: FaultyProxy, kind: str) -> None:
    directory = open_directory(store_root)
    directory.write("a", bytes(range(200)))
    proxy.clear()
    proxy.fail(kind, "/a", times=2)
    assert directory.read("a") == bytes(range(200))
    proxy.fail(kind, "/a", times=1)
    assert bytes(directory.read_range("a", 5, 9)) == bytes(range(5, 9))
    assert len(proxy.requests) >= 5
    if kind != "cut":
        proxy.fail(kind, "/b", method="PUT")
        directory.write("b", b"1")
        assert directory.read("b") == b"1"


def test_lasting_fault_ends_in_an_error_that_names_the_object(
    store_root: str, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_client, "RETRY_SECS", 0.6)
    directory = open_directory(store_root)
    for kind in ("500", "429", "reset", "cut"):
        directory.write(f"shard-{kind}", b"0123456789")
        proxy.fail(kind, f"shard-{kind}", times=10**6)
        with pytest.raises(StoreError, match=f"{store_root}/shard-{kind}: the store failed"):
            directory.read(f"shard-{kind}")
    assert len(proxy.requests) > 8


def test_create_whose_answer_is_lost_was_still_ours(store_root: str, proxy: FaultyProxy) -> None:
    directory = open_directory(store_root)
    proxy.fail("cut", "commits/0", method="PUT")  # made, and the writer doesn't hear of it
    assert directory.create("commits/0", b"writer 1")
    assert not directory.create("commits/0", b"writer 2")
    assert directory.read("commits/0") == b"writer 1"


def test_refusals_are_told_at_once(store_root: str, proxy: FaultyProxy) -> None:
    with pytest.raises(FileNotFoundError, match=f"{store_root}/none: there is no such object"):
        open_directory(store_root).read("none")
    assert len(proxy.requests) == 1
