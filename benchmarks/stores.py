"""A dataset on a store: the loader against the store client's own ranged reads, in one run.

    python -m benchmarks.stores                      # gs:// on loopback, as fast as it goes
    python -m benchmarks.stores --latency_ms 30 --mb_per_sec 250     # a store at a distance

The server is the tests' (fake-gcs-server, objects in memory) and shares the machine's cores with
its clients, so without a limit the figures say what processor time is left, not what a network
gives: on two cores the client reads 1.8 GB/s and filling the cache does 0.7, of which hashing takes
a third (SHA-256 is 1.3 GB/s a core; without it 1.2) and the page cache most of the rest; an epoch
over local files does 0.8, so none from a store could reach 80 % of 1.8. The client's own rate is
the best over numbers of threads, 1 MiB ranges, nothing done with the bytes. `cache` fetches, writes
and hashes every shard; `epoch 1` trains from an empty cache, `epoch 2` from a full one, `local`
from the files. Rounds run in turn, and the best time counts.
"""

import argparse
import dataclasses
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

from benchmarks.loader_data import random_sequences, write_dataset
from shardstream.loaders import Loader
from shardstream.loaders.store.cache import StoreCache
from shardstream.shard_format import naming
from shardstream.shard_format.manifest import Manifest, read_manifest
from shardstream.shard_format.shard_file import ShardOptions
from shardstream.shard_format.storage import open_directory
from tests.store_servers import StoreServer

LENGTH = 2048
CLIENT_THREADS = (1, 2, 4, 8, 16)


def read_ranges(root: str, manifest: Manifest, threads: int) -> int:
    """Reads every shard by the client alone, in ranges of 1 MiB; returns the bytes."""
    directory = open_directory(root)
    ranges = [
        (shard.file, begin, min(begin + (1 << 20), shard.bytes))
        for shard in manifest.shards
        for begin in range(0, shard.bytes, 1 << 20)
    ]
    with ThreadPoolExecutor(threads) as pool:
        return sum(len(data) for data in pool.map(lambda r: directory.read_range(*r), ranges))


def fill_cache(root: str, manifest: Manifest, cache: Path) -> int:
    """Fetches every shard into an empty cache; returns the bytes."""
    store = StoreCache(open_directory(root), manifest, manifest.shards, cache_dir=cache)
    waiting = []
    for shard in manifest.shards:
        entry = store.entry_of(shard)
        waiting += store.request(entry, np.arange(entry.num_units))
    for future in waiting:
        future.result()
    assert store.bytes_fetched == sum(shard.bytes for shard in manifest.shards)
    return store.bytes_fetched


def read_epoch(root: str, cache: Path | None) -> int:
    """Iterates once over the loader's shuffled batches; returns the bytes of their tokens."""
    tokens = 0
    with Loader(root, batch_size=64, seed=0, output="numpy", cache_dir=cache) as loader:
        for batch in loader:
            tokens += batch["tokens"].size
    return tokens * 2


def measure(rounds: int, work: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Returns the best MB/s of each piece of work, the pieces run in turn."""
    best = dict.fromkeys(work, 0.0)
    for _ in range(rounds):
        for name, run in work.items():
            started = time.perf_counter()
            done = run()
            best[name] = max(best[name], done / (time.perf_counter() - started) / 1e6)
    return best


def main() -> None:
    """Prints one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--mb", type=int, default=512, help="size of the dataset")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency_ms", type=float, default=0, help="before each answer")
    parser.add_argument("--mb_per_sec", type=float, default=0, help="of all answers together")
    parser.add_argument("--data", default=str(Path.home() / ".cache"), help="where files are kept")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=options.data) as folder,
        StoreServer("gs", latency_ms=options.latency_ms, mb_per_sec=options.mb_per_sec) as server,
    ):
        os.environ |= server.environment
        local, root, cache = Path(folder) / "local", server.root("data"), Path(folder) / "cache"
        num_shards = max(1, options.mb // 32)
        write_dataset(
            random_sequences((options.mb << 20) // (LENGTH * 2), LENGTH), local, num_shards
        )
        made = read_manifest(open_directory(local))
        made = dataclasses.replace(made, options=dataclasses.asdict(ShardOptions()))
        open_directory(local).write(naming.MANIFEST, made.to_json())
        for name in open_directory(local).list():
            open_directory(root).write(name, open_directory(local).read(name))
        manifest = read_manifest(open_directory(root))

        def emptied(run: Callable[[], int]) -> Callable[[], int]:
            def start() -> int:
                shutil.rmtree(cache, ignore_errors=True)
                return run()

            return start

        work = {
            f"client {threads}": lambda threads=threads: read_ranges(root, manifest, threads)
            for threads in CLIENT_THREADS
        }
        work["cache"] = emptied(lambda: fill_cache(root, manifest, cache))
        work["epoch 1"] = emptied(lambda: read_epoch(root, cache))
        work["epoch 2"] = lambda: read_epoch(root, cache)
        work["local"] = lambda: read_epoch(str(local), None)
        found = measure(options.rounds, work)
    client = max(rate for name, rate in found.items() if name.startswith("client"))
    shares = {f"{name} / client": found[name] / client for name in ("cache", "epoch 1")}
    print(json.dumps(vars(options) | {k: round(v, 2) for k, v in (found | shares).items()}))


if __name__ == "__main__":
    main()
