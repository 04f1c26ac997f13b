"""Sequences in memory: where records of all shards are put."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Rows:
    """Where records are put: row `rows[i]` of both arrays receives the i-th record asked for.

    Attributes:
        tokens: uint16|uint32[P, L].
        lengths: uint16|uint32[P, S]; None where no field needs them.
    """

    tokens: np.ndarray
    lengths: np.ndarray | None

    def slice(self, begin: int, end: int) -> "Rows":
        """Returns views of rows begin to end - 1."""
        lengths = None if self.lengths is None else self.lengths[begin:end]
        return Rows(self.tokens[begin:end], lengths)

    def take(self, rows: np.ndarray) -> "Rows":
        """Returns copies of rows, in the order asked for."""
        lengths = None if self.lengths is None else self.lengths[rows]
        return Rows(self.tokens[rows], lengths)

    def put_records(self, rows: np.ndarray, records: Sequence[bytes]) -> None:
        """Copies records into rows, with as many document lengths as each has.

        One by one: that is quicker than joining them first, and it keeps Python's lock, which a
        copy of arrays gives away and then waits for.
        """
        tokens = _as_bytes(self.tokens)
        places = rows.tolist()
        for row, record in zip(places, records, strict=True):
            tokens[row] = record  # NumPy takes what fits from the front
        if self.lengths is not None:
            lengths = _as_bytes(self.lengths)
            begin = tokens.itemsize
            for row, record in zip(places, records, strict=True):
                lengths[row] = record[begin:]  # and fills the rest with zeros

    def put(self, rows: np.ndarray, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Copies records into rows; rows' slots beyond the shard's own become 0."""
        self.tokens[rows] = tokens
        if self.lengths is not None:
            slots = lengths.shape[1]
            self.lengths[rows, :slots] = lengths
            self.lengths[rows, slots:] = 0


def _as_bytes(array: np.ndarray) -> np.ndarray:
    """Returns a view V[P] of a contiguous array [P, W], one item for each row."""
    return array.view(f"V{array.shape[1] * array.itemsize}")[:, 0]
