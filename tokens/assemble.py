"""Arithmetic on flat ids: put special ids around documents, take rows, put rows back together.

Invariant: no function loops over documents or tokens in Python, and none returns a view of its
arguments. What comes out is for reading: it may lie in Arrow's memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardstream.tokens.arrow_buffers import offsets_of
from shardstream.tokens.engines.engine import Encoded


def add_special_ids(encoded: Encoded, *, bos_id: int | None, eos_id: int | None) -> Encoded:
    """Puts one id before and/or after every row.

    Args:
        encoded: n rows, T ids.
        bos_id: goes before each row; None adds nothing.
        eos_id: goes after each row; None adds nothing.

    Returns:
        n rows, T + n * (number of ids asked for) ids; `encoded` itself when none is.
    """
    dtype = encoded.ids.dtype
    around = [None if item is None else dtype.type(item).tobytes() for item in (bos_id, eos_id)]
    per_row = sum(item is not None for item in around)
    num_rows = encoded.num_rows
    if per_row == 0 or num_rows == 0:
        return encoded
    # Rows as binary values: Arrow joins them with the ids at memory speed, where a boolean mask
    # over all ids takes three times as long.
    rows = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(),
        num_rows,
        [None, pa.py_buffer(encoded.offsets * dtype.itemsize), pa.py_buffer(encoded.ids)],
    )
    bos, eos = (pa.scalar(item or b"", pa.large_binary()) for item in around)
    nothing = pa.scalar(b"", pa.large_binary())
    joined = pc.binary_join_element_wise(bos, rows, eos, nothing)  # pyright: ignore[reportAttributeAccessIssue]
    offsets = encoded.offsets + per_row * np.arange(num_rows + 1, dtype=np.int64)
    ids = np.frombuffer(joined.buffers()[2], dtype)[: int(offsets[-1])]
    return Encoded(ids, offsets)


def as_binary(encoded: Encoded, token_dtype: np.dtype) -> pa.LargeBinaryArray:
    """Gives each of n rows as its ids' little-endian bytes, large_binary[n].

    Args:
        encoded: n rows.
        token_dtype: uint16 where every id fits, else uint32.
    """
    dtype = np.dtype(token_dtype).newbyteorder("<")
    data = encoded.ids.astype(dtype, copy=False)
    buffers = [None, pa.py_buffer(encoded.offsets * dtype.itemsize), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), encoded.num_rows, buffers)


def from_lists(rows: Sequence[Sequence[int]]) -> Encoded:
    """Flattens lists of ids, the form the Hugging Face libraries give."""
    offsets = offsets_of(np.fromiter(map(len, rows), np.int64, len(rows)))
    ids = np.empty(int(offsets[-1]), np.uint32)
    for start, row in zip(offsets[:-1].tolist(), rows, strict=True):
        ids[start : start + len(row)] = row
    return Encoded(ids, offsets)


def merge_rows(first: Encoded, second: Encoded, is_second: np.ndarray) -> Encoded:
    """Interleaves two sets of rows back into one.

    Args:
        first: rows for the places where `is_second` is False, in order.
        second: rows for the places where it is True, in order.
        is_second: bool[n], n = rows of both.

    Returns:
        n rows in the order of `is_second`.
    """
    lengths = np.empty(len(is_second), np.int64)
    lengths[~is_second] = np.diff(first.offsets)
    lengths[is_second] = np.diff(second.offsets)
    offsets = offsets_of(lengths)
    from_second = np.repeat(is_second, lengths)
    ids = np.empty(int(offsets[-1]), np.uint32)
    ids[from_second] = second.ids
    ids[~from_second] = first.ids
    return Encoded(ids, offsets)


def differing_rows(left: Encoded, right: Encoded) -> np.ndarray:
    """Rows whose ids are not the same in both, int64[k] ascending; both have the same n rows."""
    left_lengths, right_lengths = np.diff(left.offsets), np.diff(right.offsets)
    same_length = left_lengths == right_lengths
    differs = ~same_length
    left_ids = left.ids[np.repeat(same_length, left_lengths)]
    right_ids = right.ids[np.repeat(same_length, right_lengths)]
    rows = np.repeat(np.arange(len(differs)), np.where(same_length, left_lengths, 0))
    differs[rows[left_ids != right_ids]] = True
    return np.flatnonzero(differs)


def take_rows(encoded: Encoded, rows: np.ndarray) -> Encoded:
    """Rows by index, int64[k], in the order given."""
    starts = encoded.offsets[rows]
    offsets = offsets_of(encoded.offsets[rows + 1] - starts)
    shift = np.repeat(starts - offsets[:-1], np.diff(offsets))
    return Encoded(encoded.ids[np.arange(len(shift)) + shift], offsets)
