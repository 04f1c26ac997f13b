"""Sequences in memory: where records are put, whatever shard they come from."""

import dataclasses

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

    def part(self, begin: int, end: int) -> "Rows":
        """Returns views of rows begin to end - 1."""
        lengths = None if self.lengths is None else self.lengths[begin:end]
        return Rows(self.tokens[begin:end], lengths)

    def put(self, rows: np.ndarray, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Copies records into rows; rows' slots beyond the shard's own become 0."""
        self.tokens[rows] = tokens
        if self.lengths is not None:
            slots = lengths.shape[1]
            self.lengths[rows, :slots] = lengths
            self.lengths[rows, slots:] = 0
