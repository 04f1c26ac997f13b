"""A split that is read while it is still being written: the reading side of `follow_order`."""

import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
from shardstream.loaders.options import OrderOptions, ReadOptions
from shardstream.loaders.order.epochs import chain
from shardstream.loaders.order.follow import FollowOrder
from shardstream.loaders.shards.follow_log import STATUSES, FollowedLog
from shardstream.loaders.shards.part import Part
from shardstream.loaders.shards.reader import ShardSet
from shardstream.loaders.shards.source import Chunk, Source
from shardstream.shard_format.manifest import read_manifest
from shardstream.shard_format.storage import open_directory

_GROWTH = 4  # of chunks, from one batch on, as long as the log is ahead
_AHEAD = 2  # chunks being read


class FollowedPart(Part):
    """A split of a stream that grows, or of any complete dataset, in the order of follow_order.

    Args:
        path: dataset directory; its dataset.json must be there.
        split: "train" or "validation".
        order: see OrderOptions.
        read: see ReadOptions.

    Raises:
        FileNotFoundError: no dataset there (yet).
        ValueError: it is a batch build under way, or has no such split.
    """

    order: FollowOrder

    def __init__(
        self, path: str | os.PathLike[str], split: str, order: OrderOptions, read: ReadOptions
    ) -> None:
        self.directory = open_directory(path)
        self.manifest = read_manifest(self.directory, allow=STATUSES)
        self.fingerprint = self.manifest.plan_fingerprint  # the content's is known at the end only
        self.split, self.options = split, order
        self.log = FollowedLog(self.directory, self.manifest, split, read.follow_timeout_secs)
        self.shards = ShardSet(self.directory, self.manifest, self.log.shards, read)
        self._key = chain(int(self.log.name[:16], 16), order.seed)
        self._lock = threading.Lock()
        self._take_in()

    @property
    def num_steps(self) -> int | None:
        """Batches from the first to the last; None as long as the stream grows."""
        return self._sure_steps if self.log.is_complete else None

    @property
    def steps_per_epoch(self) -> int:
        """Batches of the one pass.

        Raises:
            ValueError: the stream still grows.
        """
        if self.num_steps is None:
            raise ValueError(
                f"{self.directory}: the stream is still growing, so the number of its batches "
                f"isn't known yet; {self.log.describe()}"
            )
        return self._sure_steps

    def waiting_for(self) -> list[str]:
        """Returns what a stalled reader waits for."""
        reads = super().waiting_for()
        if reads or self.log.is_complete:
            return reads
        return [f"the loader is ahead of the stream: {self.log.describe()}"]

    def chunks(
        self,
        step: int,
        rows: np.ndarray,
        *,
        epochs: int | None,
        lengths: bool,
        executor: Executor,
        closing: threading.Event,
    ) -> Iterator[Chunk]:
        """Yields host batches from a step on, each as soon as the log makes it sure."""
        del epochs  # one
        pending: deque[tuple[Chunk, list[Future]]] = deque()
        count = 1
        while not closing.is_set():
            sure = self._sure_steps
            if step < sure and len(pending) <= _AHEAD:
                source = Source(
                    order=self.order,
                    shards=self.shards,
                    rows=rows,
                    epochs=1,
                    drop_remainder=self.options.drop_remainder,
                    lengths=lengths,
                    executor=executor,
                )
                count = min(count, source.chunk_steps, sure - step)
                pending.append(_start(source, step, count))
                step += count
                count *= _GROWTH
            elif pending:
                chunk, reads = pending.popleft()
                for read in reads:
                    read.result()
                yield chunk
            elif self.refresh():
                count = 1
            elif self.log.is_complete and step >= self._sure_steps:
                return
            else:
                self.log.wait(closing)

    def records_at(self, step: int, rows: np.ndarray) -> np.ndarray:
        """Returns int64[B], the records in those rows of a step.

        Raises:
            IndexError: the log doesn't hold them yet.
        """
        if step >= self._sure_steps:
            self.refresh()
        if step >= self._sure_steps:
            raise IndexError(
                f"step is {step}, expected 0 to {self._sure_steps - 1} so far; "
                f"{self.log.describe()}"
            )
        return self.order.records(0, step, step + 1, rows)[0]

    def identity(self, step: int) -> dict[str, Any]:
        """Returns what a state must agree in: the stream's beginning up to that step, and order."""
        num_shards = self.shards.num_shards_for(self.order.needed(step))
        return {
            **super().identity(step),
            "follow": True,
            "num_shards": num_shards,
            "shards_hash": self.log.hash_of(num_shards),
        }

    def check_identity(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError where a state belongs to another stream or order."""
        super().check_identity(state)
        num_shards, expected = state.get("num_shards", 0), state.get("shards_hash")
        self.refresh()
        if self.log.hash_of(num_shards) != expected:
            raise ValueError(
                f"{self.directory}: the state has seen {num_shards} shards of another stream or of "
                f"another run of it; {self.log.describe()}. Give the path of the directory that "
                "the run began with."
            )

    def refresh(self) -> bool:
        """Takes in what was committed since; says whether anything was."""
        with self._lock:
            found = self.log.refresh()
            if found:
                self._take_in()
        return found

    def _take_in(self) -> None:
        options, complete = self.options, self.log.is_complete
        self.shards.extend(self.log.shards[self.shards.num_shards :])
        self.order = FollowOrder(
            self.shards.num_records,
            options.batch_size,
            0 if options.shuffle == "none" else options.buffer_sequences,
            self._key,
            complete=complete,
        )
        self._sure_steps = self.order.num_steps(drop_remainder=options.drop_remainder)
        if complete and self._sure_steps == 0:
            raise ValueError(self._too_few())


def _start(source: Source, step: int, count: int) -> tuple[Chunk, list[Future]]:
    records = source.order.records(0, step, step + count, source.rows).ravel()
    rows = source.shards.make_rows(len(records), lengths=source.lengths)
    return Chunk(0, step, count, rows), source.submit(records, rows, np.arange(len(records)))
