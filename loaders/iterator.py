"""The iterator that trainers hold: position, state, prefetch and delivery of any source's rows."""

import os
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Generic, Self, TypeVar, cast

import numpy as np

from shardstream.loaders.delivery import Delivery
from shardstream.loaders.fields import Batch, FieldName, need_lengths, resolve_fields
from shardstream.loaders.integers import whole
from shardstream.loaders.read_ahead import ReadAhead, make_batch
from shardstream.loaders.row_source import RandomAccess, RowSource
from shardstream.loaders.state_files import StateDirectory, read_state, write_state

STATE_VERSION = 1
_REPORTED_BAD_RECORDS = 32  # in a state, which has to stay small

SourceT = TypeVar("SourceT", bound=RowSource, covariant=True)


class BatchIterator(Generic[SourceT]):
    """Iterates over the batches of a source.

    Args:
        source: gives this host's rows.
        delivery: says which rows those are, and puts batches where the trainer wants them.
        fields: names of loaders.fields.FIELDS, or the name of a set.
        read_threads: threads that the source reads with.
        prefetch: batches made ready ahead of the caller.
        stall_secs: a wait for data longer than this is logged with its cause.

    Guarantees: the position counts the batches the caller received; prefetch never shows in it.
    Not for use by several threads at once.
    """

    def __init__(
        self,
        source: SourceT,
        delivery: Delivery,
        *,
        fields: Sequence[FieldName] | str = ("tokens",),
        read_threads: int = 2,
        prefetch: int = 16,
        stall_secs: float = 5.0,
    ) -> None:
        self._source, self._delivery = source, delivery
        self._fields = resolve_fields(fields, masked=source.has_empty_rows)
        self._lengths = need_lengths(self._fields)
        self._read_threads, self._prefetch, self._stall_secs = read_threads, prefetch, stall_secs
        self._step = 0
        self._progress = source.progress_in({})
        self._ahead: ReadAhead | None = None
        self._closed = False

    @property
    def source(self) -> SourceT:
        """Where rows come from."""
        return self._source

    @property
    def num_steps(self) -> int | None:
        """Batches from the very first to the last, None where there is no end (known yet)."""
        return self._source.num_steps

    @property
    def fields(self) -> tuple[FieldName, ...]:
        """Names of the arrays of a batch."""
        return self._fields

    @property
    def step(self) -> int:
        """Batches received so far, over all epochs."""
        return self._step

    @property
    def progress(self) -> Mapping[str, Any]:
        """What a state holds of the source besides its identity and the step."""
        return self._progress_ahead(0)

    @property
    def rows(self) -> np.ndarray:
        """int64[B], the rows of the global batch that this process holds."""
        return self._delivery.rows.copy()

    @property
    def needs_lengths(self) -> bool:
        """Whether the fields follow from document lengths besides tokens."""
        return self._lengths

    def describe_position(self) -> str:
        """Returns the position for people, as `repr` shows it."""
        end = "" if self.num_steps is None else f" of {self.num_steps}"
        return f"step {self._step}{end}{', closed' if self._closed else ''}"

    def __len__(self) -> int:
        if self.num_steps is None:
            raise TypeError(
                "batches without a known end (epochs=None, or a stream that still grows) have no "
                "length"
            )
        return self.num_steps

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        self._check_open()
        end = self.num_steps
        if end is not None and self._step >= end:
            self._stop()
            raise StopIteration
        found = self._running().next()
        if found is None:  # the end of a source that did not know it before
            self._stop()
            end = self.num_steps
            self._step = self._step if end is None else min(self._step, end)
            raise StopIteration
        self._step += 1
        self._progress, batch = found
        return cast(Batch, batch)

    def start_prefetch(self) -> None:
        """Starts reading before the first batch is asked for."""
        self._running()

    def batch_at(self, step: int) -> Batch:
        """Returns the batch of any step, counted from 0 over all epochs; the position stays.

        Cost: one read of each record.

        Raises:
            IndexError: there is no such step.
            NotImplementedError: the source has no random access, as a stream of the Hub hasn't.
        """
        self._check_open()
        source: object = self._source
        if not isinstance(source, RandomAccess):
            raise NotImplementedError(
                f"batch_at({step}): a {type(source).__name__} finds a step only by reading what "
                "comes before it. set_state() goes back to a state and skip() goes on; a dataset "
                "directory (pipelines.preprocess) has random access."
            )
        step = self.checked_step(step)
        rows = source.rows_at(step, self._delivery.rows, lengths=self._lengths)
        made = make_batch(rows, self._fields, self._source.padding)
        return cast(Batch, self._delivery.deliver(self._delivery.prepare(made)))

    def checked_step(self, step: int) -> int:
        """Returns a step as an int.

        Raises:
            IndexError: there is no such step.
        """
        step, end = whole("step", step), self.num_steps
        if step < 0 or (end is not None and step >= end):
            last = "or more" if end is None else f"to {end - 1}"
            raise IndexError(f"step is {step}, expected 0 {last}")
        return step

    def skip(self, count: int) -> None:
        """Passes over the next count batches."""
        count = whole("count", count)
        if count < 0:
            raise ValueError(f"count is {count}, expected 0 or more; set_state() goes back")
        self._check_open()
        end = self.num_steps
        step = self._step + count if end is None else min(self._step + count, end)
        self._move_to(step, self._progress_ahead(count))

    # State.

    def get_state(self) -> dict[str, Any]:
        """Returns the position after the last batch received, as plain JSON values under 4 KB."""
        bad = self.bad_records()
        return {
            "version": STATE_VERSION,
            **self._source.identity(self._step),
            "step": self._step,
            "num_bad_records": len(bad),
            "bad_records": [list(record) for record in bad[:_REPORTED_BAD_RECORDS]],
            **self.progress,
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
        self._source.check_identity(state)
        step = _step_of(state)
        for bad in self._source.bad:
            bad.restore(state["bad_records"])
        progress = self._source.progress_in(state)
        if progress:  # even at the same step: a reading that failed starts anew
            self._stop()
        self._move_to(step, progress)

    # Orbax v1 finds these two by name (its StatefulCheckpointable); nothing of Orbax is needed
    # here.

    async def save(self, directory: StateDirectory) -> Awaitable[None]:
        """Takes the state now; the returned coroutine writes it (Orbax v1)."""
        return write_state(directory, self.get_state())

    async def load(
        self, directory: os.PathLike[str], abstract_checkpointable: object = None
    ) -> Awaitable[None]:
        """Returns the coroutine that reads a saved state and goes to it (Orbax v1)."""
        del abstract_checkpointable

        async def restore() -> None:
            self.set_state(read_state(directory))

        return restore()

    def bad_records(self) -> list[tuple[str, int]]:
        """Returns (shard file, record) of every record met that can't be read, sorted."""
        return sorted(record for bad in self._source.bad for record in bad.met())

    # Life.

    def close(self) -> None:
        """Ends threads, closes files and gives memory back; may be called again."""
        self._stop()
        self._closed = True
        self._delivery.close()
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _move_to(self, step: int, progress: Mapping[str, Any]) -> None:
        """Goes to a step; what was read ahead stays where the step doesn't change."""
        if step != self._step:
            self._stop()
        self._step, self._progress = step, progress

    def _progress_ahead(self, count: int) -> Mapping[str, Any]:
        """Returns the latest progress known at or before the step `count` steps from here."""
        found = None if self._ahead is None else self._ahead.progress(count)
        return self._progress if found is None else found

    def _running(self) -> ReadAhead:
        self._check_open()
        if self._ahead is None:
            self._ahead = ReadAhead(
                self._source,
                self._delivery,
                self._fields,
                step=self._step,
                progress=self._progress,
                read_threads=self._read_threads,
                prefetch=self._prefetch,
                stall_secs=self._stall_secs,
            )
        return self._ahead

    def _stop(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("this loader is closed; build a new one and set_state() to go on")


def _step_of(state: Mapping[str, Any]) -> int:
    step = state["step"]
    try:
        return whole("step", step, least=0)
    except (TypeError, ValueError):
        raise ValueError(f"the state has step {step!r}, expected an integer of 0 or more") from None
