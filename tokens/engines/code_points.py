"""Sets of Unicode code points, and a vectorised search of UTF-8 text for those outside a set.

Invariant: `rows_outside` is exact. It reads Arrow's bytes in steps, each on what the one before
left open: bytes no smaller than any first byte of a character outside the set; the first two bytes;
the code point. Text in certified scripts so costs one pass over bytes, none over characters. The
steps are few and long on purpose: between them a thread needs Python's lock, and waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from shardstream.tokens.arrow_buffers import value_bytes, value_offsets

NUM_CODE_POINTS = 0x110000
# Bounds the temporaries: 8 bytes for each byte of text where a script's every byte is looked at.
_WINDOW_BYTES = 1 << 20
_SURROGATES = slice(0xD800, 0xE000)


class CodePointSet:
    """A set of code points, built for searching text for what is not in it; not to be changed.

    Args:
        members: bool[0x110000], True for the code points in the set. Surrogates never occur in
            UTF-8 and do not matter.
    """

    def __init__(self, members: np.ndarray) -> None:
        if members.shape != (NUM_CODE_POINTS,) or members.dtype != bool:
            raise ValueError(
                f"members: expected bool[{NUM_CODE_POINTS}], found "
                f"{members.dtype}{list(members.shape)}."
            )
        members = members.copy()
        members[_SURROGATES] = True
        self.members = members
        self._is_settled = _settled_pairs(members)
        is_open = ~self._is_settled.reshape(256, 256).all(axis=1)
        self._lowest_open = np.uint8(is_open.argmax())  # 0xF5 to 0xFF, not UTF-8, always are

    @classmethod
    def of(cls, code_points: np.ndarray) -> CodePointSet:
        """The set of the code points listed, int[k]."""
        members = np.zeros(NUM_CODE_POINTS, bool)
        members[code_points] = True
        return cls(members)

    def __len__(self) -> int:
        return int(self.members.sum()) - (_SURROGATES.stop - _SURROGATES.start)

    def rows_outside(self, texts: pa.LargeStringArray) -> np.ndarray:
        """Finds the texts that hold a code point outside the set.

        Args:
            texts: n texts, valid UTF-8 (a byte that cannot begin a character counts as outside).

        Returns:
            bool[n], True where a text holds at least one.
        """
        offsets = value_offsets(texts)
        data = value_bytes(texts)[offsets[0] : offsets[-1]]
        outside = np.zeros(len(texts), bool)
        if len(data) == 0:
            return outside
        for places in self._places_outside(data):
            outside[np.searchsorted(offsets, places + offsets[0], side="right") - 1] = True
        return outside

    def _places_outside(self, data: np.ndarray) -> Iterator[np.ndarray]:
        """Where characters outside the set begin in uint8[b]: arrays of int64[k]."""
        for start in range(0, len(data), _WINDOW_BYTES):
            window = data[start : start + _WINDOW_BYTES]
            places = np.flatnonzero(window >= self._lowest_open) + start
            if len(places) == 0:
                continue
            following = data[np.minimum(places + 1, len(data) - 1)]
            pairs = data[places].astype(np.uint16) << 8 | following
            places = places[~self._is_settled[pairs]]
            yield places[~self.members[_code_points_at(data, places)]]


def _settled_pairs(members: np.ndarray) -> np.ndarray:
    """bool[65536] by first two bytes: True where no character that begins so is outside.

    Pairs that no character begins with are settled, save bytes that UTF-8 never uses.
    """
    table = np.ones((256, 256), bool)
    table[:0x80] = members[:0x80, None]
    table[0xC0:0xE0, 0x80:0xC0] = members[:0x800].reshape(32, 64)
    table[0xE0:0xF0, 0x80:0xC0] = members[:0x10000].reshape(16, 64, 64).all(axis=2)
    # 0x110000 is 4.25 times 2**18; the rest is padded as outside: no such character exists.
    padded = np.zeros(5 << 18, bool)
    padded[:NUM_CODE_POINTS] = members
    table[0xF0:0xF5, 0x80:0xC0] = padded.reshape(5, 64, 4096).all(axis=2)
    table[0xF5:] = False
    return table.reshape(-1)


def _code_points_at(data: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Decodes the characters that begin at `starts`, int64[k], in uint8[b].

    Bytes that are not UTF-8 decode to the last code point, U+10FFFF, a noncharacter.
    """
    last = len(data) - 1
    lead = data[starts].astype(np.int64)
    tail = [data[np.minimum(starts + i, last)].astype(np.int64) & 0x3F for i in (1, 2, 3)]
    two = (lead & 0x1F) << 6 | tail[0]
    three = (lead & 0x0F) << 12 | tail[0] << 6 | tail[1]
    four = (lead & 0x07) << 18 | tail[0] << 12 | tail[1] << 6 | tail[2]
    kinds = [lead < 0x80, lead < 0xE0, lead < 0xF0, lead < 0xF8]
    found = np.select(kinds, [lead, two, three, four], NUM_CODE_POINTS)
    return np.minimum(found, NUM_CODE_POINTS - 1)
