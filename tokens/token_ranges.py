"""Documents as ranges of one buffer, and how ranges are copied out of it in another order.

Invariant: bytes are moved by Arrow's `take` alone, whole ranges at a time, which runs at the speed
of memory; NumPy's fancy indexing would handle every token.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from shardstream.tokens.arrow_buffers import value_bytes, value_offsets


class TokenRanges(NamedTuple):
    """Documents as ranges of one buffer: document i is `data[begin[i] : end[i]]`.

    Attributes:
        data: uint8[b], the documents' tokens as little-endian bytes, in any order, gaps included.
        begin: int64[n], bytes.
        end: int64[n], bytes.
    """

    data: np.ndarray
    begin: np.ndarray
    end: np.ndarray


def ranges_of(documents: pa.LargeBinaryArray) -> TokenRanges:
    """Returns n documents, a slice of a larger array included, as ranges of their buffer."""
    if documents.type != pa.large_binary() or documents.null_count:
        raise ValueError(
            f"documents: expected large_binary without nulls, found {documents.type} with "
            f"{documents.null_count} nulls."
        )
    offsets = value_offsets(documents)
    return TokenRanges(value_bytes(documents), offsets[:-1], offsets[1:])


class Gather:
    """Copies ranges of a buffer, one after another, any run of them at a time.

    The ranges, sorted, cut the buffer into ranges and gaps: offsets of a large_binary array without
    a copy, from which Arrow takes the ranges in the order asked for.

    Args:
        data: uint8[b].
        begin: int64[R], bytes.
        end: int64[R], bytes; no two ranges overlap.
    """

    def __init__(self, data: np.ndarray, begin: np.ndarray, end: np.ndarray) -> None:
        self._data, self._begin, self._end = data, begin, end
        self._is_in_place = begin[1:] == end[:-1]
        by_place = np.argsort(begin, kind="stable")
        self._index = np.empty_like(by_place)
        self._index[by_place] = np.arange(0, 2 * len(by_place), 2)
        offsets = np.stack([begin[by_place], end[by_place]], axis=1).ravel()
        self._ranges = large_binary(offsets if len(offsets) else np.zeros(1, np.int64), data)

    def __call__(self, first: int, last: int) -> np.ndarray:
        """Returns uint8[...], ranges first to last - 1; a view where they already are in order."""
        if first == last:
            return self._data[:0]
        if self._is_in_place[first : last - 1].all():
            return self._data[self._begin[first] : self._end[last - 1]]
        taken = self._ranges.take(pa.array(self._index[first:last]))
        return np.frombuffer(taken.buffers()[2], np.uint8)


def large_binary(offsets: np.ndarray, data: np.ndarray) -> pa.LargeBinaryArray:
    """Returns the array of n values, from int64[n + 1] byte offsets into data, not copied."""
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)
