"""The iterator that trainers hold: position, state, prefetch, delivery, whatever the rows are."""

import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
from shardstream.loaders.delivery import Delivery
from shardstream.loaders.fields import make_fields, need_lengths, resolve_fields
from shardstream.loaders.options import BatchOptions, ReadOptions
from shardstream.loaders.prefetch import Prefetcher
from shardstream.loaders.shards.part import Part
from shardstream.loaders.shards.rows import Rows
from shardstream.loaders.state_files import read_state, write_state

STATE_VERSION = 1
_DEVICE_BATCHES = 2  # one being used, one on its way
_REPORTED_BAD_RECORDS = 32  # in a state, which has to stay small


class Batches:
    """An iterator of batches; Loader and Mixture say where rows come from.

    Guarantees: the position counts the batches the caller received; prefetch never shows in it.
    Not for use by several threads at once.
    """

    def __init__(
        self, parts: list[Part], read: ReadOptions, batch: BatchOptions, delivery: Delivery
    ):
        order = parts[0].options
        masked = not order.drop_remainder or read.on_bad_record == "skip"
        self._parts, self._read, self._delivery = parts, read, delivery
        self._fields = resolve_fields(batch.fields, masked=masked)
        self._lengths = need_lengths(self._fields)
        self._step = 0
        self._made: deque[dict[str, np.ndarray]] = deque()
        self._placed: deque[dict[str, Any]] = deque()
        self._prefetcher: Prefetcher | None = None
        self._finalizer: weakref.finalize | None = None
        self._closed = False

    # What a subclass provides.

    @property
    def num_steps(self) -> int | None:
        """Batches from the very first to the last, None where there is no end (known yet)."""
        raise NotImplementedError

    def _rows_from(
        self, step: int, executor: ThreadPoolExecutor, closing: threading.Event
    ) -> Iterator[tuple[int, Rows]]:
        """Yields (number of steps, their rows) from a step on, until the end or closing is set."""
        raise NotImplementedError

    def _rows_at(self, step: int) -> Rows:
        """Returns the rows of one step, read at once."""
        raise NotImplementedError

    def _identity(self) -> dict[str, Any]:
        raise NotImplementedError

    def _check_identity(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError

    # The iterator.

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the arrays of a batch."""
        return self._fields

    @property
    def step(self) -> int:
        """Batches received so far, over all epochs."""
        return self._step

    @property
    def rows(self) -> np.ndarray:
        """int64[B], the rows of the global batch that this process holds."""
        return self._delivery.rows.copy()

    def __len__(self) -> int:
        if self.num_steps is None:
            raise TypeError(
                "batches without a known end (epochs=None, or a stream that still grows) have no "
                "length"
            )
        return self.num_steps

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Any]:
        self._check_open()
        if self.num_steps is not None and self._step >= self.num_steps:
            self._stop()
            raise StopIteration
        prefetcher = self._running()
        while len(self._placed) < _DEVICE_BATCHES:
            if not self._made:
                if self._placed and not prefetcher.is_ready():
                    break
                try:
                    count, arrays = prefetcher.get()
                except StopIteration:
                    break
                self._made.extend(_split(arrays, count))
            self._placed.append(self._delivery.deliver(self._made.popleft()))
        if not self._placed:  # the end, where nobody knew it before
            self._stop()
            raise StopIteration
        self._step += 1
        return self._placed.popleft()

    def start_prefetch(self) -> None:
        """Starts reading before the first batch is asked for."""
        self._running()

    def batch_at(self, step: int) -> dict[str, Any]:
        """Returns the batch of any step, counted from 0 over all epochs; the position stays.

        Cost: one read of each record.
        """
        self._check_open()
        self._check_step(step)
        rows = self._rows_at(step)
        return self._delivery.deliver(self._delivery.prepare(self._make(rows)))

    def skip(self, count: int) -> None:
        """Passes over the next count batches, which are not read."""
        if count < 0:
            raise ValueError(f"count is {count}, expected 0 or more; set_state() goes back")
        self._check_open()
        end = self.num_steps
        self._move_to(self._step + count if end is None else min(self._step + count, end))

    # State.

    def get_state(self) -> dict[str, Any]:
        """Returns the position after the last batch received, as plain JSON values under 4 KB."""
        bad = self.bad_records()
        return {
            "version": STATE_VERSION,
            **self._identity(),
            "step": self._step,
            "num_bad_records": len(bad),
            "bad_records": [list(record) for record in bad[:_REPORTED_BAD_RECORDS]],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes to the position of a state, of any host of a run on any number of hosts.

        Raises:
            ValueError: the state is of another dataset, order or version.
        """
        self._check_open()
        if state.get("version") != STATE_VERSION:
            raise ValueError(
                f"the state has version {state.get('version')!r}, this code reads {STATE_VERSION}; "
                "load it with the shardstream version that saved it"
            )
        self._check_identity(state)
        step = state["step"]
        if not isinstance(step, int) or step < 0:
            raise ValueError(f"the state has step {step!r}, expected an integer of 0 or more")
        for part in self._parts:
            part.shards.bad.restore(state["bad_records"])
        self._move_to(step)

    # Orbax v1 finds these two by name (its StatefulCheckpointable); nothing of Orbax is needed
    # here.

    async def save(self, directory: Any) -> Awaitable[None]:
        """Takes the state now; the returned coroutine writes it (Orbax v1)."""
        return write_state(directory, self.get_state())

    async def load(self, directory: Any, abstract_checkpointable: object = None) -> Awaitable[None]:
        """Returns the coroutine that reads a saved state and goes to it (Orbax v1)."""
        del abstract_checkpointable

        async def restore() -> None:
            self.set_state(read_state(directory))

        return restore()

    def bad_records(self) -> list[tuple[str, int]]:
        """Returns (shard file, record) of every record met that can't be read, sorted."""
        return sorted(record for part in self._parts for record in part.shards.bad.met())

    # Life.

    def close(self) -> None:
        """Ends threads, closes files and gives memory back; may be called again."""
        self._stop()
        self._closed = True
        self._delivery.close()
        for part in self._parts:
            part.shards.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _move_to(self, step: int) -> None:
        if step != self._step:
            self._stop()
        self._step = step

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("this loader is closed; build a new one and set_state() to go on")

    def _check_step(self, step: int) -> None:
        end = self.num_steps
        if step < 0 or (end is not None and step >= end):
            raise IndexError(f"step is {step}, expected 0 to {(end or 0) - 1}")

    def _make(self, rows: Rows) -> dict[str, np.ndarray]:
        part = self._parts[0]
        return make_fields(
            self._fields,
            rows.tokens,
            rows.lengths,
            pad_id=part.pad_id,
            pad_side=part.pad_side,
        )

    def _running(self) -> Prefetcher:
        self._check_open()
        if self._prefetcher is None:
            executor = ThreadPoolExecutor(self._read.read_threads, "shardstream-read")
            closing = threading.Event()
            self._prefetcher = Prefetcher(
                _items(_Maker(self), self._rows_from(self._step, executor, closing)),
                depth=self._read.prefetch,
                stall_secs=self._read.stall_secs,
                explain=_Explain(self._parts),
            )
            # Also when the caller forgets close(): nothing the thread holds refers to this object.
            self._finalizer = weakref.finalize(self, _end, self._prefetcher, executor, closing)
        return self._prefetcher

    def _stop(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self._prefetcher = self._finalizer = None
        self._made.clear()
        self._placed.clear()


class _Maker:
    """What the thread needs of a Batches object, without the object."""

    def __init__(self, batches: Batches) -> None:
        part = batches._parts[0]
        self.fields, self.prepare = batches._fields, batches._delivery.prepare
        self.depth = batches._read.prefetch
        self.pad = {"pad_id": part.pad_id, "pad_side": part.pad_side}


def _items(
    maker: _Maker, chunks: Iterator[tuple[int, Rows]]
) -> Generator[tuple[int, dict[str, np.ndarray]], None, None]:
    for count, rows in chunks:
        size = len(rows.tokens) // count
        for step in range(0, count, maker.depth):
            few = min(maker.depth, count - step)
            part = rows.part(step * size, (step + few) * size)
            fields = make_fields(maker.fields, part.tokens, part.lengths, **maker.pad)
            yield few, maker.prepare(fields)


def _split(arrays: dict[str, np.ndarray], count: int) -> Iterator[dict[str, np.ndarray]]:
    """Yields the batches of count steps that stand in one array each."""
    parts = {name: array.reshape(count, -1, array.shape[1]) for name, array in arrays.items()}
    for step in range(count):
        yield {name: part[step] for name, part in parts.items()}


class _Explain:
    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts

    def __call__(self) -> str:
        waiting = [text for part in self._parts for text in part.waiting_for()]
        return "; ".join(waiting) or "no read is under way; batches are being put together"


def _end(prefetcher: Prefetcher, executor: ThreadPoolExecutor, closing: threading.Event) -> None:
    closing.set()
    executor.shutdown(wait=False, cancel_futures=True)
    prefetcher.close()
    executor.shutdown(wait=True)
