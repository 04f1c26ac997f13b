"""Where records of equal size lie in an uncompressed ArrayRecord file, from their numbers alone.

Riegeli, below ArrayRecord: a signature, then chunks of one record each, 44 bytes longer than it up
to the length of a varint, with a header of 24 bytes at every 64 KiB; the index of the chunks comes
last. Places are sure to within a block and a few bytes a record, which units of 1 MiB hardly feel.
"""

import numpy as np

from shard_format.manifest import Shard

_SIGNATURE_BYTES, _CHUNK_BYTES, _HEADER_BYTES, _BLOCK_BYTES = 64, 44, 24, 1 << 16
_UNSURE_BYTES_A_RECORD = 2


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
    place = _places(np.array([0, shard.records]), record_bytes)
    if shard.records == 0 or place[1] > shard.bytes:
        return every
    begin = _places(indices, record_bytes) - _BLOCK_BYTES - _UNSURE_BYTES_A_RECORD * indices
    end = _places(indices + 1, record_bytes) + _BLOCK_BYTES + _UNSURE_BYTES_A_RECORD * indices
    footer = place[1] - _BLOCK_BYTES - _UNSURE_BYTES_A_RECORD * shard.records
    wanted = np.zeros(len(every) + 1, np.int64)
    first = np.concatenate([begin, [0, footer]]) // unit_bytes
    last = np.concatenate([end, [1, shard.bytes]]) - 1
    np.add.at(wanted, np.clip(first, 0, len(every) - 1), 1)
    np.add.at(wanted, np.clip(last // unit_bytes, 0, len(every) - 1) + 1, -1)
    return np.flatnonzero(np.cumsum(wanted[:-1]))


def _places(indices: np.ndarray, record_bytes: int) -> np.ndarray:
    """Returns int64[k], where records begin, to within a few bytes a record."""
    place = _SIGNATURE_BYTES + indices.astype(np.int64) * (record_bytes + _CHUNK_BYTES)
    return place + _HEADER_BYTES * (place // (_BLOCK_BYTES - _HEADER_BYTES) + 1)
