"""Finds documents that hold the written text of a token, e.g. a literal `<|endoftext|>`.

What becomes of a special token's text is an option (`special_tokens_in_text`); that it is there is
counted either way, since a corpus full of it has usually been tokenized once before. Nearly all
documents are ruled out by one search for what the tokens begin with, which runs at the speed of
memory, faster than comparing every byte and than Arrow's search for a plain string; only the others
are looked at byte by byte.

Invariant: exact; a token never matches across the border of two documents.
"""

import functools
import os
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardstream.tokens.arrow_buffers import value_bytes, value_offsets

# Each is a pass over the text; with more, the bytes are compared at once.
_MAX_BEGINNINGS = 2


@functools.lru_cache(maxsize=32)
def literal_search(literals: tuple[str, ...]) -> "LiteralSearch":
    """Returns the search for some literals, made once."""
    return LiteralSearch(literals)


class LiteralSearch:
    """Searches for any of a few strings.

    Args:
        literals: what to look for; empty strings are left out.
    """

    def __init__(self, literals: Sequence[str]) -> None:
        wanted = sorted({s for s in literals if s})
        self._needles = [np.frombuffer(s.encode(), np.uint8) for s in wanted]
        by_first: dict[str, list[str]] = {}
        for literal in wanted:
            by_first.setdefault(literal[0], []).append(literal)
        # Arrow's expressions look for a fixed beginning by whole vectors, and for little else.
        beginnings = map(os.path.commonprefix, by_first.values())
        self._beginnings = list(map(re.escape, beginnings))

    def rows_with(self, texts: pa.LargeStringArray) -> np.ndarray:
        """Returns bool[n], True for the texts that hold one of the literals.

        Args:
            texts: n texts, no nulls.
        """
        if len(texts) == 0 or not self._needles:
            return np.zeros(len(texts), bool)
        if len(self._beginnings) > _MAX_BEGINNINGS:
            return self._compare(texts)
        found = np.zeros(len(texts), bool)
        for beginning in self._beginnings:
            matches = pc.match_substring_regex(texts, beginning)  # pyright: ignore[reportAttributeAccessIssue]
            found |= matches.to_numpy(zero_copy_only=False)
        if found.any():
            found[found] = self._compare(texts.filter(pa.array(found)))
        return found

    def _compare(self, texts: pa.LargeStringArray) -> np.ndarray:
        """Does what rows_with does, comparing the first two bytes of each literal everywhere."""
        found = np.zeros(len(texts), bool)
        offsets = value_offsets(texts)
        data = value_bytes(texts)[: offsets[-1]]
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
