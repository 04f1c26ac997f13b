"""The rows that one share gives to batches, epoch after epoch, and the positions to resume from."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np

from shardstream.loaders.hub.buffer import Drawn, RollingBuffer
from shardstream.loaders.hub.feed import Checkpoint, feed
from shardstream.loaders.hub.order import ShareOrder
from shardstream.loaders.hub.units import Unit
from shardstream.loaders.shards.rows import Rows


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a share stands at a step.

    Attributes:
        step: of the stream.
        epoch: of the share.
        first_step: of the stream, with which the epoch began.
        checkpoint: of the feed; every sequence before it came out before `step`.
    """

    step: int
    epoch: int
    first_step: int
    checkpoint: Checkpoint | None

    def to_json(self) -> list[Any]:
        """Returns plain values."""
        kept = self.checkpoint.to_json() if self.checkpoint else None
        return [self.step, self.epoch, self.first_step, kept]

    @classmethod
    def from_json(cls, values: list[Any]) -> "Position":
        """The inverse of `to_json`."""
        step, epoch, first_step, kept = values
        return cls(step, epoch, first_step, Checkpoint.from_json(kept) if kept else None)


START = Position(0, 0, 0, None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharePlan:
    """What a share is made of.

    Attributes:
        order_of: the order of an epoch.
        units_of: units of a partition of the source after its first rows.
        lanes: partitions read side by side.
        rows_per_step: of each batch.
        epochs: None for no end.
        drop_remainder: leave out an epoch's last, partial step.
        sequence_length: L.
        token_dtype: uint16 or uint32.
        lengths_dtype: of document lengths.
        pad_id: fills empty rows.
    """

    order_of: Callable[[int], ShareOrder]
    units_of: Callable[[int, int], Iterator[Unit]]
    lanes: int
    rows_per_step: int
    epochs: int | None
    drop_remainder: bool
    sequence_length: int
    token_dtype: np.dtype
    lengths_dtype: np.dtype
    pad_id: int

    def empty_rows(self, count: int) -> Rows:
        """Returns rows of padding."""
        tokens = np.full((count, self.sequence_length), self.pad_id, self.token_dtype)
        return Rows(tokens, np.zeros((count, 2), self.lengths_dtype))


class Steps(NamedTuple):
    """Rows of consecutive steps, and the position at the first of them."""

    position: Position
    num_steps: int
    rows: Rows


def share_steps(
    plan: SharePlan, start: Position, executor: Executor, max_steps: int
) -> Iterator[Steps]:
    """Yields a share's rows from a position on, max_steps at most together.

    Raises:
        ValueError: an epoch has not one whole step.
    """
    step, epoch, first_step = start.step, start.epoch, start.first_step
    checkpoint = start.checkpoint
    while plan.epochs is None or epoch < plan.epochs:
        drawn = _draw_epoch(plan, epoch, checkpoint, executor)
        skipped = (step - first_step) * plan.rows_per_step
        skipped -= 0 if checkpoint is None else checkpoint.sequences
        for at, count, rows in _in_steps(plan, drawn, skipped, max_steps):
            yield Steps(Position(step, epoch, first_step, at), count, rows)
            step += count
        if step == first_step:
            raise ValueError(
                f"epoch {epoch} gave fewer than {plan.rows_per_step} sequences, expected at least "
                "one batch. Use a smaller batch_size, or drop_remainder=False, which pads it; "
                "stats() says how many documents were read and how many of them were dead."
            )
        epoch, first_step, checkpoint = epoch + 1, step, None


def _draw_epoch(
    plan: SharePlan, epoch: int, start: Checkpoint | None, executor: Executor
) -> Iterator[tuple[Checkpoint, Drawn]]:
    """Yields sequences in their order, each time with a checkpoint from which they can be made."""
    order = plan.order_of(epoch)
    places = order.partitions
    begin = Checkpoint.start(plan.lanes, len(places)) if start is None else start
    buffer = RollingBuffer(
        order,
        begin.sequences,
        sequence_length=plan.sequence_length,
        token_dtype=plan.token_dtype,
        lengths_dtype=plan.lengths_dtype,
    )
    held: deque[tuple[int, Checkpoint]] = deque()
    units = feed(
        lambda place, passed: plan.units_of(places[place], passed), len(places), begin, executor
    )
    for number, (unit, checkpoint) in enumerate(units):
        held.append((number, checkpoint))
        buffer.add(unit.tokens, unit.lengths, number)
        if (drawn := buffer.draw()) is not None:
            yield _oldest(held, drawn), drawn
    if (drawn := buffer.draw(is_last=True)) is not None:
        yield _oldest(held, drawn), drawn


def _oldest(held: deque[tuple[int, Checkpoint]], drawn: Drawn) -> Checkpoint:
    while held[0][0] < drawn.oldest_unit:
        held.popleft()
    return held[0][1]


def _in_steps(
    plan: SharePlan, drawn: Iterator[tuple[Checkpoint, Drawn]], skipped: int, max_steps: int
) -> Iterator[tuple[Checkpoint, int, Rows]]:
    """Yields whole steps: (checkpoint at the first of them, their number, their rows)."""
    size = plan.rows_per_step
    waiting: deque[tuple[Checkpoint, Rows]] = deque()
    count = 0
    for checkpoint, (rows, _) in drawn:
        dropped = min(skipped, len(rows.tokens))
        skipped -= dropped
        if dropped == len(rows.tokens):
            continue
        waiting.append((checkpoint, rows.slice(dropped, len(rows.tokens))))
        count += len(rows.tokens) - dropped
        while count >= size:
            steps = min(count // size, max_steps)
            yield waiting[0][0], steps, _take(waiting, steps * size)
            count -= steps * size
    if count and not plan.drop_remainder:
        waiting.append((waiting[0][0], plan.empty_rows(size - count)))
        yield waiting[0][0], 1, _take(waiting, size)


def _take(waiting: deque[tuple[Checkpoint, Rows]], count: int) -> Rows:
    """Returns the first rows, count of them, in one array."""
    pieces: list[Rows] = []
    while count:
        checkpoint, rows = waiting.popleft()
        taken = min(count, len(rows.tokens))
        pieces.append(rows.slice(0, taken))
        if taken < len(rows.tokens):
            waiting.appendleft((checkpoint, rows.slice(taken, len(rows.tokens))))
        count -= taken
    return join_rows(pieces)


def join_rows(pieces: list[Rows]) -> Rows:
    """Returns rows one after another, with as many length slots as any of them has."""
    if len(pieces) == 1:
        return pieces[0]
    num_rows = sum(len(piece.tokens) for piece in pieces)
    lengths = [piece.lengths for piece in pieces if piece.lengths is not None]
    slots = max(array.shape[1] for array in lengths)
    tokens = np.empty((num_rows, pieces[0].tokens.shape[1]), pieces[0].tokens.dtype)
    joined = Rows(tokens, np.empty((num_rows, slots), lengths[0].dtype))
    begin = 0
    for piece, of_piece in zip(pieces, lengths, strict=True):
        places = np.arange(begin, begin + len(piece.tokens))
        joined.put(places, piece.tokens, of_piece)
        begin += len(piece.tokens)
    return joined
