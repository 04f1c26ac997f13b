"""Reads shards that live on a store: fetched by ranges ahead of need, kept on this host's disk.

What a read wants is fetched in units of 1 MiB, several requests at a time, and stays in the cache
(cache_entry.py) until others need the room. Where records are of one size on disk (no compression,
one record a chunk: what the pipeline writes by default) the bytes of a record follow from its
number, so a block of a shard costs that block; other shards are fetched whole.

Nothing is trusted: every answer tells the object's size, which must be the manifest's; ArrayRecord
checks a hash of every chunk it reads; and when its last unit is in, a shard's sha256 is compared
with the manifest's. A read that fails is done again on a fresh copy before its error is raised.
"""

import logging
import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from shardstream.loaders.store.cache_entry import (
    FOLDER,
    UNIT_BYTES,
    CacheEntry,
    evict,
    list_entries,
    remove_leftovers,
)
from shardstream.loaders.store.units import units_of_records
from shardstream.shard_format.manifest import Manifest, Shard
from shardstream.shard_format.shard_file import digest_of
from shardstream.shard_format.storage.store_directory import StoreDirectory

_log = logging.getLogger("shardstream.loaders")

_REQUEST_BYTES = 2 << 20
# Entries that reads under way and reads ahead (buffer_rows: 12 rounds) use at the same time, and as
# many again: evicting one of them would fetch it twice.
_ENTRIES_IN_USE = 24
# Other processes' fetches are noticed after this fraction of the budget.
_LOOK_AGAIN = 16


def default_cache_dir() -> Path:
    """Returns where shards are kept unless `cache_dir` says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shardstream"


class StoreCache:
    """The shards of one split, on a store, through the cache of this host.

    Args:
        directory: of the dataset.
        manifest: of the dataset.
        shards: of the split.
        cache_dir: any directory; None for ~/.cache/shardstream.
        cache_bytes: that all entries of the cache may take together; None for half of what is free.
        num_requests: to the store at the same time.

    Guarantees: the cache may pass its budget by a sixteenth for each further process that fills it
        at the same time, not more. Entries of other datasets count too, and go first if they were
        used the longest ago.

    Raises:
        ValueError: the budget is too small to work with.
    """

    def __init__(
        self,
        directory: StoreDirectory,
        manifest: Manifest,
        shards: tuple[Shard, ...],
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_bytes: int | None = None,
        num_requests: int = 16,
    ) -> None:
        self._directory = directory
        self._manifest = manifest
        self._shards = shards
        self.folder = Path(cache_dir or default_cache_dir()).expanduser().absolute() / FOLDER
        self._num_requests = num_requests
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._entries: WeakValueDictionary[str, CacheEntry] = WeakValueDictionary()
        self._verified: set[str] = set()
        self.bytes_fetched = 0
        self.evictions = 0  # times that some were evicted
        options = manifest.options
        self._by_ranges = options.get("compression") == "none" and options.get("group_size") == 1
        remove_leftovers(self.folder)
        self._used = sum(size for _, size, _ in list_entries(self.folder))
        self._fetched_since = 0
        if cache_bytes is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            cache_bytes = self._used + shutil.disk_usage(self.folder).free // 2
        self.budget_bytes = cache_bytes
        self._check_budget()

    def extend(self, shards: Sequence[Shard]) -> None:
        """Takes further shards of the split, a stream's as they are committed.

        Raises:
            ValueError: the budget is too small for them.
        """
        self._shards = (*self._shards, *shards)
        self._check_budget()

    def _check_budget(self) -> None:
        if not self._shards:
            return
        largest = max(shard.bytes for shard in self._shards)
        entry = min(largest, 8 * UNIT_BYTES) if self._by_ranges else largest
        whole = sum(shard.bytes for shard in self._shards)
        least = min(whole, _ENTRIES_IN_USE * entry)
        if self.budget_bytes < least:
            raise ValueError(
                f"cache_bytes is {self.budget_bytes}, expected at least {least} for this dataset "
                f"({_ENTRIES_IN_USE} shards being read, {entry} bytes each): less would fetch the "
                f"same bytes again and again. All of the split takes {whole}. Raise cache_bytes, "
                f"or give a cache_dir with more room than {self.folder}."
            )

    def expect(self, shard: Shard, indices: np.ndarray) -> None:
        """Begins to fetch records of a shard, which will be read soon."""
        entry = self.entry_of(shard)
        self.request(entry, self.units_of(shard, indices))

    def entry_of(self, shard: Shard) -> CacheEntry:
        """Returns the open entry of a shard; a new one where the last was evicted."""
        with self._lock:
            entry = self._entries.get(shard.sha256)
            if entry is None or entry.is_evicted:
                entry = self._entries[shard.sha256] = CacheEntry(self.folder, shard)
            return entry

    def units_of(self, shard: Shard, indices: np.ndarray) -> np.ndarray:
        """Returns int64[n], the units that hold records and what opening the shard needs."""
        if not self._by_ranges:
            return np.arange(-(-shard.bytes // UNIT_BYTES))
        record_bytes = self._manifest.layout(shard).record_bytes
        return units_of_records(shard, indices, record_bytes=record_bytes, unit_bytes=UNIT_BYTES)

    def request(self, entry: CacheEntry, units: np.ndarray) -> list[Future]:
        """Begins to fetch what is missing of the units; returns what to wait for."""
        entry.touch()
        if len(entry.missing(units)) == 0:
            return []
        with entry.lock:
            missing = entry.missing(units).tolist()
            waiting = {entry.pending[unit] for unit in missing if unit in entry.pending}
            fresh = np.array([unit for unit in missing if unit not in entry.pending], np.int64)
            longest = max(1, _REQUEST_BYTES // UNIT_BYTES)
            for run in np.split(fresh, np.flatnonzero(np.diff(fresh) != 1) + 1):
                for at in range(0, len(run), longest):
                    piece = run[at : at + longest].tolist()
                    future = self._pool().submit(self._fetch, entry, piece[0], len(piece))
                    entry.pending.update(dict.fromkeys(piece, future))
                    waiting.add(future)
        return list(waiting)

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._num_requests, "fetch-shards")
            return self._executor

    def _fetch(self, entry: CacheEntry, unit: int, count: int) -> None:
        begin = unit * UNIT_BYTES
        end = min(begin + count * UNIT_BYTES, entry.shard.bytes)
        units = range(unit, unit + count)
        try:
            self._make_room(end - begin)
            data, size = self._directory.read_part(entry.shard.file, begin, end)
            if size != entry.shard.bytes:
                raise ValueError(self._wrong(entry.shard, f"{size} bytes"))
            entry.write(unit, data)
            with self._lock:
                self.bytes_fetched += end - begin
            with entry.lock:
                if len(entry.pending) > count or entry.num_missing > count:
                    entry.announce(units)
                    return
            self.verify(entry)  # these units make it whole, so waiting for them includes this
            with entry.lock:
                entry.announce(units)
        finally:
            with entry.lock:
                for i in units:
                    entry.pending.pop(i, None)

    def verify(self, entry: CacheEntry) -> None:
        """Compares a shard that has become whole with the manifest.

        Raises:
            ValueError: its sha256 is another; the local copy is forgotten.
        """
        sha256 = digest_of(entry.path).sha256
        if sha256 != entry.shard.sha256:
            entry.forget()
            raise ValueError(self._wrong(entry.shard, f"sha256 {sha256}"))
        with self._lock:
            self._verified.add(entry.shard.sha256)

    def is_verified(self, shard: Shard) -> bool:
        """Whether this process has compared the local copy with the manifest."""
        return shard.sha256 in self._verified

    def _wrong(self, shard: Shard, found: str) -> str:
        return (
            f"{self._directory.where(shard.file)}: expected {shard.bytes} bytes with sha256 "
            f"{shard.sha256} (dataset.json), found {found}. The shard is damaged or of another "
            "run: copy it again or rebuild the dataset."
        )

    def _make_room(self, size: int) -> None:
        """Evicts entries, the longest unused first, until size more bytes fit the budget."""
        with self._lock:
            self._fetched_since += size
            self._used += size
            look = self._fetched_since > self.budget_bytes // _LOOK_AGAIN
            if self._used <= self.budget_bytes and not look:
                return
            self._fetched_since = 0
            entries = list_entries(self.folder)
            # Fetches under way are counted as done, or all of them would find room for one.
            self._used = sum(held for _, held, _ in entries) + size * self._num_requests
            if self._used <= self.budget_bytes:
                return
            for _, held, path in entries:
                evict(path)
                self._used -= held
                # A little more than needed, so that not every fetch has to look.
                if self._used <= self.budget_bytes - self.budget_bytes // _LOOK_AGAIN:
                    break
            for key in [key for key, entry in self._entries.items() if entry.is_evicted]:
                del self._entries[key]
            self.evictions += 1

    def close(self) -> None:
        """Ends the fetching threads; the cache stays."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)
