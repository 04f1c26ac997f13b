"""What runs in a worker process: a partition is spilled, a bucket's shard is built.

Beam-free and imported by the server that workers are forked from. A worker serves one plan; it
reads first and builds later, so what reading needed is given back when the first shard comes.
"""

from typing import Any

from shardstream.sources.partitions import Partition
from shardstream.transforms.batch.build_shard import build_from_pieces
from shardstream.transforms.batch.spill import spill_once
from shardstream.transforms.memory import release_free_memory
from shardstream.transforms.plan import BuildPlan
from shardstream.transforms.read_partition import PartitionReader
from shardstream.transforms.shard_documents import BufferPool, FileRange


class _Worker:
    """The state of this process."""

    plan: BuildPlan
    reader: PartitionReader | None = None
    buffers: BufferPool | None = None


def begin(plan: BuildPlan) -> None:
    """Says which plan this process works for."""
    _Worker.plan = plan


def get_ready() -> None:
    """Opens the tokenizer."""
    _reader()


def spill(partition: Partition) -> dict[str, Any]:
    """Spills a partition; returns its marker's content, see `spill.spill_once`."""
    return spill_once(_reader(), partition, num_readers=1)


def build(bucket: int, pieces: list[bytes | FileRange]) -> dict[str, Any]:
    """Builds a bucket's shard; returns its entry and report, see `build_shard.build_shard`."""
    if _Worker.buffers is None:
        _Worker.reader = None
        release_free_memory()
        _Worker.buffers = BufferPool()
    return build_from_pieces(bucket, pieces, _Worker.plan, _Worker.buffers)


def _reader() -> PartitionReader:
    if _Worker.reader is None:
        _Worker.reader = PartitionReader(_Worker.plan)
    return _Worker.reader
