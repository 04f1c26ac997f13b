"""Groups documents by bucket and writes one shard a group."""

import contextlib
import ctypes
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from tokens.tokenizer import release_memory
from transforms.build_shard import build_shard
from transforms.plan import BuildPlan
from transforms.shard_documents import BufferPool, reading
from transforms.spill import SpillReference
from transforms.threads import shared_executor

_FETCHES_AT_ONCE = 16  # of a store's answers, each some 30 ms away


class WriteShards(beam.PTransform):
    """Writes every shard of the plan, empty buckets included.

    Input: PCollection[(bucket, block)], a block being Arrow IPC bytes or the
        fields of a SpillReference.
    Output: PCollection[dict], one a shard, see transforms.build_shard.build_shard.
    Guarantees: idempotent, so retried and racing bundles leave one shard of fixed bytes; a result
    comes out only after its shard is published. Memory: up to four times a shard, per thread.
    Counters: shards, records, tokens_written.

    Args:
        plan: of the build.
        ready: PCollection of one element that must exist before the first shard is written.
    """

    def __init__(self, plan: BuildPlan, ready: beam.PCollection[Any]) -> None:
        super().__init__()
        self._plan = plan
        self._ready = ready

    def expand(self, blocks: beam.PCollection[tuple[int, Any]]) -> beam.PCollection[dict[str, Any]]:
        """Wires the grouping and the writing."""
        every_bucket = (
            blocks.pipeline
            | "Once" >> beam.Impulse()  # bytes, one
            | "ListBuckets"
            >> beam.FlatMap(_empty_blocks, num_buckets=self._plan.num_buckets)  # (bucket, None)
        )
        return (
            (blocks, every_bucket)
            | "AddEveryBucket" >> beam.Flatten()  # (bucket, block)
            | "GroupByBucket" >> beam.GroupByKey()  # (bucket, [block])
            | "BuildShards"
            >> beam.ParDo(_BuildShard(self._plan), beam.pvalue.AsSingleton(self._ready))  # result
        )


def _empty_blocks(_: bytes, *, num_buckets: int) -> Iterator[tuple[int, None]]:
    return ((bucket, None) for bucket in range(num_buckets))


class _BuildShard(beam.DoFn):
    """Builds shards on a few threads; results leave in finish_bundle, all being published."""

    def __init__(self, plan: BuildPlan) -> None:
        self._plan = plan

    def setup(self) -> None:
        # One shard sorts and packs while another is hashed and flushed; more would cost memory.
        self._num_threads = min(2, self._plan.threads)
        self._executor = shared_executor("build-shard", self._num_threads)
        self._buffers = BufferPool()
        _release_free_memory()

    def start_bundle(self) -> None:
        self._pending: list[Future[dict[str, Any]]] = []

    def process(self, group: tuple[int, Iterable[Any]], _ready: Any) -> None:
        bucket, blocks = group
        blocks = [block for block in blocks if block is not None]
        running = [future for future in self._pending if not future.done()]
        if len(running) >= self._num_threads:
            running[0].result()
        self._pending.append(self._executor.submit(self._build, bucket, blocks))

    def _build(self, bucket: int, blocks: list[bytes | tuple[str, int, int]]) -> dict[str, Any]:
        directory = self._plan.directory
        pieces = [b if isinstance(b, bytes) else SpillReference(*b) for b in blocks]
        is_local = directory.local_path("") is not None
        fetching = None if is_local else shared_executor("fetch-spill", _FETCHES_AT_ONCE)
        documents = reading(pieces, directory, self._buffers, fetching)
        result = build_shard(bucket, documents, self._plan, directory)
        for piece in pieces:
            if not isinstance(piece, bytes):
                directory.release_range(*piece)
        return result

    def finish_bundle(self) -> Iterator[WindowedValue]:
        window = GlobalWindow()
        for future in self._pending:
            result = future.result()
            shard = result["shard"]
            Metrics.counter("shardstream", "shards").inc()
            Metrics.counter("shardstream", "records").inc(shard["records"])
            Metrics.counter("shardstream", "tokens_written").inc(shard["tokens"])
            yield WindowedValue(result, window.max_timestamp(), [window])


def _release_free_memory() -> None:
    """Gives back what reading and tokenizing needed: shards ask for other sizes, beside it.

    Without it the peak grew with the length of the first stage: 1.09 GB at 129 M tokens, 1.23 at
    1,288 M.
    """
    release_memory()
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
