"""Rows of consecutive batches from any order: what `direct_rows` and `buffer_rows` have in common.

Both are generators of chunks. A chunk is a few consecutive host batches in one array, so that the
cost of a NumPy call is shared between them. They go on through epochs and end with the last.
"""

import dataclasses
from collections.abc import Iterator
from concurrent.futures import Executor, Future

import numpy as np

from shardstream.loaders.order.epochs import Order, num_steps
from shardstream.loaders.shards.reader import ShardSet
from shardstream.loaders.shards.rows import Rows

_CHUNK_BYTES = 2**24
_TASK_RECORDS = 1024  # of a thread's task; what it costs to start one is shared between them


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Consecutive host batches: step `step + i` is rows [i * B, (i + 1) * B)."""

    epoch: int
    step: int
    num_steps: int
    rows: Rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadPlan:
    """What to read, in which order, for which rows.

    Attributes:
        order: of the split.
        shards: of the split.
        rows: int64[B], sorted: this host's rows of each global batch.
        epochs: None for no end.
        drop_remainder: leave out the last, partial batch.
        lengths: read document lengths too.
        executor: for reads.
    """

    order: Order
    shards: ShardSet
    rows: np.ndarray
    epochs: int | None
    drop_remainder: bool
    lengths: bool
    executor: Executor

    @property
    def steps_per_epoch(self) -> int:
        """Global batches in an epoch."""
        return num_steps(self.order, drop_remainder=self.drop_remainder)

    @property
    def chunk_steps(self) -> int:
        """Most batches that a chunk holds, by bytes too."""
        batch_bytes = len(self.rows) * self.shards.layout.record_bytes
        return max(1, _CHUNK_BYTES // batch_bytes)

    def epochs_from(self, epoch: int) -> Iterator[int]:
        """Yields epoch and those that follow."""
        while self.epochs is None or epoch < self.epochs:
            yield epoch
            epoch += 1

    def submit(self, records: np.ndarray, into: Rows, rows: np.ndarray) -> list[Future]:
        """Starts reading any records into rows, a task for a few shards each."""
        by_shard = self.shards.by_shard(records)
        tasks = []
        if not self.shards.is_local:
            for places in by_shard:
                self.shards.expect_records(records[places])
        for group in _groups(by_shard, _TASK_RECORDS):
            tasks.append(self.executor.submit(self._read_group, group, records, into, rows))
        return tasks

    def _read_group(
        self, group: list[np.ndarray], records: np.ndarray, into: Rows, rows: np.ndarray
    ) -> None:
        for places in group:
            self.shards.read_of_one_shard(records[places], into, rows[places])


def _groups(by_shard: list[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """Yields runs of index arrays of about size records together, large ones cut."""
    group, held = [], 0
    for places in by_shard:
        for begin in range(0, len(places), size):
            group.append(places[begin : begin + size])
            held += len(group[-1])
            if held >= size:
                yield group
                group, held = [], 0
    if group:
        yield group
