"""Finds documents that hold the written text of a special token, e.g. a literal `<|endoftext|>`.

What becomes of such text is an option (`special_tokens_in_text`); that it is there is counted
either way, since a corpus full of it has usually been tokenized once before. One comparison a byte
rules out nearly all places; only where a token may begin are further bytes looked at.

Invariant: exact; a token never matches across the border of two documents.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from tokens.engine import text_bytes, text_offsets

_FEW: Final = 8


class LiteralSearch:
    """Searches for any of a few strings.

    Args:
        literals: what to look for; empty strings are left out.
    """

    def __init__(self, literals: Sequence[str]) -> None:
        self._needles = [np.frombuffer(s.encode(), np.uint8) for s in sorted(set(literals)) if s]

    def rows_with(self, texts: pa.LargeStringArray) -> np.ndarray:
        """Returns bool[n], True for the texts that hold one of the literals.

        Args:
            texts: n texts, no nulls.
        """
        found = np.zeros(len(texts), bool)
        if len(texts) == 0 or not self._needles:
            return found
        offsets = text_offsets(texts)
        data = text_bytes(texts)[: offsets[-1]]
        needles = self._needles
        if len(needles) <= _FEW:  # a search of the C library for each is the quickest way to a no
            haystack = data[offsets[0] :].tobytes()
            needles = [needle for needle in needles if needle.tobytes() in haystack]
        places = {
            byte: np.flatnonzero(data[offsets[0] :] == byte) + offsets[0]
            for byte in {int(needle[0]) for needle in needles}
        }
        for needle in needles:
            starts = _starts_of(data, needle, places[int(needle[0])])
            rows = np.searchsorted(offsets, starts, side="right") - 1
            found[rows[starts + len(needle) <= offsets[rows + 1]]] = True
        return found


def _starts_of(data: np.ndarray, needle: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Returns those of places, int64[k], at which needle, uint8[m], stands in data, uint8[b]."""
    places = places[places <= len(data) - len(needle)]
    for index in range(1, len(needle)):
        if len(places) == 0:
            break
        places = places[data[places + index] == needle[index]]
    return places
