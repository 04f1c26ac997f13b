"""Blocks wait for their shard in temporary files; the runner's shuffle carries names alone.

This is for runners that would keep all data of a GroupByKey in memory, several times over. A spill
file holds the record batches of each bucket together, and says at its end where they are:

    Arrow IPC messages of bucket 0 │ of bucket 1 │ … │ index int64[buckets + 1]

Bucket b is bytes index[b] to index[b + 1] - 1. The file is written whole, under a name that says
which blocks of which partition it holds. A partition's marker, written last, lists its files with
the counts; a rerun that finds the marker passes the partition over, which is how a killed job goes
on. To build a shard, a worker looks into the index of every file: a pair of file and shard costs
eight bytes of index, and the bucket's piece of a file is one ranged read, on a disk or a store. A
local disk takes back the ranges of a finished shard, so that the room of spilled documents goes
over to the shards, together with the pages of memory in which both are cached.
"""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from shardstream.shard_format.storage import Directory
from shardstream.sources.partitions import Partition
from shardstream.sources.read import DeadLetter
from shardstream.transforms.batch.spill_limit import SpillLimit, process_limit
from shardstream.transforms.plan import BuildPlan
from shardstream.transforms.read_partition import PartitionReader
from shardstream.transforms.scatter import scatter_block
from shardstream.transforms.token_blocks import SCHEMA, TokenBlock

SPILL = "spill"  # folder of the files
SPILLED = "spilled"  # folder of the markers
_NOTHING = pa.RecordBatch.from_pylist([], SCHEMA)


class SpillFile(NamedTuple):
    """A spill file and its size; travels as a plain tuple."""

    name: str
    num_bytes: int


def spill_once(reader: PartitionReader, partition: Partition, num_readers: int) -> dict[str, Any]:
    """Spills a partition, unless an earlier attempt did; returns its marker's content.

    Args:
        reader: of the plan.
        partition: to read.
        num_readers: how many partitions this process reads at once.
    """
    plan = reader.plan
    directory = plan.directory
    marker = plan.work_name(SPILLED, f"{partition.name}.json")
    done = read_marker(directory, marker)
    if done is None:
        blocks = reader.token_blocks(partition, num_readers=num_readers)
        limit = process_limit(num_readers)
        done = spill_partition(blocks, partition.name, plan, directory, limit)
        directory.write(marker, json.dumps(done).encode())
    return done


def spill_partition(
    blocks: Iterable[TokenBlock],
    partition_name: str,
    plan: BuildPlan,
    directory: Directory,
    limit: SpillLimit,
) -> dict[str, Any]:
    """Writes a partition's spill files; returns its marker's content.

    Args:
        blocks: of the partition.
        partition_name: of it.
        plan: of the build.
        directory: of the dataset.
        limit: says, block by block, how much may wait before it is written.
    """
    counts: Counter[str] = Counter()
    dead_letters: list[DeadLetter] = []
    files: dict[str, int] = {}
    waiting: dict[int, list[pa.RecordBatch]] = {}
    waiting_bytes = first = end = 0

    def flush() -> None:
        nonlocal waiting_bytes, first
        if waiting:
            limit.note_spill(waiting_bytes)
            # Attempts may spill after different blocks; of the same ones they write the same.
            name = plan.work_name(SPILL, f"{partition_name}-{first:05d}-{end:05d}.arrow")
            files[name] = write_spill(directory, name, waiting, plan.num_buckets)
        waiting.clear()
        waiting_bytes, first = 0, end

    for block in blocks:
        end += 1
        counts.update(block.counts)
        dead_letters += block.dead_letters
        # Scattered while the block is still in the processor's cache: a sort of the whole spill
        # would move the same bytes through fresh memory once more.
        for bucket, piece in scatter_block(block.batch, plan):
            waiting.setdefault(bucket, []).append(piece)
        waiting_bytes += block.batch.nbytes
        if waiting_bytes >= limit.spill_bytes():
            flush()
    flush()
    return {
        "counts": dict(counts),
        "dead_letters": [letter.as_dict() for letter in dead_letters],
        "files": files,
    }


def write_spill(
    directory: Directory, name: str, pieces: dict[int, list[pa.RecordBatch]], num_buckets: int
) -> int:
    """Publishes one spill file; returns its bytes."""
    index = np.zeros(num_buckets + 1, "<i8")
    with directory.publishing(name, durable=False) as private:
        with pa.OSFile(str(private), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
            writer.write_batch(_NOTHING)  # the schema goes before it
            for bucket in range(num_buckets):
                index[bucket] = sink.tell()
                if bucket in pieces:
                    # One message, whatever the number of blocks: with one for each block, a shard
                    # of a large job would be made of thousands.
                    writer.write_batch(pa.concat_batches(pieces[bucket]))
            index[num_buckets] = sink.tell()
        with private.open("ab") as file:
            file.write(index.tobytes())
        return private.stat().st_size


def read_index(directory: Directory, file: SpillFile, num_buckets: int) -> np.ndarray:
    """Returns int64[num_buckets + 1], where each bucket's bytes begin, and the last one's end."""
    index = np.empty(num_buckets + 1, "<i8")
    into = index.view(np.uint8)
    directory.read_into(file.name, file.num_bytes - len(into), into)
    return index


def read_marker(directory: Directory, name: str) -> dict[str, Any] | None:
    """Returns a marker's content, None where the partition isn't done or its files aren't whole."""
    content = directory.find(name)
    if content is None:
        return None
    marker = json.loads(content)
    whole = all(directory.size(file) == size for file, size in marker["files"].items())
    return marker if whole else None
