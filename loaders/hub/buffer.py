"""Holds sequences until their turn: a rolling shuffle whose order is known without its content.

Each sequence comes out once every sequence that could come before it has been read. Since delays
are uniform, half of the window is held on average, and never more than all of it and one unit.
"""

from typing import NamedTuple

import numpy as np

from shardstream.loaders.hub.order import ShareOrder
from shardstream.loaders.shards.rows import Rows

_FIRST_SLOTS = 1024


class Drawn(NamedTuple):
    """Sequences in the order they come out; `oldest_unit` is the first unit they can be from."""

    rows: Rows
    oldest_unit: int


class RollingBuffer:
    """Holds sequences from when they are read to their turn.

    Args:
        order: gives the turns.
        first_number: of the first sequence that will be added.
        sequence_length: L.
        token_dtype: uint16 or uint32.
        lengths_dtype: of document lengths.
    """

    def __init__(
        self,
        order: ShareOrder,
        first_number: int,
        *,
        sequence_length: int,
        token_dtype: np.dtype,
        lengths_dtype: np.dtype,
    ) -> None:
        self._order = order
        self._next_number = first_number
        self._tokens = np.empty((0, sequence_length), token_dtype)
        self._lengths = np.empty((0, 2), lengths_dtype)
        self._free = np.empty(0, np.int64)
        # Of those held, in the order they were read.
        self._turn = np.empty(0, np.uint64)
        self._slot = np.empty(0, np.int64)
        self._unit = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._slot)

    def add(self, tokens: np.ndarray, lengths: np.ndarray, unit: int) -> None:
        """Takes the next n sequences, [n, L] and [n, S]; they are copied.

        Args:
            tokens: of the sequences.
            lengths: of their documents, zeros after them.
            unit: what they were read with; not smaller than the last one.
        """
        count = len(tokens)
        self._reserve(count, lengths.shape[1])
        slots, self._free = self._free[:count], self._free[count:]
        Rows(self._tokens, self._lengths).put(slots, tokens, lengths)
        numbers = np.arange(self._next_number, self._next_number + count)
        self._next_number += count
        self._turn = np.concatenate([self._turn, self._order.turn(numbers)])
        self._slot = np.concatenate([self._slot, slots])
        self._unit = np.concatenate([self._unit, np.full(count, unit)])

    def draw(self, *, is_last: bool = False) -> Drawn | None:
        """Returns the sequences that are due, None where there are none.

        Args:
            is_last: nothing will be added, so every sequence is due.
        """
        if is_last:
            due = np.ones(len(self._turn), bool)
        else:
            due = self._turn < self._order.first_turn(self._next_number)
        if not due.any():
            return None
        oldest_unit = int(self._unit[0])
        index = np.flatnonzero(due)
        index = index[np.argsort(self._turn[index], kind="stable")]
        slots = self._slot[index]
        rows = Rows(self._tokens[slots], self._lengths[slots])
        self._free = np.concatenate([self._free, slots])
        self._turn, self._slot, self._unit = self._turn[~due], self._slot[~due], self._unit[~due]
        return Drawn(rows, oldest_unit)

    def _reserve(self, count: int, slots: int) -> None:
        """Makes room for sequences, and for as many documents in each."""
        held = len(self._tokens)
        missing = count - len(self._free)
        grown = max(held + missing, held + held // 2, _FIRST_SLOTS) if missing > 0 else held
        if grown > held:
            tokens = np.empty((grown, self._tokens.shape[1]), self._tokens.dtype)
            tokens[:held] = self._tokens
            self._tokens = tokens
            self._free = np.concatenate([self._free, np.arange(held, grown)])
        if grown > held or slots > self._lengths.shape[1]:
            width = max(slots, self._lengths.shape[1])
            lengths = np.zeros((grown, width), self._lengths.dtype)
            lengths[:held, : self._lengths.shape[1]] = self._lengths
            self._lengths = lengths
