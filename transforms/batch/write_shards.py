"""Brings a bucket's documents together, by the runner's shuffle or from files; writes its shard."""

import contextlib
import ctypes
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue
from shardstream.shard_format.storage import Directory
from shardstream.tokens.tokenizer import release_memory
from shardstream.transforms.batch.build_shard import build_shard
from shardstream.transforms.batch.spill import SpillFile, read_index
from shardstream.transforms.plan import BuildPlan
from shardstream.transforms.shard_documents import BufferPool, FileRange, reading
from shardstream.transforms.threads import shared_executor

_FETCHES_AT_ONCE = 16  # of a store's answers, each some 30 ms away


class WriteShards(beam.PTransform):
    """Writes every shard of the plan, empty buckets included.

    Input: PCollection[(bucket, Arrow IPC bytes)]; of a plan that shuffles via files, the fields of
    every SpillFile, any of which may hold documents of any bucket.
    Output: PCollection[dict], one a shard, see transforms.batch.build_shard.build_shard.
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

    def expand(self, blocks: beam.PCollection[Any]) -> beam.PCollection[dict[str, Any]]:
        """Wires the grouping and the writing."""
        plan, ready = self._plan, beam.pvalue.AsSingleton(self._ready)
        buckets = (
            blocks.pipeline
            | "Once" >> beam.Impulse()  # bytes, one
            | "ListBuckets"
            >> beam.FlatMap(_empty_blocks, num_buckets=plan.num_buckets)  # (bucket, None)
        )
        if plan.shuffle_via == "files":
            return (
                buckets
                | "SpreadBuckets" >> beam.Reshuffle()
                | "BuildShards"
                >> beam.ParDo(_BuildFromFiles(plan), ready, beam.pvalue.AsList(blocks))  # result
            )
        return (
            (blocks, buckets)
            | "AddEveryBucket" >> beam.Flatten()  # (bucket, block)
            | "GroupByBucket" >> beam.GroupByKey()  # (bucket, [block])
            | "BuildShards" >> beam.ParDo(_BuildFromBlocks(plan), ready)  # result
        )


def _empty_blocks(_: bytes, *, num_buckets: int) -> Iterator[tuple[int, None]]:
    return ((bucket, None) for bucket in range(num_buckets))


class _BuildShards(beam.DoFn):
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

    def begin(self, bucket: int, pieces: Callable[[], list[bytes | FileRange]]) -> None:
        """Builds a shard when a thread is free; waits until then."""
        running = [future for future in self._pending if not future.done()]
        if len(running) >= self._num_threads:
            running[0].result()
        self._pending.append(self._executor.submit(self._build, bucket, pieces))

    def _build(self, bucket: int, pieces: Callable[[], list[bytes | FileRange]]) -> dict[str, Any]:
        directory = self._plan.directory
        found = pieces()
        documents = reading(found, directory, self._buffers, _fetching(directory))
        result = build_shard(bucket, documents, self._plan, directory)
        for piece in found:
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


class _BuildFromBlocks(_BuildShards):
    """(bucket, [Arrow IPC bytes]) → shard."""

    def process(self, group: tuple[int, Iterable[bytes | None]], _ready: Any) -> None:
        bucket, blocks = group
        pieces = [block for block in blocks if block is not None]
        self.begin(bucket, lambda: pieces)


class _BuildFromFiles(_BuildShards):
    """(bucket, None) → shard, from what all spill files hold of the bucket."""

    def start_bundle(self) -> None:
        super().start_bundle()
        self._index: tuple[list[SpillFile], np.ndarray] | None = None

    def process(self, item: tuple[int, None], _ready: Any, files: list[tuple[str, int]]) -> None:
        bucket, _ = item
        if self._index is None:
            self._index = _read_indexes(self._plan, files)
        names, index = self._index
        self.begin(bucket, lambda: _pieces_of(bucket, names, index))


def _read_indexes(
    plan: BuildPlan, files: Iterable[tuple[str, int]]
) -> tuple[list[SpillFile], np.ndarray]:
    """Returns the files in the order of their names, and int64[files, buckets + 1], their indexes.

    A file is there once, although a bundle that was tried again has listed it twice.
    """
    ordered = sorted({SpillFile(*file) for file in files})
    executor = _fetching(plan.directory)
    indexes = (map if executor is None else executor.map)(
        lambda file: read_index(plan.directory, file, plan.num_buckets), ordered
    )
    return ordered, np.array(list(indexes), np.int64).reshape(len(ordered), plan.num_buckets + 1)


def _pieces_of(bucket: int, files: list[SpillFile], index: np.ndarray) -> list[bytes | FileRange]:
    ends = index[:, bucket : bucket + 2].tolist()
    return [
        FileRange(file.name, begin, end)
        for file, (begin, end) in zip(files, ends, strict=True)
        if begin < end
    ]


def _fetching(directory: Directory) -> Executor | None:
    """Returns what reads pieces side by side where they wait on a store, None on a local disk."""
    if directory.local_path("") is not None:
        return None
    return shared_executor("fetch-spill", _FETCHES_AT_ONCE)


def _release_free_memory() -> None:
    """Gives back what reading and tokenizing needed: shards ask for other sizes, beside it.

    Without it the peak grew with the length of the first stage: 1.09 GB at 129 M tokens, 1.23 at
    1,288 M.
    """
    release_memory()
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
