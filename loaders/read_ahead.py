"""One run of a source ahead of the caller: rows are read and made into batches, then delivered.

A run begins at a step and ends with `close`, or when nothing refers to it any more: its threads
know the source and the delivery, but not the run.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from shardstream.loaders.delivery import Delivery
from shardstream.loaders.fields import FieldName, make_fields, need_lengths
from shardstream.loaders.prefetch import Prefetcher
from shardstream.loaders.row_source import HostBatches, Padding, Reading, RowSource
from shardstream.loaders.shards.rows import Rows

_DEVICE_BATCHES = 2  # one being used, one on its way


class Waiting(NamedTuple):
    """A batch, or several in one array for each field, and the source's progress at it."""

    progress: Mapping[str, Any]
    batch: dict[str, Any]


class ReadAhead:
    """The batches of a source from a step on.

    Args:
        source: gives rows.
        delivery: says which rows, and delivers batches.
        fields: names of the arrays of a batch.
        step: the first one.
        progress: the source's progress at that step or before it.
        read_threads: threads that the source reads with.
        prefetch: batches made ahead of those delivered.
        stall_secs: a longer wait is logged with its cause.
    """

    def __init__(
        self,
        source: RowSource,
        delivery: Delivery,
        fields: Sequence[FieldName],
        *,
        step: int,
        progress: Mapping[str, Any],
        read_threads: int,
        prefetch: int,
        stall_secs: float,
    ) -> None:
        self._delivery = delivery
        self._made: deque[Waiting] = deque()
        self._placed: deque[Waiting] = deque()
        executor = ThreadPoolExecutor(read_threads, "shardstream-read")
        closing = threading.Event()
        reading = Reading(
            step=step,
            progress=progress,
            rows=delivery.rows,
            lengths=need_lengths(fields),
            executor=executor,
            closing=closing,
        )
        make = partial(make_batch, names=fields, padding=source.padding)
        self._prefetcher = Prefetcher(
            _made(source.batches(reading), make, delivery.prepare, prefetch),
            depth=prefetch,
            stall_secs=stall_secs,
            explain=partial(_explain, source),
        )
        # Also when close() is forgotten: nothing that the threads hold refers to this object.
        self._finalizer = weakref.finalize(self, _end, self._prefetcher, executor, closing)

    def next(self) -> Waiting | None:
        """Returns the next batch, delivered, with the progress at it; None at the end.

        Starts the transfer of the batch after it too, but waits for the first only.
        """
        while len(self._placed) < _DEVICE_BATCHES:
            if not self._made:
                if self._placed and not self._prefetcher.is_ready():
                    break
                try:
                    count, made = self._prefetcher.get()
                except StopIteration:
                    break
                self._made.extend(_split(made, count))
            progress, batch = self._made.popleft()
            self._placed.append(Waiting(progress, self._delivery.deliver(batch)))
        return self._placed.popleft() if self._placed else None

    def progress(self, count: int) -> Mapping[str, Any] | None:
        """Returns the progress `count` batches ahead, or the latest one known before that."""
        known = None
        for index, waiting in enumerate(chain(self._placed, self._made)):
            if index > count:
                break
            known = waiting.progress
        return known

    def close(self) -> None:
        """Ends the threads; what was read ahead is dropped."""
        self._finalizer()


def make_batch(rows: Rows, names: Sequence[FieldName], padding: Padding) -> dict[str, np.ndarray]:
    """Returns the arrays of a batch, by name."""
    return make_fields(
        names, rows.tokens, rows.lengths, pad_id=padding.pad_id, pad_side=padding.pad_side
    )


def _made(
    chunks: Iterator[HostBatches],
    make: Callable[[Rows], dict[str, np.ndarray]],
    prepare: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
    most: int,
) -> Generator[tuple[int, Waiting], None, None]:
    """Yields (number of steps, their batches in one array a field), at most `most` steps each."""
    for count, rows, progress in chunks:
        size = len(rows.tokens) // count
        for step in range(0, count, most):
            few = min(most, count - step)
            piece = rows.slice(step * size, (step + few) * size)
            yield few, Waiting(progress, prepare(make(piece)))


def _split(made: Waiting, count: int) -> Iterator[Waiting]:
    """Yields the batches of count steps that stand in one array each."""
    arrays = {name: array.reshape(count, -1, array.shape[1]) for name, array in made.batch.items()}
    for step in range(count):
        yield Waiting(made.progress, {name: array[step] for name, array in arrays.items()})


def _explain(source: RowSource) -> str:
    waiting = "; ".join(source.waiting_for())
    return waiting or "no read is under way; batches are being put together"


def _end(
    prefetcher: Prefetcher[Waiting], executor: ThreadPoolExecutor, closing: threading.Event
) -> None:
    closing.set()
    executor.shutdown(wait=False, cancel_futures=True)
    prefetcher.close()
    executor.shutdown(wait=True)
