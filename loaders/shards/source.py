"""Rows of consecutive batches from any order: what `direct_rows` and `buffer_rows` have in common.

A stream is a generator of chunks; a chunk is a few consecutive host batches in one array, so that
the cost of a NumPy call is shared between them. Streams go on through epochs and end with the last.
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
class Source:
    """Everything a stream needs.

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
        parts = self.shards.by_shard(records)
        tasks = []
        if not self.shards.is_local:
            for part in parts:
                self.shards.expect_part(records[part])
        for group in _groups(parts, _TASK_RECORDS):
            tasks.append(self.executor.submit(self._read_parts, group, records, into, rows))
        return tasks

    def _read_parts(
        self, parts: list[np.ndarray], records: np.ndarray, into: Rows, rows: np.ndarray
    ) -> None:
        for part in parts:
            self.shards.read_part(records[part], into, rows[part])


def _groups(parts: list[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """Yields runs of parts of about size records together, large parts cut."""
    group, held = [], 0
    for part in parts:
        for begin in range(0, len(part), size):
            group.append(part[begin : begin + size])
            held += len(group[-1])
            if held >= size:
                yield group
                group, held = [], 0
    if group:
        yield group
