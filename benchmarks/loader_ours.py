"""Our loader, and the plain ArrayRecord read it is held against, as contenders of a race."""

import argparse
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from array_record.python.array_record_module import ArrayRecordReader

from benchmarks.loader_race import Contenders, serve
from shardstream.loaders import Loader
from shardstream.loaders.options import SHUFFLES
from shardstream.shard_format.manifest import read_manifest
from shardstream.shard_format.storage import open_directory

BUFFER_SIZE = 10_000
SEQUENTIAL_RANGES = (1, 64, 256, 1024, 4096)
# ArrayRecord's own, no read-ahead, and what our reader takes.
SEQUENTIAL_OPTIONS = ("", "readahead_buffer_size:0", "readahead_buffer_size:1M,max_parallelism:1")
READ_THREADS = (1, 2, 3) if (os.cpu_count() or 1) < 8 else (1, 2, 4, 8)
# As narrow as the peers deliver; int32, the default, is raced beside it.
NARROW = {"token_dtype": "stored"}


def sequential_read(root: Path, records_per_call: int, options: str = "") -> Iterator[int]:
    """A plain read of the files in order, again and again; yields the tokens of each call."""
    manifest = read_manifest(open_directory(root))
    for shard in itertools.cycle(manifest.shards):
        path = str(root / shard.file)
        reader = ArrayRecordReader(path, options)
        for begin in range(0, shard.records, records_per_call):
            end = min(begin + records_per_call, shard.records)
            if records_per_call == 1:
                reader.read()
            else:
                reader.read(begin, end)
            yield (end - begin) * manifest.sequence_length
        reader.close()


def our_batches(root: Path, batch_size: int, **options: Any) -> Iterator[Any]:
    """Our host batches as NumPy arrays, epoch after epoch."""
    options = {"buffer_size": BUFFER_SIZE, "output": "numpy", "epochs": None} | options
    with Loader(root, batch_size=batch_size, process_index=0, process_count=1, **options) as loader:
        yield from loader


def batch_tokens(root: Path, batch_size: int, **options: Any) -> Iterator[int]:
    """The tokens of each of our batches."""
    return (batch["tokens"].size for batch in our_batches(root, batch_size, **options))


def contenders(arguments: argparse.Namespace) -> Contenders:
    """Returns, by name, (setting, function) of every setting."""
    root = arguments.data / "ours"
    found: Contenders = {
        "sequential read": [
            (
                f"{count} records a call, {options or 'default options'}",
                lambda count=count, options=options: sequential_read(root, count, options),
            )
            for options in SEQUENTIAL_OPTIONS
            for count in SEQUENTIAL_RANGES
        ]
    }
    orders = {f"ours {shuffle}": {"shuffle": shuffle} | NARROW for shuffle in SHUFFLES}
    orders["ours buffer int32"] = {"shuffle": "buffer"}
    for name, order in orders.items():
        found[name] = [
            (
                f"read_threads={threads}",
                lambda threads=threads, order=order: batch_tokens(
                    root, arguments.batch_size, read_threads=threads, **order
                ),
            )
            for threads in READ_THREADS
        ]
    return found


if __name__ == "__main__":
    serve(contenders)
