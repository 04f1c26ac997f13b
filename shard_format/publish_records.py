"""Publishes a shard and, where it can be read without ArrayRecord, its records' checksums."""

from collections.abc import Iterable, Iterator

import numpy as np

from shardstream.shard_format.checksums import checksums_of, write_checksums
from shardstream.shard_format.shard_file import FileDigest, ShardOptions, write_records
from shardstream.shard_format.storage import Directory


def publish_records(
    directory: Directory, name: str, blocks: Iterable[np.ndarray], options: ShardOptions
) -> FileDigest:
    """Publishes blocks, each uint8[n, record_bytes], as a shard; see shard_file.write_records."""
    checksums: list[np.ndarray] = []
    with directory.publishing(name) as private:
        digest = write_records(
            private, _summing(blocks, checksums) if options.is_plain else blocks, options
        )
    if options.is_plain:
        write_checksums(directory, name, np.concatenate([np.empty(0, np.uint64), *checksums]))
    return digest


def _summing(blocks: Iterable[np.ndarray], checksums: list[np.ndarray]) -> Iterator[np.ndarray]:
    for block in blocks:
        checksums.append(checksums_of(block, len(block)))
        yield block
