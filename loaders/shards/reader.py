"""Reads records of a split, by their numbers, into arrays of tokens and lengths.

Records are counted over the split's shards in manifest order. Shards are opened when first needed,
at most `max_open_shards` at a time, and compared with the manifest then: nothing of the dataset but
dataset.json is touched when a loader is built. Reads run on any number of threads at
once.
"""

import itertools
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shardstream.loaders.arena import Arena
from shardstream.loaders.options import ReadOptions
from shardstream.loaders.order.epochs import PADDING
from shardstream.loaders.shards.bad_records import BadRecords, read_around
from shardstream.loaders.shards.open_shards import OpenShard, OpenShards
from shardstream.loaders.shards.rows import Rows
from shardstream.shard_format.checksums import find_checksums
from shardstream.shard_format.manifest import Manifest, Shard
from shardstream.shard_format.plain_shard import PlainShard, can_read_plainly
from shardstream.shard_format.record import RecordLayout, decode_records, encode_records
from shardstream.shard_format.shard_file import ShardFile, digest_of
from shardstream.shard_format.storage import Directory

if TYPE_CHECKING:
    from shardstream.loaders.store.cache import StoreCache


# ArrayRecord is asked for this much at a time. Its own copies then stay in the processor's cache,
# in memory that malloc has at hand: 1.1 ms of processor time a million tokens, 1.7 with 2**20 and
# 2.7 with 2**22, where most of it goes into fresh pages (4 KB records, 2 threads on 2 cores).
_CALL_BYTES = 2**18
# Read in place at a time: a block of the shuffle buffer whole, since between two pieces a thread
# waits for Python's lock (760 Mtok/s with 2**20, 930 with 2**21, 1,050 with this; L=2048, 2 cores).
_BLOCK_BYTES = 2**22


class ShardSet:
    """The shards of one split.

    Args:
        directory: of the dataset.
        manifest: of the dataset.
        shards: of the split, in order; a stream's may be none yet.
        options: how to read.
    """

    def __init__(
        self,
        directory: Directory,
        manifest: Manifest,
        shards: Sequence[Shard],
        options: ReadOptions,
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self.bad = BadRecords(options.on_bad_record, options.bad_record_budget)
        self.bytes_read = 0
        self._options = options
        self.shards: tuple[Shard, ...] = ()
        self._cache = self._open_cache(directory)
        self._open = OpenShards(
            lambda index: self._open_shard(self.shards[index]), options.max_open_shards, self._cache
        )
        self._verified: set[int] = set()
        self._arena = Arena()
        self._reading: dict[int, str] = {}
        self.extend(shards)

    def extend(self, shards: Sequence[Shard]) -> None:
        """Adds shards after the others; reads of those may go on meanwhile."""
        if self._cache is not None:
            self._cache.extend(shards)
        self.shards = (*self.shards, *shards)
        # Replaced in this order: a reader never finds a record whose shard it doesn't know.
        self._first = np.cumsum([0, *(shard.records for shard in self.shards)])
        self.layout = RecordLayout(
            sequence_length=self.manifest.sequence_length,
            token_dtype=self.manifest.token_dtype,
            max_segments=max((shard.max_segments for shard in self.shards), default=2),
        )
        tokens = np.full((1, self.layout.sequence_length), self.manifest.pad_id)
        lengths = np.zeros((1, self.layout.max_segments), np.int64)
        self._empty = encode_records(tokens, lengths, self.layout).tobytes()

    @property
    def num_shards(self) -> int:
        """Shards of the split."""
        return len(self.shards)

    def num_shards_for(self, num_records: int) -> int:
        """Returns how many shards, from the first on, hold the first num_records."""
        return int(np.searchsorted(self._first, num_records))

    def _open_cache(self, directory: Directory) -> "StoreCache | None":
        """Returns the cache of a dataset on a store; files of a local one are read in place."""
        if directory.local_path("") is not None:
            return None
        from shardstream.loaders.store.cache import StoreCache
        from shardstream.shard_format.storage.store_directory import StoreDirectory

        assert isinstance(directory, StoreDirectory)
        return StoreCache(
            directory,
            self.manifest,
            self.shards,
            cache_dir=self._options.cache_dir,
            cache_bytes=self._options.cache_bytes,
            num_requests=self._options.store_requests,
        )

    @property
    def is_local(self) -> bool:
        """Whether shards are files of this host, so that nothing need be fetched."""
        return self._cache is None

    @property
    def num_open(self) -> int:
        """Shards that are open now."""
        return len(self._open)

    @property
    def num_records(self) -> int:
        """Records of the split."""
        return int(self._first[-1])

    def make_rows(self, count: int, *, lengths: bool) -> Rows:
        """Returns room for count records; not cleared."""
        layout = self.layout
        tokens = self._arena.empty((count, layout.sequence_length), layout.token_dtype)
        if not lengths:
            return Rows(tokens, None)
        dtype = layout.lengths_dtype.newbyteorder("=")
        return Rows(tokens, self._arena.empty((count, layout.max_segments), dtype))

    def locate(self, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns int64 arrays (shard, record inside it) of records of the split."""
        shard = np.searchsorted(self._first, records, side="right") - 1
        return shard, records - self._first[shard]

    def expect_range(self, begin: int, count: int) -> None:
        """Begins to fetch what read_range of the same records will read; for stores only."""
        assert self._cache is not None
        done = 0
        while done < count:
            shard, index = self.locate(np.array((begin + done) % self.num_records))
            end = min(int(index) + count - done, self.shards[int(shard)].records)
            self._cache.expect(self.shards[int(shard)], np.arange(int(index), end))
            done += end - int(index)

    def expect_records(self, records: np.ndarray) -> None:
        """Begins to fetch what read_of_one_shard of the same records will read; for stores only."""
        assert self._cache is not None
        if records[0] != PADDING:
            shard, index = self.locate(records)
            self._cache.expect(self.shards[int(shard[0])], index)

    def read_range(self, begin: int, count: int, into: Rows, rows: np.ndarray) -> None:
        """Reads count records from begin on into rows; goes on at record 0 past the split's end."""
        done = 0
        while done < count:
            shard, index = self.locate(np.array((begin + done) % self.num_records))
            end = min(int(index) + count - done, self.shards[int(shard)].records)
            count_here = end - int(index)
            self._read(int(shard), np.arange(int(index), end), into, rows[done : done + count_here])
            done += count_here

    def read_records(self, records: np.ndarray, into: Rows, rows: np.ndarray) -> None:
        """Reads any records into rows, shard by shard; PADDING empties its row."""
        for places in self.by_shard(records):
            self.read_of_one_shard(records[places], into, rows[places])

    def by_shard(self, records: np.ndarray) -> list[np.ndarray]:
        """Returns int64 index arrays that divide records by shard, sorted inside, PADDING first."""
        if len(records) == 0:
            return []
        order = np.argsort(records, kind="stable")
        ranked = records[order]
        edges = np.searchsorted(ranked, self._first)
        edges = np.unique(np.concatenate([[0], edges, [len(records)]]))
        return [order[a:b] for a, b in itertools.pairwise(edges)]

    def read_of_one_shard(self, records: np.ndarray, into: Rows, rows: np.ndarray) -> None:
        """Reads records of one shard (places that by_shard gave) into rows."""
        if records[0] == PADDING:
            into.put_records(rows, [self._empty] * len(rows))
            return
        shard, index = self.locate(records)
        self._read(int(shard[0]), index, into, rows)

    def _read(self, shard: int, index: np.ndarray, into: Rows, rows: np.ndarray) -> None:
        entry = self.shards[shard]
        me = threading.get_ident()
        self._reading[me] = f"{entry.file}, records {index[0]} to {index[-1]}"
        record_bytes = self.manifest.layout(entry).record_bytes
        try:
            with self._open.lease(shard) as file:
                if isinstance(file, PlainShard) and file.is_plain:
                    index, rows = self._read_plainly(file, entry, index, into, rows)
                size = max(1, _CALL_BYTES // record_bytes)
                for begin in range(0, len(index), size):
                    piece = slice(begin, begin + size)
                    records = read_around(
                        file.records_at, index[piece], entry, self.bad, self._empty
                    )
                    into.put_records(rows[piece], records)
                    self.bytes_read += len(records) * record_bytes  # threads may lose some
        finally:
            del self._reading[me]

    def _read_plainly(
        self, file: PlainShard, entry: Shard, index: np.ndarray, into: Rows, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reads records of a shard in place; returns those that can't be, and their rows."""
        layout = self.manifest.layout(entry)
        size = max(1, _BLOCK_BYTES // layout.record_bytes)
        left = np.zeros(len(index), bool)
        for begin in range(0, len(index), size):
            piece = slice(begin, begin + size)
            scratch = self._arena.empty((file.scratch_bytes(len(index[piece])),), np.uint8)
            block, is_sound = file.read(index[piece], scratch)
            into.put(rows[piece], *decode_records(block, layout))
            left[piece] = ~is_sound
            self.bytes_read += block.size
        return index[left], rows[left]

    def reading_now(self) -> list[str]:
        """Returns what reads are under way, for the stall log."""
        return list(self._reading.copy().values())

    def _open_shard(self, shard: Shard) -> OpenShard:
        if self._cache is not None:
            return self._open_cached(self._cache, shard)
        size = self.directory.size(shard.file)
        path = self.directory.where(shard.file)
        if size != shard.bytes:
            found = "there is no such file" if size is None else f"the file has {size}"
            raise ValueError(
                f"{path}: expected {shard.bytes} bytes (dataset.json), {found}. The shard is cut "
                "short, missing or of another run: fetch it again or rebuild the dataset."
            )
        if self._options.verify == "sha256" and shard.index not in self._verified:
            sha256 = digest_of(path).sha256
            if sha256 != shard.sha256:
                raise ValueError(
                    f"{path}: expected sha256 {shard.sha256} (dataset.json), found {sha256}. The "
                    "shard is damaged or of another run: fetch it again or rebuild the dataset."
                )
            self._verified.add(shard.index)
        return self._open_file(path, shard)

    def _open_cached(self, cache: "StoreCache", shard: Shard) -> OpenShard:
        from shardstream.loaders.store.cached_shard import CachedShard

        opened = CachedShard(cache, shard, self._open_file)
        if self._options.verify == "sha256":
            opened.fetch_all()
        return opened

    def _open_file(self, path: str, shard: Shard) -> ShardFile | PlainShard:
        record_bytes = self.manifest.layout(shard).record_bytes
        if can_read_plainly() and self.is_local:  # a store's copy may be there in part
            checksums = find_checksums(self.directory, shard.file, shard.records)
            if checksums is not None:
                return PlainShard(path, record_bytes=record_bytes, checksums=checksums)
        return ShardFile(path, record_bytes=record_bytes, num_records=shard.records)

    def close(self) -> None:
        """Closes all files and gives memory back; the next read opens them again."""
        self._arena.clear()
        if self._cache is not None:
            self._cache.close()
        self._open.close()
