"""A checksum of each record, in a file beside its shard: it lets a reader pass ArrayRecord by.

    checksums/train-00000-of-00064.xxh3      N x uint64, little-endian, XXH3 of record 0, 1, ...

ArrayRecord checks a hash of every chunk, in a reader that costs far more than the read itself.
Where records lie at known places (plain_shard.py), they are read without that reader and compared
with these checksums. The files are optional: a dataset without them is complete, and a wrong one is
detected, since a record that doesn't match is read again through ArrayRecord.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import xxhash

from shardstream.shard_format import naming
from shardstream.shard_format.storage import Directory

_DTYPE = np.dtype("<u8")
_digest: Callable[[Any], int] = xxhash.xxh3_64_intdigest  # of anything with a buffer, arrays too


def checksums_of(records: Iterable[bytes | np.ndarray], count: int = -1) -> np.ndarray:
    """Returns uint64[N], the checksum of each record.

    Args:
        records: bytes, or contiguous rows of an array.
        count: how many there are, where the caller knows.
    """
    return np.fromiter(map(_digest, records), _DTYPE, count)


def write_checksums(directory: Directory, shard: str, checksums: np.ndarray) -> None:
    """Publishes the checksums of a shard's records, uint64[N]."""
    with directory.publishing(naming.checksums_name(shard), durable=False) as private:
        private.write_bytes(checksums.astype(_DTYPE, copy=False).tobytes())


def find_checksums(directory: Directory, shard: str, num_records: int) -> np.ndarray | None:
    """Returns uint64[N], the checksums of a shard's records; None where there are none for it."""
    content = directory.find(naming.checksums_name(shard))
    if content is None or len(content) != num_records * _DTYPE.itemsize:
        return None
    return np.frombuffer(content, _DTYPE)
