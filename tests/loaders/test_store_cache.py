"""Shards on a store through the host's cache: right, once, within its budget, whatever fails."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from shardstream.loaders import Loader
from shardstream.loaders.store.cache_entry import (
    FOLDER,
    UNIT_BYTES,
    CacheEntry,
    evict,
    list_entries,
)
from shardstream.shard_format import naming
from shardstream.shard_format.shard_file import ShardOptions
from shardstream.shard_format.storage import open_directory, store_client
from shardstream.shard_format.storage.store_client import StoreError
from tests.faulty_proxy import FaultyProxy
from tests.loaders.conftest import Dataset, build_dataset
from tests.store_servers import StoreServer

ORDERS = [
    {"shuffle": "none"},
    {"shuffle": "global"},
    {"shuffle": "buffer", "buffer_size": 300},
]


def put_dataset(root: str, path: Path, records: tuple[int, ...], **options: object) -> Dataset:
    """Builds a dataset with records of 4 KB and uploads it."""
    shard_options = ShardOptions(**options)
    made = build_dataset(path, records, sequence_length=2048, shard_options=shard_options)
    manifest = dataclasses.replace(made.manifest, options=dataclasses.asdict(shard_options))
    open_directory(path).write(naming.MANIFEST, manifest.to_json())
    for name in open_directory(path).list(recursive=False):
        open_directory(root).write(name, open_directory(path).read(name))
    return dataclasses.replace(made, manifest=manifest)


def read_all(path: object, **options: object) -> np.ndarray:
    """Returns all tokens of an iteration, in its order."""
    options = {"batch_size": 20, "output": "numpy", **options}
    with Loader(path, **options) as loader:
        return np.concatenate([batch["tokens"] for batch in loader])


@pytest.fixture
def proxy(
    gs_root: str,
    store_servers: Callable[[str], StoreServer],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FaultyProxy]:
    monkeypatch.setattr(store_client, "RETRY_SECS", 20.0)
    with FaultyProxy(store_servers("gs").url) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        yield proxy


@pytest.fixture
def large(gs_root: str, tmp_path: Path) -> Dataset:
    """Three shards of 4 to 6 units on gs_root."""
    return put_dataset(gs_root, tmp_path / "local", (1000, 1400, 1200))


@pytest.mark.parametrize("order", ORDERS)
def test_second_epoch_reads_nothing_from_the_store(
    gs_root: str, tmp_path: Path, large: Dataset, proxy: FaultyProxy, order: dict
) -> None:
    options = {"batch_size": 20, "output": "numpy", "epochs": 2, **order}
    there = Loader(gs_root, cache_dir=tmp_path / "cache", **options)
    with there, Loader(large.path, **options) as here:
        for step, (mine, local) in enumerate(zip(there, here, strict=True)):
            np.testing.assert_array_equal(mine["tokens"], local["tokens"])
            if step + 1 == there.steps_per_epoch:
                # Reads ahead are in the second epoch already: the first one is all in by now.
                proxy.clear()
    assert step + 1 == 2 * there.steps_per_epoch
    assert proxy.requests == []
    # A later process: the manifest is asked for, the shards are here.
    read_all(gs_root, cache_dir=tmp_path / "cache", **order)
    assert [name.rsplit("/", 1)[1] for _, name in proxy.requests] == [naming.MANIFEST]


def test_an_epoch_fetches_every_byte_once(
    gs_root: str, tmp_path: Path, large: Dataset, proxy: FaultyProxy
) -> None:
    read_all(gs_root, cache_dir=tmp_path / "cache", **ORDERS[2])
    manifest = open_directory(large.path).size(naming.MANIFEST)
    assert proxy.body_bytes == sum(s.bytes for s in large.manifest.shards) + manifest


def test_a_block_of_a_shard_costs_that_block(
    gs_root: str, tmp_path: Path, large: Dataset, proxy: FaultyProxy
) -> None:
    loader = Loader(gs_root, batch_size=20, output="numpy", cache_dir=tmp_path, shuffle="none")
    with loader:
        batch = loader.batch_at(20)  # records 400 to 419, in the middle of the first shard
    np.testing.assert_array_equal(batch["tokens"], large.tokens[400:420])
    assert proxy.body_bytes < 4 * UNIT_BYTES < large.manifest.shards[0].bytes


@pytest.mark.parametrize("options", [{"compression": "zstd"}, {"group_size": 16}])
def test_shards_of_another_layout_are_fetched_whole(
    gs_root: str, tmp_path: Path, options: dict
) -> None:
    made = put_dataset(gs_root, tmp_path / "local", (300, 200), **options)
    found = read_all(gs_root, cache_dir=tmp_path / "cache", shuffle="none")
    np.testing.assert_array_equal(found, made.tokens)


def test_s3_is_read_like_gs(
    store_servers: Callable[[str], StoreServer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = store_servers("s3")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    root = server.root(tmp_path.name)
    made = put_dataset(root, tmp_path / "local", (300, 200))
    for order in ORDERS:
        found = read_all(root, cache_dir=tmp_path / "cache", **order)
        np.testing.assert_array_equal(found, read_all(made.path, **order))


@pytest.mark.parametrize("kind", ["500", "429", "reset", "cut", "corrupt"])
def test_faults_on_the_way_change_no_batch(
    gs_root: str, tmp_path: Path, large: Dataset, proxy: FaultyProxy, kind: str
) -> None:
    for shard in large.manifest.shards:
        proxy.fail(kind, shard.file, times=2)
    found = read_all(gs_root, cache_dir=tmp_path / "cache", shuffle="none")
    np.testing.assert_array_equal(found, large.tokens)


def test_a_lasting_fault_ends_in_an_error_that_names_the_shard(
    gs_root: str,
    tmp_path: Path,
    large: Dataset,
    proxy: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_client, "RETRY_SECS", 0.5)
    proxy.fail("500", "train-00001-of-00003", times=10**6)
    with pytest.raises(StoreError, match=f"{gs_root}/train-00001-of-00003.array_record: the store"):
        read_all(gs_root, cache_dir=tmp_path / "cache", shuffle="none")


@pytest.mark.parametrize("change", ["shorter", "longer", "record", "end"])
def test_an_object_of_another_run_is_named(
    gs_root: str, tmp_path: Path, large: Dataset, change: str
) -> None:
    name = large.manifest.shards[1].file
    data = open_directory(gs_root).read(name)
    flipped = bytes([data[-1] ^ 1])
    other = {
        "shorter": data[:-70_000],
        "longer": data + b"0",
        "record": data[:9999] + bytes(8) + data[10007:],
        "end": data[:-1] + flipped,
    }
    open_directory(gs_root).write(name, other[change])
    with pytest.raises(ValueError, match=f"{gs_root}/{name}: expected {len(data)} bytes"):
        read_all(gs_root, cache_dir=tmp_path / "cache", shuffle="none")
    open_directory(gs_root).write(name, data)
    found = read_all(gs_root, cache_dir=tmp_path / "cache", shuffle="none")
    np.testing.assert_array_equal(found, large.tokens)


def test_a_damaged_local_copy_is_fetched_anew(gs_root: str, tmp_path: Path, large: Dataset) -> None:
    """As after a crash of the machine: the map reached the disk, the data didn't."""
    read_all(gs_root, cache_dir=tmp_path / "cache")
    for data in (tmp_path / "cache").rglob("data"):
        size = data.stat().st_size
        with data.open("r+b") as file:
            file.truncate(size // 2)
            file.truncate(size)
    found = read_all(gs_root, cache_dir=tmp_path / "cache", shuffle="none")
    np.testing.assert_array_equal(found, large.tokens)


def test_budget_too_small_is_told_at_the_start(
    gs_root: str, tmp_path: Path, large: Dataset
) -> None:
    whole = sum(shard.bytes for shard in large.manifest.shards)
    with pytest.raises(ValueError, match=f"cache_bytes is 1000000, expected at least {whole} for"):
        Loader(gs_root, batch_size=20, cache_dir=tmp_path, cache_bytes=10**6)


def test_budget_is_kept_while_more_than_it_holds_is_read(gs_root: str, tmp_path: Path) -> None:
    made = put_dataset(gs_root, tmp_path / "local", (260,) * 40)  # 40 shards of 2 units
    budget = 24 * 2 * UNIT_BYTES
    cache = tmp_path / "cache"
    stranger = cache / FOLDER / "notes.txt"
    other = cache / FOLDER / ("0" * 64)
    other.mkdir(parents=True)
    stranger.write_text("not ours")
    (other / "data").write_text("not ours either")
    options = {"batch_size": 20, "output": "numpy", **ORDERS[2]}
    largest = 0
    with (
        Loader(gs_root, cache_dir=cache, cache_bytes=budget, **options) as there,
        Loader(made.path, **options) as here,
    ):
        for step, (mine, local) in enumerate(zip(there, here, strict=True)):
            np.testing.assert_array_equal(mine["tokens"], local["tokens"])
            if step % 8 == 0:
                largest = max(largest, sum(size for _, size, _ in list_entries(cache / FOLDER)))
    assert budget // 2 < largest <= budget * 17 // 16
    assert stranger.read_text() == "not ours"
    assert (other / "data").read_text() == "not ours either"


def test_an_entry_that_others_evict_stays_readable_and_lets_go(
    gs_root: str, tmp_path: Path, large: Dataset
) -> None:
    folder = tmp_path / "cache" / FOLDER
    with Loader(
        gs_root, batch_size=20, output="numpy", cache_dir=tmp_path / "cache", shuffle="none"
    ) as loader:
        loader.batch_at(0)
        for _, _, path in list_entries(folder):
            evict(path)
        assert list_entries(folder) == []
        np.testing.assert_array_equal(loader.batch_at(2)["tokens"], large.tokens[40:60])
        np.testing.assert_array_equal(loader.batch_at(40)["tokens"], large.tokens[800:820])


def test_eviction_leaves_what_is_no_entry(tmp_path: Path, large: Dataset) -> None:
    shard = large.manifest.shards[0]
    CacheEntry(tmp_path, shard)
    (tmp_path / shard.sha256 / "mine").write_text("x")
    evict(tmp_path / shard.sha256)
    assert (tmp_path / "local").exists()
    assert len(list(tmp_path.glob(f".{shard.sha256}.*.old/mine"))) == 1
    evict(tmp_path / ("1" * 64))  # another process was first


_READ = """
import hashlib, sys
from tests.loaders.test_store_cache import read_all
tokens = read_all(sys.argv[1], cache_dir=sys.argv[2], shuffle="buffer", buffer_size=300)
print(hashlib.sha256(tokens.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_processes_share_a_cache_and_killed_ones_leave_nothing_held(
    gs_root: str, tmp_path: Path
) -> None:
    made = put_dataset(gs_root, tmp_path / "local", (1000,) * 12)
    command = [sys.executable, "-c", _READ, gs_root, str(tmp_path / "cache")]

    def start() -> subprocess.Popen:
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    for _ in range(2):
        killed = start()
        entries: list = []
        while len(entries) < 3 and killed.poll() is None:
            entries = list_entries(tmp_path / "cache" / FOLDER)
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        with contextlib.suppress(FileNotFoundError):  # the next one starts with part of it
            evict(entries[0][2])
    readers = [start() for _ in range(3)]
    found = {reader.communicate()[0] for reader in readers}
    expected = read_all(made.path, **ORDERS[2])
    import hashlib

    assert found == {hashlib.sha256(expected.tobytes()).hexdigest() + "\n"}


def test_a_stranger_in_an_entrys_place_is_left_and_named(tmp_path: Path, large: Dataset) -> None:
    shard = large.manifest.shards[0]
    (tmp_path / shard.sha256).mkdir()
    (tmp_path / shard.sha256 / "map").write_text("not ours")
    with pytest.raises(FileExistsError, match=f"{shard.sha256}: expected an entry of the cache"):
        CacheEntry(tmp_path, shard)
    assert (tmp_path / shard.sha256 / "map").read_text() == "not ours"


def test_leftovers_of_killed_processes_go_after_an_hour(
    gs_root: str, tmp_path: Path, large: Dataset
) -> None:
    folder = tmp_path / FOLDER
    names = [f".{'a' * 64}.{'b' * 32}.{end}" for end in ("new", "old", "mine")]
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "data").write_bytes(b"x")
        os.utime(folder / name, (0, 0))
    (folder / f".{'c' * 64}.{'b' * 32}.new").mkdir()  # being made right now
    Loader(gs_root, batch_size=20, cache_dir=tmp_path).close()
    left = sorted(path.name for path in folder.iterdir())
    assert left == [names[2], f".{'c' * 64}.{'b' * 32}.new"]


def test_without_obstore_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['obstore'] = None\n"
        "from loaders import Loader; Loader('gs://bkt/out', batch_size=1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'shardstream[stores]'" in done.stderr.splitlines()[-1]
