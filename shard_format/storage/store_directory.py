"""A dataset directory on an object store: gs://bucket/prefix or s3://bucket/prefix.

An object appears whole when its upload ends, so publishing is one upload of a finished local file,
without private names and renames, which stores don't offer. A writer that is killed leaves an
unfinished upload, which no reader sees; the lifecycle rules of the bucket clear those.
"""

# ruff: noqa: D102 (Directory describes the methods)

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shardstream.shard_format.storage.directory import Directory
from shardstream.shard_format.storage.store_client import (
    BrokenOffError,
    get_range,
    open_bucket,
    retrying,
    split_url,
)

# Larger uploads are multipart uploads, several parts at a time; each is repeated alone on failure.
_PART_BYTES = 16 << 20
_PARTS_AT_ONCE = 4
_MAX_PARTS = 9_000  # stores allow 10,000


class StoreDirectory(Directory):
    """Objects below a prefix; see Directory for what is promised.

    Args:
        root: gs://bucket/prefix or s3://bucket/prefix.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.scheme, self.bucket, self._prefix = split_url(os.fspath(root))
        self._store = open_bucket(self.scheme, self.bucket)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self._prefix}".rstrip("/")

    def where(self, name: str) -> str:
        return f"{self}/{name}".rstrip("/")

    def local_path(self, name: str) -> None:
        return None

    def size(self, name: str) -> int | None:
        try:
            found = retrying(lambda: self._store.head(self._key(name)), self.where(name))
        except FileNotFoundError:
            return None
        return found["size"]

    def list(self, prefix: str = "", *, recursive: bool = True) -> list[str]:
        key = self._key(prefix)

        def names() -> list[str]:
            if not recursive:
                return [entry["path"] for entry in self._store.list_with_delimiter(key)["objects"]]
            return [entry["path"] for page in self._store.list(key) for entry in page]

        cut = len(self._prefix) + 1 if self._prefix else 0
        return sorted(name[cut:] for name in retrying(names, self.where(prefix)))

    def read(self, name: str) -> bytes:
        return retrying(
            lambda: self._store.get(self._key(name)).bytes().to_bytes(), self.where(name)
        )

    def read_range(self, name: str, begin: int, end: int) -> memoryview:
        return get_range(self._store, self._key(name), begin, end, self.where(name))

    def read_part(self, name: str, begin: int, end: int) -> tuple[memoryview, int]:
        """Returns bytes begin to end - 1 of a file, and the bytes that all of it has.

        Fewer bytes, where the file ends before that.
        """
        key = self._key(name)

        def get() -> tuple[memoryview, int]:
            try:
                found = self._store.get(key, options={"range": (begin, end)})
                data = memoryview(found.bytes())
            except Exception as error:
                if "range" not in str(error).lower():
                    raise
                size = self._store.head(key)["size"]
                if size >= end:
                    raise
                return memoryview(b""), size
            size = found.meta["size"]
            if len(data) != min(end, size) - begin:
                raise BrokenOffError(f"{len(data)} bytes from {begin} on, expected {end - begin}")
            return data, size

        return retrying(get, self.where(name))

    def create(self, name: str, data: bytes) -> bool:
        try:
            retrying(
                lambda: self._store.put(self._key(name), data, mode="create"), self.where(name)
            )
        except FileExistsError:
            # Ours, if the answer to an earlier attempt was lost on the way.
            return self.find(name) == data
        return True

    def write(self, name: str, data: bytes) -> None:
        retrying(lambda: self._store.put(self._key(name), data), self.where(name))

    @contextlib.contextmanager
    def publishing(self, name: str, *, durable: bool = True) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="shardstream-") as folder:
            private = Path(folder) / "private"
            yield private
            self._upload(private, name)

    @contextlib.contextmanager
    def publishing_folder(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="shardstream-") as text:
            folder = Path(text)
            yield folder
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    self._upload(path, f"{name}/{path.relative_to(folder).as_posix()}")

    def _upload(self, path: Path, name: str) -> None:
        part = max(_PART_BYTES, path.stat().st_size // _MAX_PARTS)

        def upload() -> None:
            self._store.put(self._key(name), path, chunk_size=part, max_concurrency=_PARTS_AT_ONCE)

        retrying(upload, self.where(name))

    @contextlib.contextmanager
    def fetching(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="shardstream-") as text:
            folder = Path(text) / Path(name).name
            inside = self.list(name)
            for file in inside or [name]:
                target = folder / file[len(name) + 1 :]
                target.parent.mkdir(parents=True, exist_ok=True)
                self._download(file, target)
            yield folder

    def _download(self, name: str, target: Path) -> None:
        def download() -> None:
            with target.open("wb") as file:
                for chunk in self._store.get(self._key(name)).stream():
                    file.write(chunk)

        retrying(download, self.where(name))

    def remove(self, name: str) -> None:
        for found in [*self.list(name), name]:
            with contextlib.suppress(FileNotFoundError):
                self._delete(found)

    def _delete(self, name: str) -> None:
        retrying(lambda: self._store.delete(self._key(name)), self.where(name))

    def remove_private(self) -> None:
        """Does nothing: an unfinished upload has no name."""

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}".strip("/")
