"""ArrayRecord files of equal-sized records, as blocks uint8[N, record_bytes].

The same records and options give the same bytes, a property of the format that the tests hold us
to, so the sha256 of a shard names its content. `group_size:1` keeps each record in a chunk of its
own, which Grain and random access depend on.
"""

import contextlib
import dataclasses
import hashlib
import mmap
import os
import shutil
from collections.abc import Iterable, Sequence

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from shardstream.shard_format.errors import OptionError
from shardstream.shard_format.messages import require_choice

# Token ids hardly compress, and a loader that reads raw chunks keeps up with the memory bus.
# zstd: 1.8 times smaller on text, 6 times slower to write than raw (the table in README.md).
COMPRESSIONS = {"none": "uncompressed", "snappy": "snappy", "zstd": "zstd:3"}

# ArrayRecord reads as many neighbouring chunks in one go as its read-ahead holds, never beyond the
# range. With none, each chunk of 4 KB is a task of its own in its thread pool. Processor time a
# million tokens: 1.7 to 2.8 ms with 1 MB, 4.2 to 7.0 with none (ranges of 256 and 1,024 records, 2
# cores).
_OPTIONS = "readahead_buffer_size:1M,max_parallelism:1"
_ONE_RECORD_A_CHUNK = "group_size:1,"  # in the options that a file says it was written with


# Read and hashed at a time. hashlib.file_digest's 256 KB would ask for Python's lock 16 times as
# often, and wait for it each time while another thread writes records.
_DIGEST_BYTES = 4 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """How ArrayRecord stores the records of a shard.

    Attributes:
        group_size: records per chunk; Grain and random access want 1.
        compression: "none", "snappy" or "zstd".
    """

    group_size: int = 1
    compression: str = "none"

    def __post_init__(self) -> None:
        if self.group_size < 1:
            raise OptionError(f"group_size is {self.group_size}, expected at least 1")
        require_choice("compression", self.compression, COMPRESSIONS)

    @property
    def is_plain(self) -> bool:
        """Whether records of one size lie at places that follow from their numbers."""
        return self.group_size == 1 and self.compression == "none"

    @property
    def writer_options(self) -> str:
        """ArrayRecord's own option string.

        One writer thread: handing small chunks to a pool costs a third more processor time than
        writing them, and shards are built side by side already. The bytes are the same.
        """
        return f"group_size:{self.group_size},{COMPRESSIONS[self.compression]},max_parallelism:1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileDigest:
    """Size and content of a written file."""

    bytes: int
    sha256: str


def digest_of(path: str | os.PathLike[str]) -> FileDigest:
    """Returns the size and sha256 of a file."""
    sha256 = hashlib.sha256()
    buffer = memoryview(bytearray(_DIGEST_BYTES))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            sha256.update(buffer[:count])
        return FileDigest(bytes=file.tell(), sha256=sha256.hexdigest())


def write_records(
    path: str | os.PathLike[str], blocks: Iterable[np.ndarray], options: ShardOptions
) -> FileDigest:
    """Writes blocks, each uint8[n, record_bytes], one record a row, in order.

    ArrayRecord writes 16 MB at a time and holds Python's lock meanwhile. Where the system has
    anonymous files, it writes to memory, and the file is hashed and copied from there without the
    lock. This takes as much memory as the file is large.

    Guarantees: the bytes depend on the records and the options alone. Without blocks the file is a
    valid shard of no records.
    """
    # Two threads write 163 Mtok/s through memory, 77 to 87 directly (L=2048, a virtual machine on
    # which a new page costs ten times a used one).
    if not hasattr(os, "memfd_create"):
        _write_array_record(os.fspath(path), blocks, options)
        return digest_of(path)
    descriptor = os.memfd_create("shard")
    try:
        _write_array_record(f"/proc/self/fd/{descriptor}", blocks, options)
        return _copy(descriptor, path)
    finally:
        os.close(descriptor)


def _write_array_record(path: str, blocks: Iterable[np.ndarray], options: ShardOptions) -> None:
    writer = ArrayRecordWriter(path, options.writer_options)
    try:
        for block in blocks:
            for record in block.view(f"V{block.shape[1]}").ravel().tolist():  # bytes, a copy each
                writer.write(record)
    finally:
        writer.close()


def _copy(descriptor: int, path: str | os.PathLike[str]) -> FileDigest:
    """Copies a file in memory, never empty, to path: one call to hash it, one to copy it."""
    size = os.fstat(descriptor).st_size
    with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as content:
        sha256 = hashlib.sha256(content).hexdigest()
    try:
        shutil.copyfile(f"/proc/self/fd/{descriptor}", path)
    except OSError as error:  # most likely a full disk: say which
        error.filename, error.filename2 = os.fspath(path), None
        raise
    return FileDigest(bytes=size, sha256=sha256)


class ShardFile:
    """An open shard.

    Args:
        path: local file, or a gs:// object (ArrayRecord reads those itself).
        record_bytes: size of each record, from the manifest.
        num_records: from the manifest.

    Raises:
        ValueError: the file is cut short or holds another number of records.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        record_bytes: int,
        num_records: int,
    ) -> None:
        self.path = os.fspath(path)
        self.record_bytes = record_bytes
        self.num_records = num_records
        self._reader = ArrayRecordReader(self.path, _OPTIONS)
        found = self._reader.num_records() if self._reader.ok() else None
        if found != num_records:
            with contextlib.suppress(RuntimeError):  # closing a broken file repeats its error
                self.close()
            holds = "is cut short or is no ArrayRecord file" if found is None else f"has {found}"
            raise ValueError(
                f"{self.path}: expected {num_records} records (dataset.json), the file {holds}. "
                "Shard and manifest are of different runs, or a copy broke off; fetch it again."
            )

    def read(self, begin: int, end: int) -> np.ndarray:
        """Returns uint8[end - begin, record_bytes], records begin to end - 1.

        Raises:
            ValueError: a record has another size than the manifest says.
            RuntimeError: ArrayRecord found a corrupt chunk in the range.
        """
        data = b"".join(self.records_at(np.arange(begin, end)))
        return np.frombuffer(data, np.uint8).reshape(end - begin, self.record_bytes)

    def records_at(self, indices: np.ndarray) -> list[bytes]:
        """Returns the records at indices, in their order; see read.

        Runs of neighbours, and single records too, are read as ranges, since a list of records
        costs ArrayRecord a table of all chunks of the file and a task in its thread pool for each
        record. Chunks of several records are nevertheless read by list: once for all the records
        in them.
        """
        # Processor time a million tokens, 64 records far apart, L=2048: 2.3 ms by ranges, 7 to 9
        # by a list.
        numbers = indices.tolist()
        if numbers and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
            records = self._reader.read(numbers[0], numbers[-1] + 1)
        elif self._has_groups:
            records = self._reader.read(numbers)
        else:
            records = []
            firsts, ends = runs(indices)
            for begin, end in zip(firsts.tolist(), ends.tolist(), strict=True):
                records += self._reader.read(begin, end)
        if len(records) != len(numbers) or set(map(len, records)) - {self.record_bytes}:
            raise ValueError(_wrong_size(self, numbers, records))
        return records

    @property
    def _has_groups(self) -> bool:
        return not (self._reader.writer_options_string() or "").startswith(_ONE_RECORD_A_CHUNK)

    def close(self) -> None:
        """Closes the file; may be called again."""
        if self._reader.is_open():
            self._reader.close()


def runs(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns int64 arrays: the first and the last + 1 of each run of neighbours, in order."""
    is_first = np.diff(indices, prepend=indices[:1] - 2) != 1
    is_last = np.diff(indices, append=indices[-1:] + 2) != 1
    return indices[is_first], indices[is_last] + 1


def _wrong_size(shard: ShardFile, numbers: Sequence[int], records: list[bytes]) -> str:
    for index, record in zip(numbers, records, strict=False):
        if len(record) != shard.record_bytes:
            return (
                f"{shard.path}, record {index}: {len(record)} bytes, expected "
                f"{shard.record_bytes} (dataset.json). Shard and manifest are of different runs; "
                "rebuild into an empty directory."
            )
    return f"{shard.path}: {len(records)} records from {numbers[0]} on, fewer than asked for"
