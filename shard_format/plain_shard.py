"""Records of a plain shard, read directly from its file: one copy by the kernel, one checksum each.

ArrayRecord's reader makes a chunk, a task, a string and a Python object of every record, and takes
Python's lock twice a call. Where records lie at places that follow from their numbers
(record_places.py), any of them are read as runs of neighbours, into one block of memory, without
the lock. Checksums (checksums.py) tell whether the records are what was written. A record that
isn't, for whatever reason, is left to ArrayRecord, whose answer is final.

Mtok/s (L=2048, B=64, uint16, two cores, each at its best read_threads, the same files without
checksums for ArrayRecord):

                     plain   ArrayRecord
    shuffle buffer   1,075           651
    global shuffle     650           418
"""

import contextlib
import logging
import os
import threading
import weakref

import numpy as np

from shardstream.shard_format import record_places
from shardstream.shard_format.checksums import checksums_of
from shardstream.shard_format.shard_file import ShardFile, runs

_log = logging.getLogger("shardstream.shard_format")

_LONGEST_LIST = 1000  # of buffers for one call; POSIX systems take 1,024


def can_read_plainly() -> bool:
    """Says whether this system reads into several buffers by one call."""
    return hasattr(os, "preadv")


class PlainShard:
    """An open shard whose records are read in place.

    Args:
        path: local file.
        record_bytes: size of each record, R, from the manifest.
        checksums: uint64[N], of the records.

    Attributes:
        is_plain: False once records that ArrayRecord finds sound didn't have their checksums;
            read() is of no use from then on.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, record_bytes: int, checksums: np.ndarray
    ) -> None:
        self.path = os.fspath(path)
        self.record_bytes = record_bytes
        self.num_records = len(checksums)
        self._checksums = checksums
        self._stride = record_bytes + record_places.overhead_bytes(record_bytes)
        self._descriptor = os.open(self.path, os.O_RDONLY)
        self._end = weakref.finalize(self, os.close, self._descriptor)  # without close() too
        self._file: ShardFile | None = None
        self.is_plain = True
        self._lock = threading.Lock()

    def scratch_bytes(self, count: int) -> int:
        """Returns the bytes of memory that reading count records takes."""
        return count * self._stride

    def read(self, indices: np.ndarray, scratch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads records without ArrayRecord.

        Args:
            indices: int64[n], increasing runs are read at once.
            scratch: uint8[scratch_bytes(n)], which the result is a view of.

        Returns:
            uint8[n, R] and bool[n]: the records, and which of them have their checksum.
        """
        records = np.ndarray(
            (len(indices), self.record_bytes), np.uint8, scratch, strides=(self._stride, 1)
        )
        with contextlib.suppress(OSError):  # ArrayRecord will say what is wrong, and where
            self._read_runs(indices, scratch.data)
        return records, checksums_of(records, len(records)) == self._checksums[indices]

    def _read_runs(self, indices: np.ndarray, into: memoryview) -> None:
        """Reads record i of indices to i strides from the front, as far apart as in the stream."""
        firsts, ends = runs(indices)
        begins = record_places.stream_places(firsts, self.record_bytes)
        sizes = (
            record_places.stream_places(ends - 1, self.record_bytes) + self.record_bytes - begins
        )
        slots = (np.cumsum(ends - firsts) - (ends - firsts)) * self._stride
        rooms = record_places.room(begins)
        places = record_places.file_places(begins)
        for slot, size, room, place in zip(
            slots.tolist(), sizes.tolist(), rooms.tolist(), places.tolist(), strict=True
        ):
            run = into[slot : slot + size]
            if size <= room:
                os.preadv(self._descriptor, [run], place)
            else:
                self._read_around_headers(run, room, place)

    def _read_around_headers(self, run: memoryview, room: int, place: int) -> None:
        """Reads a run that block headers interrupt, the first of them after room bytes."""
        header = bytearray(record_places.HEADER_BYTES)
        buffers: list[memoryview | bytearray] = [run[:room]]
        for at in range(room, len(run), record_places.CONTENT_BYTES):
            if len(buffers) >= _LONGEST_LIST:
                place += os.preadv(self._descriptor, buffers, place)
                buffers = []
            buffers += [header, run[at : at + record_places.CONTENT_BYTES]]
        os.preadv(self._descriptor, buffers, place)

    def records_at(self, indices: np.ndarray) -> list[bytes]:
        """Returns records as ArrayRecord reads them; see ShardFile.records_at, for errors too."""
        with self._lock:
            if self._file is None:
                self._file = ShardFile(
                    self.path, record_bytes=self.record_bytes, num_records=self.num_records
                )
        records = self._file.records_at(indices)
        if self.is_plain and (checksums_of(records) != self._checksums[indices]).any():
            self.is_plain = False
            _log.warning(
                "%s: sound records, but not those its checksums were written for; reading through "
                "ArrayRecord, which is slower. The shard is of another run than its dataset: "
                "verify='sha256' tells.",
                self.path,
            )
        return records

    def close(self) -> None:
        """Closes the file; may be called again."""
        self._end()
        if self._file is not None:
            self._file.close()
