"""Shards of a store on this host's disk, whole or in part, shared by all processes without locks.

    CACHE/shardstream-1/<sha256>/data    a sparse file of the shard's size
    CACHE/shardstream-1/<sha256>/map     16 bytes of magic, then one byte for each unit, 1 if there

An entry is named by its content, so any process of any run may fill it: two that fetch one unit
write the same bytes in the same place, and set the same byte of the map after that. There is
nothing to hold, hence nothing that a killed process could leave held.

An entry appears, and goes, by the rename of its folder. A process that has it open keeps its pair
of files until they are closed, even when it is evicted meanwhile. Only folders of such a name with
such a map in them are ever deleted, and of their content only these two files.
"""

import contextlib
import mmap
import os
import re
import shutil
import threading
import time
import uuid
import weakref
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from shardstream.shard_format.manifest import Shard

FOLDER = "shardstream-1"
UNIT_BYTES = 1 << 20
_MAGIC = b"shardstream map\n"
_NAME = re.compile(r"[0-9a-f]{64}")
_LEFT = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]{32}\.(new|old)")
# A folder that is being made or removed belongs to a live process for no longer than this.
_LEFT_SECS = 3600
_TOUCH_SECS = 5.0
_TRIES = 100  # an entry may be evicted just when it is opened


class CacheEntry:
    """One open entry; its files are closed when nothing refers to it any more.

    Args:
        folder: of the cache.
        shard: as the manifest lists it.

    Attributes:
        present: uint8[units], shared with other processes.
        pending: units being fetched by this process; guarded by `lock`.
        lock: between the threads of this process.
    """

    def __init__(self, folder: Path, shard: Shard) -> None:
        self.shard = shard
        self.num_units = -(-shard.bytes // UNIT_BYTES)
        self.lock = threading.Lock()
        self.pending: dict[int, Future] = {}
        self._touched = 0.0
        self._folder = folder / shard.sha256
        for _ in range(_TRIES):
            if self._open():
                return
            self._make(folder)
        raise FileExistsError(
            f"{self._folder}: expected an entry of the cache (data and map) or nothing, found "
            "something else. Remove it, or give another cache_dir."
        )

    def _open(self) -> bool:
        """Opens both files of one folder, even if its name goes meanwhile."""
        with contextlib.ExitStack() as stack:
            try:
                folder = os.open(self._folder, os.O_RDONLY)
                stack.callback(os.close, folder)
                opened = os.open("map", os.O_RDWR, dir_fd=folder)
                stack.callback(os.close, opened)
                if os.fstat(opened).st_size != len(_MAGIC) + self.num_units:
                    return False
                self._data = os.open("data", os.O_RDWR, dir_fd=folder)
            except FileNotFoundError:
                return False
            weakref.finalize(self, os.close, self._data)
            mapping = mmap.mmap(opened, 0)
        self.present = np.frombuffer(mapping, np.uint8, offset=len(_MAGIC))
        self.touch()
        return True

    def _make(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        private = folder / f".{self.shard.sha256}.{uuid.uuid4().hex}.new"
        private.mkdir()
        with (private / "data").open("wb") as data:
            data.truncate(self.shard.bytes)
        (private / "map").write_bytes(_MAGIC + bytes(self.num_units))
        try:
            private.rename(self._folder)
        except OSError:  # another process was first
            shutil.rmtree(private)

    @property
    def path(self) -> str:
        """Where the data can be opened, evicted or not."""
        return f"/dev/fd/{self._data}" if self.is_evicted else str(self._folder / "data")

    @property
    def is_evicted(self) -> bool:
        """Whether the entry's files have no name any more."""
        return os.fstat(self._data).st_nlink == 0

    @property
    def num_missing(self) -> int:
        """Units that are not there."""
        return self.num_units - int(np.count_nonzero(self.present))

    def missing(self, units: np.ndarray) -> np.ndarray:
        """Returns those of the units that are not there."""
        return units[self.present[units] == 0]

    def write(self, unit: int, data: memoryview) -> None:
        """Puts the bytes of consecutive units in place, of which `unit` is the first."""
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._data, data[done:], unit * UNIT_BYTES + done)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{self._folder}: can't be written to ({error.strerror}). Give a cache_dir with "
                "room for cache_bytes.",
            ) from error

    def announce(self, units: range) -> None:
        """Says that units are there, and takes them from those that are being fetched."""
        self.present[units.start : units.stop] = 1
        for unit in units:
            self.pending.pop(unit, None)

    def forget(self) -> None:
        """Declares every unit missing."""
        self.present[:] = 0

    def touch(self) -> None:
        """Tells all processes that the entry is in use."""
        now = time.monotonic()
        if now - self._touched > _TOUCH_SECS:
            self._touched = now
            with contextlib.suppress(FileNotFoundError):
                os.utime(self._folder / "map")


def list_entries(folder: Path) -> list[tuple[float, int, Path]]:
    """Returns (last use, bytes on disk, folder) of all entries, the longest unused first."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if _NAME.fullmatch(path.name):
                with contextlib.suppress(FileNotFoundError):
                    used = (path / "map").stat().st_mtime
                    found.append((used, (path / "data").stat().st_blocks * 512, path))
    return sorted(found)


def evict(path: Path) -> None:
    """Removes an entry; nothing happens where another process did, or where it is no entry."""
    try:
        with (path / "map").open("rb") as file:
            if not _NAME.fullmatch(path.name) or file.read(len(_MAGIC)) != _MAGIC:
                return
        gone = path.with_name(f".{path.name}.{uuid.uuid4().hex}.old")
        path.rename(gone)
    except FileNotFoundError:
        return
    _remove(gone)


def remove_leftovers(folder: Path) -> None:
    """Removes what processes that were killed while they made or evicted an entry left."""
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if _LEFT.fullmatch(path.name) and time.time() - path.stat().st_mtime > _LEFT_SECS:
                    _remove(path)


def _remove(folder: Path) -> None:
    for name in ("data", "map"):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds a file that isn't ours
        folder.rmdir()
