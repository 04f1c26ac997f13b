"""Packs a partition's documents into sequences, in units of a few hundred.

A unit ends with the document that fills it: its end depends on the documents alone, never on how
they were read. So reading may start again at any unit's first row and gives the same units.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from shardstream.tokens.arrow_buffers import value_offsets
from shardstream.tokens.packing.options import PackingOptions
from shardstream.tokens.packing.pack import assemble, pack

UNIT_SEQUENCES = 256  # padding at a unit's end is then 0.2 % where documents are joined


class Documents(NamedTuple):
    """Documents of a partition, in row order.

    `tokens` is large_binary[n], little-endian ids; `ends[i]` (int64[n]) counts the rows of the
    partition up to and with document i.
    """

    tokens: pa.LargeBinaryArray
    ends: np.ndarray


class Unit(NamedTuple):
    """Sequences packed together, tokens [n, L] and lengths [n, S]; the next unit's first row."""

    tokens: np.ndarray
    lengths: np.ndarray
    next_row: int


class Packer:
    """Makes units.

    Args:
        options: of the packing.
        token_dtype: "uint16" or "uint32".
        pad_id: fills sequences up.
        eos_id: what documents end with, for `keep_eos`.
    """

    def __init__(
        self, options: PackingOptions, *, token_dtype: str, pad_id: int, eos_id: int | None
    ) -> None:
        self._options = options
        self._dtype = token_dtype
        self._itemsize = np.dtype(token_dtype).itemsize
        self._ids = {"pad_id": pad_id, "eos_id": eos_id}

    def units(self, blocks: Iterable[Documents]) -> Iterator[Unit]:
        """Yields the units of a partition's documents, from the first one given on."""
        held: list[Documents] = []
        size = 0
        for block in blocks:
            held.append(block)
            size += int(self._weights(block).sum())
            if size < self._unit_size:
                continue
            documents = _join(held)
            ends = self._unit_ends(documents)
            begin = 0
            for end in ends:
                yield self._unit(_slice(documents, begin, end))
                begin = end
            rest = _slice(documents, begin, len(documents.ends))
            held, size = [rest], int(self._weights(rest).sum())
        last = _join(held) if held else None
        if last is not None and len(last.ends):
            yield self._unit(last)

    @property
    def _unit_size(self) -> int:
        joins = self._options.packing in ("concat", "best_fit")
        return UNIT_SEQUENCES * (self._options.sequence_length if joins else 1)

    def _weights(self, documents: Documents) -> np.ndarray:
        """Returns int64[n]: tokens where packing joins documents, else sequences."""
        tokens = np.diff(value_offsets(documents.tokens)) // self._itemsize
        if self._options.packing in ("concat", "best_fit"):
            return tokens
        if self._options.truncation_rule == "split":
            return np.maximum(1, -(-tokens // self._options.sequence_length))
        return np.ones(len(tokens), np.int64)

    def _unit_ends(self, documents: Documents) -> list[int]:
        """Returns the index after each unit's last document."""
        total = np.cumsum(self._weights(documents))
        ends: list[int] = []
        done = 0
        while True:
            end = int(np.searchsorted(total, done + self._unit_size)) + 1
            if end > len(total):
                return ends
            ends.append(end)
            done = int(total[end - 1])

    def _unit(self, documents: Documents) -> Unit:
        lengths = np.diff(value_offsets(documents.tokens)) // self._itemsize
        pieces = pack(lengths, self._options)
        tokens, slots = assemble(
            documents.tokens,
            pieces,
            token_dtype=self._dtype,
            options=self._options,
            **self._ids,
        )
        return Unit(tokens, slots, int(documents.ends[-1]))


def _join(blocks: list[Documents]) -> Documents:
    if len(blocks) == 1:
        return blocks[0]
    tokens = pa.concat_arrays([block.tokens for block in blocks])
    return Documents(tokens, np.concatenate([block.ends for block in blocks]))


def _slice(documents: Documents, begin: int, end: int) -> Documents:
    return Documents(documents.tokens[begin:end], documents.ends[begin:end])
