"""Finds documents that hold the written text of a special token, e.g. a literal `<|endoftext|>`.

What becomes of such text is an option (`special_tokens_in_text`); that it is there is counted
either way, since a corpus full of it has usually been tokenized once before. Two comparisons a byte
rule out nearly all places; only where a token may begin are further bytes looked at.

Invariant: exact; a token never matches across the border of two documents.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tokens.engine import text_bytes, text_offsets


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
        begins = {needle[:2].tobytes() for needle in self._needles}
        places = {begin: _places_of(data, begin, int(offsets[0])) for begin in begins}
        for needle in self._needles:
            starts = _starts_of(data, needle, places[needle[:2].tobytes()])
            rows = np.searchsorted(offsets, starts, side="right") - 1
            found[rows[starts + len(needle) <= offsets[rows + 1]]] = True
        return found


def _places_of(data: np.ndarray, begin: bytes, first: int) -> np.ndarray:
    """Returns int64[k]: where the one or two bytes of begin stand in uint8[b], from first on.

    Whole passes of NumPy, which free Python's lock; a search by `bytes` would hold it for all of
    them.
    """
    found = data[first : len(data) - len(begin) + 1] == begin[0]
    if len(begin) == 2:
        found &= data[first + 1 :] == begin[1]
    return np.flatnonzero(found) + first


def _starts_of(data: np.ndarray, needle: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Returns those of places, int64[k], at which needle, uint8[m], stands in data, uint8[b]."""
    places = places[places <= len(data) - len(needle)]
    for index in range(2, len(needle)):
        if len(places) == 0:
            break
        places = places[data[places + index] == needle[index]]
    return places
