"""`Mixture`: several datasets in given proportions, with one exact, resumable order.

Each part has an order of global batches of its own, as in a Loader. A row of the mixture walks down
the same row of a part's batches, one further each time the schedule picks that part. Rows keep to
their hosts this way, so a mixture is as elastic as its parts, and a part begins its next epoch,
shuffled anew, whenever its own records end.
"""

import dataclasses
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from shardstream.loaders.delivery import Delivery
from shardstream.loaders.iterator import Batches
from shardstream.loaders.options import OrderOptions, split_options
from shardstream.loaders.order.mixing import Schedule
from shardstream.loaders.shards.part import Part
from shardstream.loaders.shards.rows import Rows
from shardstream.loaders.shards.source import Chunk

STOPS = ("never", "first", "all")
_CHUNK_STEPS = 8


class Mixture(Batches):
    """Iterates over batches whose rows come from several datasets.

    Args:
        paths: dataset directories of one sequence length and tokenizer.
        weights: of each, in rows; their ratio counts.
        stop: "never" repeats every part; "first" ends before a part would repeat; "all" ends when
            every part was seen whole.
        sharding: see Loader.
        process_index: see Loader.
        process_count: see Loader.
        **options: see Loader; `epochs` and `drop_remainder` are fixed (parts repeat, batches are
            whole), and `buffer_size` is divided among the parts by weight.

    Guarantees: those of Loader. In each batch, each part's rows are within one (two for more than
        two parts) of its share; every row draws from a part within one of its share of any stretch
        of steps.

    Raises:
        ValueError: parts don't fit together, or an option is wrong.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        weights: Sequence[float],
        stop: str = "never",
        sharding: jax.sharding.Sharding | None = None,
        process_index: int | None = None,
        process_count: int | None = None,
        **options: Any,
    ) -> None:
        fixed = {"epochs", "drop_remainder"} & set(options)
        if fixed:
            raise ValueError(f"a mixture has no {' or '.join(sorted(fixed))}: give stop= instead")
        if options.get("follow"):
            raise ValueError(
                "a mixture can't follow a stream that grows: its parts repeat, which takes their "
                "ends. Follow one with Loader(path, follow=True), or mix them once complete."
            )
        if stop not in STOPS:
            raise ValueError(f"stop is {stop!r}, expected one of {', '.join(STOPS)}")
        if len(paths) != len(weights):
            raise ValueError(
                f"{len(paths)} paths and {len(weights)} weights, expected as many of each"
            )
        order, read, batch = split_options(options)
        self._schedule = Schedule(weights)
        shares = [count / self._schedule.period for count in self._schedule.counts]
        parts = [
            Part(path, batch.split, _order_of_part(order, share), read)
            for path, share in zip(paths, shares, strict=True)
        ]
        _check_alike(parts)
        delivery = Delivery(
            batch_size=order.batch_size,
            sequence_length=parts[0].manifest.sequence_length,
            sharding=sharding,
            process_index=process_index,
            process_count=process_count,
            output=batch.output,
            token_dtype=batch.token_dtype,
        )
        super().__init__(parts, read, batch, delivery)
        self._stop_when = stop
        self._all_rows = np.arange(order.batch_size)
        self._end = self._last_step()

    @property
    def num_steps(self) -> int | None:
        """Batches until the mixture stops, None for stop="never"."""
        return self._end

    def epochs_at(self, step: int) -> list[float]:
        """Returns how many epochs of each part the batches before a step drew."""
        drawn = [self._drawn(part, step, self._all_rows).mean() for part in range(len(self._parts))]
        return [d / p.steps_per_epoch for d, p in zip(drawn, self._parts, strict=True)]

    def _drawn(self, part: int, step: int, rows: np.ndarray) -> np.ndarray:
        return self._schedule.drawn(part, np.array([step]), rows)[0]

    def _last_step(self) -> int | None:
        if self._stop_when == "never":
            return None
        reduce = np.max if self._stop_when == "first" else np.min

        def is_over(step: int) -> bool:
            """Whether the parts would be over after `step` batches."""
            past = [
                int(reduce(self._drawn(part, step, self._all_rows))) - entry.steps_per_epoch
                for part, entry in enumerate(self._parts)
            ]
            return max(past) > 0 if self._stop_when == "first" else min(past) >= 0

        low, high = 0, 1
        while not is_over(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if is_over(middle) else (middle, high)
        return low if self._stop_when == "first" else high

    def _rows_from(
        self, step: int, executor: ThreadPoolExecutor, closing: threading.Event
    ) -> Iterator[tuple[int, Rows]]:
        rows = self._delivery.rows
        streams = []
        for index, part in enumerate(self._parts):
            begin = int(self._drawn(index, step, rows).min())
            chunks = part.chunks(
                begin,
                rows,
                epochs=None,
                lengths=self._lengths,
                executor=executor,
                closing=closing,
            )
            streams.append(_PartRows(chunks, begin, len(rows)))
        room = _Room(self._parts, lengths=self._lengths)
        return _mixed(self._schedule, streams, room, rows, step, self._end)

    def _rows_at(self, step: int) -> Rows:
        rows = self._delivery.rows
        steps = np.array([step])
        chosen = self._schedule.parts(steps, rows)[0]
        mixed = _Room(self._parts, lengths=self._lengths).make(len(rows))
        for index, part in enumerate(self._parts):
            at = np.flatnonzero(chosen == index)
            drawn = self._schedule.drawn(index, steps, rows[at])[0]
            for batch in np.unique(drawn).tolist():
                here = at[drawn == batch]
                found = part.read(part.records_at(batch, rows[here]), lengths=self._lengths)
                _copy(found, np.arange(len(here)), mixed, here)
        return mixed

    def _identity(self) -> dict[str, Any]:
        return {
            "weights": list(self._schedule.counts),
            "parts": [part.identity(self._step) for part in self._parts],
        }

    def _check_identity(self, state: Mapping[str, Any]) -> None:
        mine = list(self._schedule.counts)
        if state.get("weights") != mine:
            raise ValueError(
                f"the state has weights {state.get('weights')}, this mixture {mine}: its batches "
                "would be others. Build the mixture with the weights of the run."
            )
        for part, identity in zip(self._parts, state["parts"], strict=True):
            part.check_identity(identity)


class _Room:
    """Makes rows that hold the records of any part."""

    def __init__(self, parts: list[Part], *, lengths: bool) -> None:
        layouts = [part.shards.layout for part in parts]
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


class _PartRows:
    """The batches of a part that rows still draw from."""

    def __init__(self, chunks: Iterator[Chunk], begin: int, num_rows: int) -> None:
        self._chunks, self._num_rows = chunks, num_rows
        self._held: deque[tuple[int, Chunk]] = deque()  # (its first batch, chunk)
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
    streams: list[_PartRows],
    room: _Room,
    rows: np.ndarray,
    step: int,
    end: int | None,
) -> Iterator[tuple[int, Rows]]:
    """Yields chunks of the mixture; nothing here refers to the Mixture, which may be forgotten."""
    while end is None or step < end:
        count = _CHUNK_STEPS if end is None else min(_CHUNK_STEPS, end - step)
        steps = np.arange(step, step + count)
        chosen = schedule.parts(steps, rows).ravel()
        mixed = room.make(count * len(rows))
        for part, stream in enumerate(streams):
            at = np.flatnonzero(chosen == part)
            drawn = schedule.drawn(part, steps, rows).ravel()
            stream.copy(drawn[at], at % len(rows), mixed, at)
            stream.drop_before(int(drawn[-len(rows) :].min()))
        yield count, mixed
        step += count


def _copy(rows: Rows, index: np.ndarray, into: Rows, at: np.ndarray) -> None:
    into.tokens[at] = rows.tokens[index]
    if into.lengths is not None and rows.lengths is not None:
        into.lengths[at, : rows.lengths.shape[1]] = rows.lengths[index]


def _order_of_part(order: OrderOptions, share: float) -> OrderOptions:
    buffer_size = max(order.batch_size, round(order.buffer_sequences * share))
    return dataclasses.replace(order, buffer_size=buffer_size, epochs=None)


def _check_alike(parts: list[Part]) -> None:
    """Raises ValueError where parts can't stand in one batch."""
    for name, value in {
        "sequence_length": lambda part: part.manifest.sequence_length,
        "tokenizer": lambda part: part.manifest.tokenizer.get("fingerprint"),
        "pad_id": lambda part: part.manifest.pad_id,
        "pad_side": lambda part: part.pad_side,
    }.items():
        if len({value(part) for part in parts}) > 1:
            found = ", ".join(f"{part.directory}: {value(part)}" for part in parts)
            raise ValueError(
                f"the parts of a mixture need one {name}, found {found}. Build them alike."
            )
