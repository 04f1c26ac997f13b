"""A dataset directory on a local or mounted file system."""

# ruff: noqa: D102 (Directory describes the methods)

import contextlib
import ctypes
import mmap
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from shardstream.shard_format.storage.directory import Directory, too_short
from shardstream.shard_format.storage.local_publish import (
    PRIVATE_PATTERN,
    private_name,
    publishing_file,
    sync,
)

_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01


def _find_fallocate() -> Callable[[int, int, int, int], int] | None:
    """Returns Linux' fallocate, which Python has only a part of; None elsewhere."""
    try:
        found = ctypes.CDLL(None).fallocate
    except (AttributeError, OSError, TypeError):
        return None
    found.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return found


_fallocate = _find_fallocate()


class LocalDirectory(Directory):
    """Files below a path; see Directory for what is promised.

    Args:
        root: path of the directory; made on the first write.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        text = os.fspath(root)
        if re.match(r"(gs|s3):/", text):
            raise ValueError(
                f"{text}: expected gs://bucket/prefix or s3://bucket/prefix, a store's address, or "
                "a path. Give it as a str: a Path drops the second slash."
            )
        self.root = Path(text).expanduser().absolute()

    def __str__(self) -> str:
        return str(self.root)

    def path(self, name: str) -> Path:
        """Returns the path of a file, which need not exist."""
        return self.root / name

    local_path = path

    def where(self, name: str) -> str:
        return str(self.path(name))

    def size(self, name: str) -> int | None:
        try:
            return self.path(name).stat().st_size
        except FileNotFoundError:
            return None

    def list(self, prefix: str = "", *, recursive: bool = True) -> list[str]:
        pattern = "**/*" if recursive else "*"
        return sorted(
            path.relative_to(self.root).as_posix()
            for path in self.path(prefix).glob(pattern)
            if path.is_file() and not path.name.startswith(".")
        )

    def read(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def read_range(self, name: str, begin: int, end: int) -> memoryview:
        with self.path(name).open("rb") as file:
            if begin == end:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))[begin:end]

    def read_into(self, name: str, begin: int, into: np.ndarray) -> None:
        with open(self.path(name), "rb", buffering=0) as file:
            file.seek(begin)
            read = 0
            while read < len(into):
                count = file.readinto(into.data[read:])
                if not count:
                    raise OSError(too_short(self.where(name), begin, len(into), read))
                read += count

    def release_range(self, name: str, begin: int, end: int) -> None:
        if _fallocate is None:
            return
        # A file system without holes refuses, and keeps what it has; a finished job has removed it.
        with contextlib.suppress(OSError), open(self.path(name), "r+b", buffering=0) as file:
            _fallocate(file.fileno(), _PUNCH_HOLE_KEEP_SIZE, begin, end - begin)

    def create(self, name: str, data: bytes) -> bool:
        private = private_name(self.path(name))
        try:
            private.write_bytes(data)
            sync(private)
            os.link(private, self.path(name))
        except FileExistsError:
            return False
        finally:
            private.unlink(missing_ok=True)
        return True

    @contextlib.contextmanager
    def publishing(self, name: str, *, durable: bool = True) -> Iterator[Path]:
        """See Directory.

        A process killed inside leaves a private file that no reader lists; `remove_private`
        clears them.
        """
        with publishing_file(self.path(name), durable=durable) as private:
            yield private

    @contextlib.contextmanager
    def publishing_folder(self, name: str) -> Iterator[Path]:
        self.path(name).mkdir(parents=True, exist_ok=True)
        yield self.path(name)

    @contextlib.contextmanager
    def fetching(self, name: str) -> Iterator[Path]:
        yield self.path(name)

    def remove(self, name: str) -> None:
        path = self.path(name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def remove_private(self) -> None:
        for path in self.root.rglob(PRIVATE_PATTERN):
            path.unlink(missing_ok=True)
