"""Units of several partitions in turn, read ahead by threads.

Lanes take turns. One whose partition is at its end takes the epoch's next partition in that very
turn, so which unit comes when depends on the documents alone. Each lane that was opened has one
unit made ahead, and the next partitions are opened before a lane is free for them.
"""

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple

from shardstream.loaders.hub.units import Unit

# Partitions are opened shortly before their turn, so that at the start the first batch does not
# share the cores and the line with all lanes at once.
_LANES_AHEAD = 6
_PLACES_AHEAD = 2


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Where a feed stands, before a unit: enough to go on from there.

    Attributes:
        sequences: handed over so far in this epoch.
        lanes: for each lane (place in the epoch's order, rows of that partition passed), None
            after the last partition.
        next_place: the place that is taken next.
        turn: of the lane that is asked next.
    """

    sequences: int
    lanes: tuple[tuple[int, int] | None, ...]
    next_place: int
    turn: int

    @classmethod
    def start(cls, lanes: int, num_places: int) -> "Checkpoint":
        """Returns where an epoch begins."""
        first = tuple((i, 0) if i < num_places else None for i in range(lanes))
        return cls(0, first, min(lanes, num_places), 0)

    def to_json(self) -> list[Any]:
        """Returns plain values."""
        lanes = [None if lane is None else list(lane) for lane in self.lanes]
        return [self.sequences, lanes, self.next_place, self.turn]

    @classmethod
    def from_json(cls, values: list[Any]) -> "Checkpoint":
        """The inverse of `to_json`."""
        sequences, lanes, next_place, turn = values
        return cls(
            sequences,
            tuple(None if lane is None else tuple(lane) for lane in lanes),
            next_place,
            turn,
        )


class Fed(NamedTuple):
    """A unit and where the feed stood before it."""

    unit: Unit
    checkpoint: Checkpoint


class _Ahead:
    """Units of one partition, one of them made ahead."""

    def __init__(self, units: Iterator[Unit], executor: Executor) -> None:
        self._units, self._executor = units, executor
        self._next: Future[Unit | None] = executor.submit(next, units, None)

    def take(self) -> Unit | None:
        """Returns the next unit, None at the end."""
        unit = self._next.result()
        if unit is not None:
            self._next = self._executor.submit(next, self._units, None)
        return unit


def feed(
    units_of: Callable[[int, int], Iterator[Unit]],
    num_places: int,
    start: Checkpoint,
    executor: Executor,
) -> Iterator[Fed]:
    """Yields the units of an epoch from a checkpoint on.

    Args:
        units_of: the units of the partition at (place, rows passed).
        num_places: partitions of the epoch.
        start: from where on.
        executor: of at least as many threads as there are lanes, and two.
    """
    lanes, next_place, turn, sequences = (
        list(start.lanes),
        start.next_place,
        start.turn,
        start.sequences,
    )
    readers: dict[int, _Ahead] = {}

    def open_place(place: int, passed: int) -> None:
        if place < num_places and place not in readers:
            readers[place] = _Ahead(units_of(place, passed), executor)

    taken = 0
    while any(lane is not None for lane in lanes):
        lane = lanes[turn]
        if lane is None:
            turn = (turn + 1) % len(lanes)
            continue
        for i in range(min(_LANES_AHEAD, len(lanes))):
            if (soon := lanes[(turn + i) % len(lanes)]) is not None:
                open_place(*soon)
        if taken >= len(lanes):
            for place in range(next_place, next_place + _PLACES_AHEAD):
                open_place(place, 0)
        unit = readers[lane[0]].take()
        if unit is None:
            del readers[lane[0]]
            lanes[turn] = (next_place, 0) if next_place < num_places else None
            next_place = min(next_place + 1, num_places)
            continue
        yield Fed(unit, Checkpoint(sequences, tuple(lanes), next_place, turn))
        taken += 1
        sequences += len(unit.tokens)
        lanes[turn] = (lane[0], unit.next_row)
        turn = (turn + 1) % len(lanes)
