"""Which units of a shard on a store have to be fetched, from the numbers of its records alone."""

import numpy as np

from shardstream.shard_format.manifest import Shard
from shardstream.shard_format.record_places import file_places, stream_places

# Around a record: its chunk's header, block headers, and what ArrayRecord looks at beside them.
_MARGIN_BYTES = 1 << 16


def units_of_records(
    shard: Shard, indices: np.ndarray, *, record_bytes: int, unit_bytes: int
) -> np.ndarray:
    """Returns int64[n], ascending: the units that hold records, and what opening the file needs.

    Args:
        shard: with one record a chunk, uncompressed.
        indices: int64[k], records.
        record_bytes: of each.
        unit_bytes: unit i is bytes [i * unit_bytes, (i + 1) * unit_bytes) of the file.
    """
    every = np.arange(-(-shard.bytes // unit_bytes))
    footer = int(_places(np.array(shard.records), record_bytes))
    if shard.records == 0 or footer > shard.bytes:
        return every
    begin = _places(indices, record_bytes) - _MARGIN_BYTES
    end = _places(indices + 1, record_bytes) + _MARGIN_BYTES
    wanted = np.zeros(len(every) + 1, np.int64)
    first = np.concatenate([begin, [0, footer - _MARGIN_BYTES]]) // unit_bytes
    last = np.concatenate([end, [1, shard.bytes]]) - 1
    np.add.at(wanted, np.clip(first, 0, len(every) - 1), 1)
    np.add.at(wanted, np.clip(last // unit_bytes, 0, len(every) - 1) + 1, -1)
    return np.flatnonzero(np.cumsum(wanted[:-1]))


def _places(indices: np.ndarray, record_bytes: int) -> np.ndarray:
    """Returns int64[k], where records begin in the file."""
    return file_places(stream_places(indices, record_bytes))
