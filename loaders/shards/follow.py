"""A split that is read while it is still being written: the reading side of `order.follow`."""

import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np

from shardstream.loaders.options import OrderOptions, ReadOptions
from shardstream.loaders.order.follow import FollowOrder
from shardstream.loaders.row_source import NO_PROGRESS, HostBatches, Padding, Reading
from shardstream.loaders.shards.bad_records import BadRecords
from shardstream.loaders.shards.follow_log import STATUSES, FollowedLog
from shardstream.loaders.shards.read_plan import Chunk, ReadPlan
from shardstream.loaders.shards.reader import ShardSet
from shardstream.loaders.shards.rows import Rows
from shardstream.loaders.shards.split import OpenSplit
from shardstream.shard_format.keys import chain
from shardstream.shard_format.manifest import read_manifest
from shardstream.shard_format.storage import open_directory

_GROWTH = 4  # of chunks, from one batch on, as long as the log is ahead
_AHEAD = 2  # chunks being read


class FollowedSource:
    """The rows of a stream that grows, or of any complete dataset, in the order of order.follow.

    Args:
        path: dataset directory; its dataset.json must be there.
        split: "train" or "validation".
        order: see OrderOptions.
        read: see ReadOptions.

    Attributes:
        sure_steps: batches that can be given now; no later commit changes them.

    Raises:
        FileNotFoundError: no dataset there (yet).
        ValueError: it is a batch build under way, or has no such split.
    """

    def __init__(
        self, path: str | os.PathLike[str], split: str, order: OrderOptions, read: ReadOptions
    ) -> None:
        directory = open_directory(path)
        manifest = read_manifest(directory, allow=STATUSES)
        self._log = FollowedLog(directory, manifest, split, read.follow_timeout_secs)
        self.split = OpenSplit(
            directory=directory,
            manifest=manifest,
            name=split,
            fingerprint=manifest.plan_fingerprint,  # the content's is known at the end only
            options=order,
            shards=ShardSet(directory, manifest, self._log.shards, read),
        )
        self._key = chain(int(self._log.name[:16], 16), order.seed)
        self._lock = threading.Lock()
        self._take_in()

    @property
    def padding(self) -> Padding:
        """See RowSource."""
        return self.split.padding

    @property
    def has_empty_rows(self) -> bool:
        """See RowSource."""
        return self.split.has_empty_rows

    @property
    def num_steps(self) -> int | None:
        """Batches from the first to the last; None as long as the stream grows."""
        return self.sure_steps if self._log.is_complete else None

    @property
    def steps_per_epoch(self) -> int:
        """Batches of the one pass.

        Raises:
            ValueError: the stream still grows.
        """
        if self.num_steps is None:
            raise ValueError(
                f"{self.split.directory}: the stream is still growing, so the number of its "
                f"batches isn't known yet; {self._log.describe()}"
            )
        return self.sure_steps

    @property
    def bad(self) -> tuple[BadRecords, ...]:
        """See RowSource."""
        return (self.split.shards.bad,)

    def epoch_of(self, step: int) -> int:
        """Returns 0: a stream is followed once."""
        return 0

    def buffer_bytes(self, rows: np.ndarray, *, lengths: bool) -> int:
        """Returns 0: records wait for their turn on disk."""
        return 0

    def waiting_for(self) -> list[str]:
        """See RowSource."""
        reads = self.split.waiting_for()
        if reads or self._log.is_complete:
            return reads
        return [f"the loader is ahead of the stream: {self._log.describe()}"]

    def batches(self, reading: Reading) -> Iterator[HostBatches]:
        """Yields the host's rows from a step on, each as soon as the log makes it sure."""
        step, count = reading.step, 1
        pending: deque[tuple[Chunk, list[Future]]] = deque()
        while not reading.closing.is_set():
            sure = self.sure_steps
            if step < sure and len(pending) <= _AHEAD:
                plan = self._plan(reading)
                count = min(count, plan.chunk_steps, sure - step)
                pending.append(_start(plan, step, count))
                step += count
                count *= _GROWTH
            elif pending:
                chunk, reads = pending.popleft()
                for read in reads:
                    read.result()
                yield HostBatches(chunk.num_steps, chunk.rows)
            elif self.refresh():
                count = 1
            elif self._log.is_complete and step >= self.sure_steps:
                return
            else:
                self._log.wait(reading.closing)

    def _plan(self, reading: Reading) -> ReadPlan:
        return ReadPlan(
            order=self.order,
            shards=self.split.shards,
            rows=reading.rows,
            epochs=1,
            drop_remainder=self.split.options.drop_remainder,
            lengths=reading.lengths,
            executor=reading.executor,
        )

    def records_at(self, step: int, rows: np.ndarray) -> np.ndarray:
        """Returns int64[B], the records in those rows of a step.

        Raises:
            IndexError: the log doesn't hold them yet.
        """
        if step >= self.sure_steps:
            self.refresh()
        if step >= self.sure_steps:
            raise IndexError(
                f"step is {step}, expected 0 to {self.sure_steps - 1} so far; "
                f"{self._log.describe()}"
            )
        return self.order.records(0, step, step + 1, rows)[0]

    def rows_at(self, step: int, rows: np.ndarray, *, lengths: bool) -> Rows:
        """See RandomAccess."""
        return self.split.read(self.records_at(step, rows), lengths=lengths)

    def identity(self, step: int) -> dict[str, Any]:
        """See RowSource: the order, and the stream's beginning up to that step."""
        num_shards = self.split.shards.num_shards_for(self.order.needed(step))
        return {
            **self.split.identity(),
            "follow": True,
            "num_shards": num_shards,
            "shards_hash": self._log.hash_of(num_shards),
        }

    def check_identity(self, state: Mapping[str, Any]) -> None:
        """See RowSource."""
        self.split.check_identity(state)
        num_shards, expected = state.get("num_shards", 0), state.get("shards_hash")
        self.refresh()
        if self._log.hash_of(num_shards) != expected:
            raise ValueError(
                f"{self.split.directory}: the state has seen {num_shards} shards of another stream "
                f"or of another run of it; {self._log.describe()}. Give the path of the directory "
                "that the run began with."
            )

    def progress_in(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """See RowSource; the step says everything."""
        return NO_PROGRESS

    def refresh(self) -> bool:
        """Takes in what was committed since; says whether anything was."""
        with self._lock:
            found = self._log.refresh()
            if found:
                self._take_in()
        return found

    def close(self) -> None:
        """See RowSource."""
        self.split.shards.close()

    def _take_in(self) -> None:
        options, shards = self.split.options, self.split.shards
        complete = self._log.is_complete
        shards.extend(self._log.shards[shards.num_shards :])
        self.order = FollowOrder(
            shards.num_records,
            options.batch_size,
            0 if options.shuffle == "none" else options.buffer_sequences,
            self._key,
            complete=complete,
        )
        self.sure_steps = self.order.num_steps(drop_remainder=options.drop_remainder)
        if complete:
            self.split.check_steps(self.sure_steps)


def _start(plan: ReadPlan, step: int, count: int) -> tuple[Chunk, list[Future]]:
    records = plan.order.records(0, step, step + count, plan.rows).ravel()
    rows = plan.shards.make_rows(len(records), lengths=plan.lengths)
    return Chunk(0, step, count, rows), plan.submit(records, rows, np.arange(len(records)))
