"""Arrow's own buffers of strings and binaries as NumPy arrays: views, nothing is copied.

The one place that knows how large_string and large_binary lie in memory: int64[n + 1] offsets into
a buffer of bytes, of which an array may be a slice.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pyarrow as pa

Values: TypeAlias = pa.LargeStringArray | pa.LargeBinaryArray


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Returns int64[n + 1], where each of n rows begins and the last one ends, from int[n]."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def value_offsets(values: Values) -> np.ndarray:
    """Returns int64[n + 1], the offsets of n values into `value_bytes`."""
    if len(values) == 0:
        return np.zeros(1, np.int64)
    return np.frombuffer(values.buffers()[1], np.int64)[values.offset :][: len(values) + 1]


def value_bytes(values: Values) -> np.ndarray:
    """Returns uint8[b], the whole buffer of an array's values; slices share it."""
    buffer = values.buffers()[2]
    return np.zeros(0, np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8)


def value_nbytes(values: Values) -> int:
    """Returns the bytes of all values together."""
    offsets = value_offsets(values)
    return int(offsets[-1] - offsets[0])
