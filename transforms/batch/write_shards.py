"""Brings a bucket's documents together, by the runner's shuffle or from files; writes its shard."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.pvalue import AsList, AsSingleton
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from shardstream.transforms.batch import worker
from shardstream.transforms.batch.build_shard import build_from_pieces, fetching
from shardstream.transforms.batch.spill import SpillFile, read_index
from shardstream.transforms.batch.worker_pool import naming_lost_workers, pool_of
from shardstream.transforms.memory import release_free_memory
from shardstream.transforms.plan import BuildPlan
from shardstream.transforms.shard_documents import BufferPool, FileRange
from shardstream.transforms.threads import shared_executor

# Threads that build shards: Python's lock, which ArrayRecord's writer holds, is the limit beyond.
_MOST_BUILDERS = 2


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
        plan, ready = self._plan, AsSingleton(self._ready)
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
                >> beam.ParDo(_BuildFromFiles(plan), ready, AsList(blocks))  # result
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
        self._pool = pool_of(self._plan)
        if self._pool is not None:
            self._most_running = 2 * self._plan.processes  # a worker finds the next one waiting
            return
        # One shard sorts and packs while another is hashed and flushed; more would cost memory.
        self._most_running = min(_MOST_BUILDERS, self._plan.threads)
        self._threads = shared_executor("build-shard", self._most_running)
        self._buffers = BufferPool()
        release_free_memory()

    def start_bundle(self) -> None:
        self._pending: list[Future[dict[str, Any]]] = []

    def begin(self, bucket: int, pieces: list[bytes | FileRange]) -> None:
        """Builds a shard when a thread or a process is free; waits until then."""
        running = [future for future in self._pending if not future.done()]
        if len(running) >= self._most_running:
            _result(running[0])
        self._pending.append(self._submit(bucket, pieces))

    def _submit(self, bucket: int, pieces: list[bytes | FileRange]) -> Future[dict[str, Any]]:
        if self._pool is not None:
            with naming_lost_workers():
                return self._pool.submit(worker.build, bucket, pieces)
        return self._threads.submit(build_from_pieces, bucket, pieces, self._plan, self._buffers)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        window = GlobalWindow()
        for future in self._pending:
            result = _result(future)
            shard = result["shard"]
            Metrics.counter("shardstream", "shards").inc()
            Metrics.counter("shardstream", "records").inc(shard["records"])
            Metrics.counter("shardstream", "tokens_written").inc(shard["tokens"])
            yield WindowedValue(result, window.max_timestamp(), (window,))


class _BuildFromBlocks(_BuildShards):
    """(bucket, [Arrow IPC bytes]) → shard."""

    def process(self, group: tuple[int, Iterable[bytes | None]], _ready: object) -> None:
        bucket, blocks = group
        pieces: list[bytes | FileRange] = [block for block in blocks if block is not None]
        self.begin(bucket, pieces)


class _BuildFromFiles(_BuildShards):
    """(bucket, None) → shard, from what all spill files hold of the bucket."""

    def start_bundle(self) -> None:
        super().start_bundle()
        self._index: tuple[list[SpillFile], np.ndarray] | None = None

    def process(self, item: tuple[int, None], _ready: object, files: list[tuple[str, int]]) -> None:
        bucket, _ = item
        if self._index is None:
            self._index = _read_indexes(self._plan, files)
        names, index = self._index
        self.begin(bucket, _pieces_of(bucket, names, index))


def _read_indexes(
    plan: BuildPlan, files: Iterable[tuple[str, int]]
) -> tuple[list[SpillFile], np.ndarray]:
    """Returns the files in the order of their names, and int64[files, buckets + 1], their indexes.

    A file is there once, although a bundle that was tried again has listed it twice.
    """
    ordered = sorted({SpillFile(*file) for file in files})
    executor = fetching(plan.directory)
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


def _result(future: Future[dict[str, Any]]) -> dict[str, Any]:
    with naming_lost_workers():
        return future.result()
