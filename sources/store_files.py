"""gs:// and s3:// for `datasets` and Arrow: a read-only fsspec file system, our client below it.

One way to sign in and to try again for the whole job, and no further packages: fsspec's own gcsfs
and s3fs bring some twenty, s3fs with a narrow range of boto versions.
Reads are exact: a range asked for is a range fetched.
"""

import importlib.util
from collections.abc import Mapping
from typing import Any

import fsspec
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from shardstream.shard_format.storage.store_client import get_range, open_bucket, retrying


class StoreFileSystem(AbstractFileSystem):
    """Files of the buckets of one scheme; names are bucket/path, as fsspec has it."""

    def _info(self, path: str) -> dict[str, Any]:
        bucket, _slash, key = path.partition("/")
        url = self.unstrip_protocol(path)
        found = retrying(lambda: open_bucket(str(self.protocol), bucket).head(key), url)
        return _entry(bucket, found)

    def info(self, path: str, **_: object) -> dict[str, Any]:
        """Returns name, size, type, ETag and mtime; FileNotFoundError where there is nothing."""
        path = str(self._strip_protocol(path))
        if "/" in path:
            try:
                return self._info(path)
            except FileNotFoundError:
                pass
        if not self.ls(path):
            raise FileNotFoundError(self.unstrip_protocol(path))
        return {"name": path, "size": 0, "type": "directory"}

    def ls(self, path: str, detail: bool = True, **_: object) -> list:
        """Returns what is directly below a folder; FileNotFoundError where there is nothing."""
        path = str(self._strip_protocol(path))
        bucket, _slash, key = path.partition("/")
        url = self.unstrip_protocol(path)
        found = retrying(
            lambda: open_bucket(str(self.protocol), bucket).list_with_delimiter(key), url
        )
        entries: list[dict[str, Any]] = [_entry(bucket, item) for item in found["objects"]]
        entries += [
            {"name": f"{bucket}/{folder}", "size": 0, "type": "directory"}
            for folder in found["common_prefixes"]
        ]
        if not entries:
            raise FileNotFoundError(url)
        return entries if detail else [entry["name"] for entry in entries]

    def _open(  # as fsspec calls it
        self,
        path: str,
        mode: str = "rb",
        **options: Any,  # noqa: ANN401
    ) -> "StoreFile":
        if mode != "rb":
            raise ValueError(f"{self.unstrip_protocol(path)}: mode is {mode!r}, expected 'rb'")
        options.pop("autocommit", None)
        return StoreFile(self, path, mode, **options)


class GoogleFileSystem(StoreFileSystem):
    """gs://."""

    protocol = "gs"


class AmazonFileSystem(StoreFileSystem):
    """s3://."""

    protocol = "s3"


class StoreFile(AbstractBufferedFile):
    """An object open for reading."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        bucket, _, key = self.path.partition("/")
        url = self.fs.unstrip_protocol(self.path)
        end = min(end, self.size)
        return bytes(get_range(open_bucket(self.fs.protocol, bucket), key, start, end, url))


def register() -> None:
    """Teaches fsspec gs:// and s3:// where it can't open them yet.

    Whoever has gcsfs or s3fs installed keeps it: others in the process may write with it.
    """
    for scheme, package, kind in (
        ("gs", "gcsfs", "GoogleFileSystem"),
        ("s3", "s3fs", "AmazonFileSystem"),
    ):
        if importlib.util.find_spec(package) is None:
            fsspec.register_implementation(scheme, f"{__name__}.{kind}", clobber=True)


def _entry(bucket: str, found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": f"{bucket}/{found['path']}",
        "size": found["size"],
        "type": "file",
        "ETag": found["e_tag"],
        "mtime": found["last_modified"],
    }
