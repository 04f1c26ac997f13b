"""Which shards' files are open: the last ones used, as many as the system and the caller allow."""

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from shardstream.loaders.store.cache import StoreCache

# Open at a time for each shard; a cached one's data and map as well.
_FILES_A_SHARD, _FILES_A_CACHED_SHARD = 1, 3


class OpenShard(Protocol):
    """A shard whose records can be read."""

    def records_at(self, indices: np.ndarray) -> list[bytes]:
        """Returns the records at indices."""
        ...

    def close(self) -> None:
        """Closes it."""
        ...


@runtime_checkable
class _MayBeEvicted(Protocol):
    """A shard of a store, whose local copy may be given up while it is open."""

    @property
    def is_evicted(self) -> bool: ...


@dataclasses.dataclass
class _Entry:
    lock: threading.Lock
    file: OpenShard | None = None
    users: int = 0


class OpenShards:
    """Opens shards when they are first needed; any thread may call.

    Args:
        open_shard: opens the shard of an index.
        max_open: open at a time, at most half of what the system allows.
        cache: of a store's shards, whose evicted copies are closed too; None for local files.
    """

    def __init__(
        self,
        open_shard: Callable[[int], OpenShard],
        max_open: int,
        cache: "StoreCache | None",
    ) -> None:
        files_a_shard = _FILES_A_SHARD if cache is None else _FILES_A_CACHED_SHARD
        self._max_open = min(max_open, max(1, _file_limit() // 2 // files_a_shard))
        self._open_shard, self._cache = open_shard, cache
        self._evictions = 0
        self._open: OrderedDict[int, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def lease(self, index: int) -> Iterator[OpenShard]:
        """Yields an open shard that isn't closed meanwhile."""
        with self._lock:
            entry = self._open.setdefault(index, _Entry(threading.Lock()))
            self._open.move_to_end(index)
            entry.users += 1
        try:
            with entry.lock:
                file = entry.file
                if file is None:
                    file = entry.file = self._open_shard(index)
            yield file
        finally:
            with self._lock:
                entry.users -= 1
                closing = [self._open.pop(i) for i in self._surplus()]
            for old in closing:
                if old.file is not None:
                    old.file.close()

    def _surplus(self) -> list[int]:
        """Returns idle shards to close: too many, or evicted copies that still take room."""
        excess = max(0, len(self._open) - self._max_open)
        evictions = 0 if self._cache is None else self._cache.evictions
        if not excess and evictions == self._evictions:
            return []
        idle = [i for i, entry in self._open.items() if entry.users == 0]
        if evictions == self._evictions:
            return idle[:excess]
        self._evictions = evictions
        files = [(i, self._open[i].file) for i in idle[excess:]]
        evicted = [i for i, file in files if isinstance(file, _MayBeEvicted) and file.is_evicted]
        return idle[:excess] + evicted

    def close(self) -> None:
        """Closes all files; the next lease opens them again."""
        with self._lock:
            entries = list(self._open.values())
            self._open.clear()
        for entry in entries:
            with entry.lock:
                if entry.file is not None:
                    entry.file.close()


def _file_limit() -> int:
    """Returns how many files this process may open."""
    try:
        import resource
    except ImportError:  # not on this system
        return 512
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
