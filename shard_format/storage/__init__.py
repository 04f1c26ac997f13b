"""Where a dataset directory lives: a local disk, or a store (gs://, s3://)."""

import os

from shardstream.shard_format.storage.directory import Directory
from shardstream.shard_format.storage.local_directory import LocalDirectory

__all__ = ["Directory", "open_directory"]


def open_directory(root: str | os.PathLike[str]) -> Directory:
    """Returns the dataset directory at root; nothing is made before the first write.

    Args:
        root: a path, or gs://bucket/prefix, s3://bucket/prefix.
    """
    if "://" in os.fspath(root):
        from shardstream.shard_format.storage.store_directory import (
            StoreDirectory,  # needs a store's client
        )

        return StoreDirectory(root)
    return LocalDirectory(root)
