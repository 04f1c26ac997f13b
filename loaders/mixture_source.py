"""The rows of a mixture: each drawn from one of several splits, as a schedule says.

Each component has an order of global batches of its own, as in a Loader. A row of the mixture walks
down the same row of a component's batches, one further each time the schedule picks that component.
Rows keep to their hosts this way, so a mixture is as elastic as its components, and a component
begins its next epoch, shuffled anew, whenever its own records end.
"""

import dataclasses
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from shardstream.loaders.order.mixing import Schedule
from shardstream.loaders.row_source import NO_PROGRESS, HostBatches, Padding, Reading
from shardstream.loaders.shards.bad_records import BadRecords
from shardstream.loaders.shards.rows import Rows
from shardstream.loaders.shards.split import OpenSplit, SplitSource

_CHUNK_STEPS = 8


class MixtureSource:
    """The rows of several splits in given proportions; see RowSource.

    Args:
        components: sources without an end.
        schedule: which component each row takes.
        batch_size: sequences of the global batch.
        stop: "never", "first" or "all"; see Mixture.

    Raises:
        ValueError: the components can't stand in one batch.
    """

    def __init__(
        self, components: Sequence[SplitSource], schedule: Schedule, batch_size: int, stop: str
    ) -> None:
        _check_alike([component.split for component in components])
        self.components = tuple(components)
        self.schedule = schedule
        self._all_rows = np.arange(batch_size)
        self._end = self._last_step(stop)

    @property
    def padding(self) -> Padding:
        """See RowSource."""
        return self.components[0].padding

    @property
    def has_empty_rows(self) -> bool:
        """See RowSource."""
        return any(component.has_empty_rows for component in self.components)

    @property
    def num_steps(self) -> int | None:
        """See RowSource."""
        return self._end

    @property
    def bad(self) -> tuple[BadRecords, ...]:
        """See RowSource."""
        return tuple(bad for component in self.components for bad in component.bad)

    def epochs_at(self, step: int) -> list[float]:
        """Returns how many epochs of each component the batches before a step drew."""
        return [
            float(self._drawn(index, step).mean()) / component.steps_per_epoch
            for index, component in enumerate(self.components)
        ]

    def batches(self, reading: Reading) -> Iterator[HostBatches]:
        """See RowSource."""
        readers = []
        for index, component in enumerate(self.components):
            begin = int(self._drawn(index, reading.step)[reading.rows].min())
            chunks = component.batches(dataclasses.replace(reading, step=begin))
            readers.append(_ComponentRows(chunks, begin, len(reading.rows)))
        room = _Room(self.components, lengths=reading.lengths)
        return _mixed(self.schedule, readers, room, reading.rows, reading.step, self._end)

    def rows_at(self, step: int, rows: np.ndarray, *, lengths: bool) -> Rows:
        """See RandomAccess."""
        steps = np.array([step])
        chosen = self.schedule.components(steps, rows)[0]
        mixed = _Room(self.components, lengths=lengths).make(len(rows))
        for index, component in enumerate(self.components):
            at = np.flatnonzero(chosen == index)
            drawn = self.schedule.drawn(index, steps, rows[at])[0]
            for batch in np.unique(drawn).tolist():
                here = at[drawn == batch]
                found = component.rows_at(batch, rows[here], lengths=lengths)
                _copy(found, np.arange(len(here)), mixed, here)
        return mixed

    def identity(self, step: int) -> dict[str, Any]:
        """See RowSource."""
        return {
            "weights": list(self.schedule.counts),
            "parts": [component.identity(step) for component in self.components],
        }

    def check_identity(self, state: Mapping[str, Any]) -> None:
        """See RowSource."""
        mine = list(self.schedule.counts)
        if state.get("weights") != mine:
            raise ValueError(
                f"the state has weights {state.get('weights')}, this mixture {mine}: its batches "
                "would be others. Build the mixture with the weights of the run."
            )
        for component, identity in zip(self.components, state["parts"], strict=True):
            component.check_identity(identity)

    def progress_in(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """See RowSource; the step says everything."""
        return NO_PROGRESS

    def waiting_for(self) -> list[str]:
        """See RowSource."""
        return [text for component in self.components for text in component.waiting_for()]

    def close(self) -> None:
        """See RowSource."""
        for component in self.components:
            component.close()

    def _drawn(self, index: int, step: int) -> np.ndarray:
        """Returns int64[G]: how often each row drew a component before a step."""
        return self.schedule.drawn(index, np.array([step]), self._all_rows)[0]

    def _last_step(self, stop: str) -> int | None:
        if stop == "never":
            return None
        reduce = np.max if stop == "first" else np.min

        def is_over(step: int) -> bool:
            """Whether the components would be over after `step` batches."""
            past = [
                int(reduce(self._drawn(index, step))) - component.steps_per_epoch
                for index, component in enumerate(self.components)
            ]
            return max(past) > 0 if stop == "first" else min(past) >= 0

        low, high = 0, 1
        while not is_over(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if is_over(middle) else (middle, high)
        return low if stop == "first" else high


class _Room:
    """Makes rows that hold the records of any component."""

    def __init__(self, components: Sequence[SplitSource], *, lengths: bool) -> None:
        layouts = [component.split.shards.layout for component in components]
        self._lengths = lengths
        self._length = layouts[0].sequence_length
        self._slots = max(layout.max_segments for layout in layouts)
        self._token_dtype = max(
            (layout.tokens_dtype for layout in layouts), key=lambda d: d.itemsize
        )
        self._lengths_dtype = layouts[0].lengths_dtype

    def make(self, count: int) -> Rows:
        tokens = np.empty((count, self._length), self._token_dtype)
        if not self._lengths:
            return Rows(tokens, None)
        return Rows(tokens, np.zeros((count, self._slots), self._lengths_dtype))


class _ComponentRows:
    """The batches of a component that rows still draw from."""

    def __init__(self, chunks: Iterator[HostBatches], begin: int, num_rows: int) -> None:
        self._chunks, self._num_rows = chunks, num_rows
        self._held: deque[tuple[int, HostBatches]] = deque()  # (number of the first batch, batches)
        self._next = begin

    def copy(self, drawn: np.ndarray, row: np.ndarray, into: Rows, at: np.ndarray) -> None:
        """Copies row row[i] of batch drawn[i] into row at[i]."""
        while self._next <= drawn.max(initial=-1):
            chunk = next(self._chunks)
            self._held.append((self._next, chunk))
            self._next += chunk.num_steps
        for first, chunk in self._held:
            here = (drawn >= first) & (drawn < first + chunk.num_steps)
            index = (drawn[here] - first) * self._num_rows + row[here]
            _copy(chunk.rows, index, into, at[here])

    def drop_before(self, batch: int) -> None:
        """Forgets chunks all of whose batches come before one."""
        while self._held and self._held[0][0] + self._held[0][1].num_steps <= batch:
            self._held.popleft()


def _mixed(
    schedule: Schedule,
    readers: list[_ComponentRows],
    room: _Room,
    rows: np.ndarray,
    step: int,
    end: int | None,
) -> Iterator[HostBatches]:
    """Yields the mixture's batches from a step on."""
    while end is None or step < end:
        count = _CHUNK_STEPS if end is None else min(_CHUNK_STEPS, end - step)
        steps = np.arange(step, step + count)
        chosen = schedule.components(steps, rows).ravel()
        mixed = room.make(count * len(rows))
        for index, reader in enumerate(readers):
            at = np.flatnonzero(chosen == index)
            drawn = schedule.drawn(index, steps, rows).ravel()
            reader.copy(drawn[at], at % len(rows), mixed, at)
            reader.drop_before(int(drawn[-len(rows) :].min()))
        yield HostBatches(count, mixed)
        step += count


def _copy(rows: Rows, index: np.ndarray, into: Rows, at: np.ndarray) -> None:
    into.tokens[at] = rows.tokens[index]
    if into.lengths is not None and rows.lengths is not None:
        into.lengths[at, : rows.lengths.shape[1]] = rows.lengths[index]


def _check_alike(splits: Sequence[OpenSplit]) -> None:
    """Raises ValueError where splits can't stand in one batch."""
    for name, value in {
        "sequence_length": lambda split: split.manifest.sequence_length,
        "tokenizer": lambda split: split.manifest.tokenizer.get("fingerprint"),
        "pad_id": lambda split: split.padding.pad_id,
        "pad_side": lambda split: split.padding.pad_side,
    }.items():
        if len({value(split) for split in splits}) > 1:
            found = ", ".join(f"{split.directory}: {value(split)}" for split in splits)
            raise ValueError(
                f"the components of a mixture need one {name}, found {found}. Build them alike."
            )
