"""One shard on a store, read like a local file: fetched where missing, and again where wrong."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import wait
from typing import Protocol

import numpy as np

from shardstream.loaders.store.cache import StoreCache
from shardstream.shard_format.manifest import Shard

_log = logging.getLogger("shardstream.loaders")


class ReadsRecords(Protocol):
    """An open local shard."""

    def records_at(self, indices: np.ndarray) -> list[bytes]:
        """Returns the records at indices."""
        ...

    def close(self) -> None:
        """Closes it."""
        ...


class CachedShard:
    """A shard on a store, read like a local one.

    Args:
        cache: of the split.
        shard: as the manifest lists it.
        open_file: opens the local copy.
    """

    def __init__(
        self, cache: StoreCache, shard: Shard, open_file: Callable[[str, Shard], ReadsRecords]
    ) -> None:
        self._cache = cache
        self._shard = shard
        self._open_file = open_file
        self._entry = cache.entry_of(shard)
        self._file: ReadsRecords | None = None
        self._lock = threading.Lock()
        self._renewing = threading.Lock()

    @property
    def is_evicted(self) -> bool:
        """Whether it holds on to a local copy that was given up; close it then."""
        return self._entry.is_evicted

    def records_at(self, indices: np.ndarray) -> list[bytes]:
        """Returns the records at indices, fetched first where need be.

        Raises:
            RuntimeError: ArrayRecord found a corrupt chunk, in a copy whose sha256 is right.
            ValueError: the shard isn't the manifest's.
            shard_format.storage.store_client.StoreError: the store failed for too long.
        """
        was_verified = self._cache.is_verified(self._shard)
        try:
            self._fetch(self._cache.units_of(self._shard, indices))
            return self._opened().records_at(indices)
        except (RuntimeError, ValueError) as error:
            if was_verified:
                raise
            _log.warning("%s; fetching the shard anew.", error)
        self._fetch_anew()
        return self._opened().records_at(indices)

    def _fetch_anew(self) -> None:
        """Replaces a copy that is wrong: a byte changed on the way, or a crash left it in part."""
        with self._renewing:
            if self._cache.is_verified(self._shard):  # another thread has just done it
                return
            with self._entry.lock:
                under_way = set(self._entry.pending.values())
            wait(under_way)
            self._entry.forget()
            with self._lock:
                self._file = None  # not closed: other threads may be reading
            self.fetch_all()

    def fetch_all(self) -> None:
        """Returns when the whole shard is on this host and its sha256 is the manifest's."""
        self._fetch(np.arange(self._entry.num_units))
        if not self._cache.is_verified(self._shard):
            self._cache.verify(self._entry)

    def _fetch(self, units: np.ndarray) -> None:
        for future in self._cache.request(self._entry, units):
            future.result()

    def _opened(self) -> ReadsRecords:
        with self._lock:
            file = self._file
            if file is None:
                file = self._file = self._open_file(self._entry.path, self._shard)
            return file

    def close(self) -> None:
        """Closes the local copy, while no read is under way; may be called again."""
        with self._lock:
            file, self._file = self._file, None
        if file is not None:
            file.close()
