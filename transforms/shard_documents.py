"""The documents of a shard in memory: one buffer that holds them as they came, and their ranges.

A bucket's pieces, each an Arrow IPC message or several, are read one after another into a buffer
that the next shard uses again; the tokens stay there until they are copied into records. So a shard
is in memory once, and hardly a page of it is new: on virtual machines, touching a page for the
first time costs about ten times as much as copying into it.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from shardstream.shard_format.storage import Directory
from shardstream.tokens.token_ranges import TokenRanges, ranges_of
from shardstream.transforms.errors import JobError
from shardstream.transforms.scatter import document_ids
from shardstream.transforms.token_blocks import SCHEMA


class SpillJobError(JobError):
    """Spilled documents are not where they were written."""


class FileRange(NamedTuple):
    """Where a bucket's documents wait: bytes begin to end - 1 of the file `name`."""

    name: str
    begin: int
    end: int


class ShardDocuments(NamedTuple):
    """Documents of a shard, in any order.

    Document i is row `row[i]` of the file `file_index[i]`.

    Attributes:
        file_index: int32[n].
        row: int64[n].
        tokens: n ranges.
    """

    file_index: np.ndarray
    row: np.ndarray
    tokens: TokenRanges

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> "ShardDocuments":
        """Returns the documents of a record batch with token_blocks.SCHEMA, not copied."""
        file_index, row = document_ids(batch)
        return cls(file_index, row, ranges_of(batch["tokens"]))


class BufferPool:
    """Buffers that are used again, as many as are in use at once; any thread may call."""

    def __init__(self) -> None:
        self._idle: list[np.ndarray] = []

    @contextlib.contextmanager
    def buffer(self, num_bytes: int) -> Iterator[np.ndarray]:
        """Lends uint8[num_bytes], its content undefined, for the length of a block."""
        buffer = self._idle.pop() if self._idle else np.empty(0, np.uint8)
        if len(buffer) < num_bytes:
            buffer = np.empty(num_bytes + num_bytes // 8, np.uint8)  # the next shard may be larger
        try:
            yield buffer[:num_bytes]
        finally:
            self._idle.append(buffer)


@contextlib.contextmanager
def reading(
    pieces: Iterable[bytes | FileRange],
    directory: Directory,
    pool: BufferPool,
    executor: Executor | None,
) -> Iterator[ShardDocuments]:
    """Yields the documents of some pieces; they end with the block.

    Args:
        pieces: Arrow IPC messages, or where they wait.
        directory: of the spill files.
        pool: lends the memory.
        executor: reads pieces side by side, for those that wait on a store; None: one by one.

    Raises:
        SpillJobError: a range of a spill file doesn't hold what was written there.
    """
    pieces = list(pieces)
    sizes = [len(p) if isinstance(p, bytes) else p.end - p.begin for p in pieces]
    ends = np.cumsum([0, *sizes]).tolist()
    with pool.buffer(ends[-1]) as buffer:
        slices = [buffer[begin:end] for begin, end in itertools.pairwise(ends)]
        reads = (map if executor is None else executor.map)(
            lambda piece, into: _read(piece, directory, into), pieces, slices
        )
        for _ in reads:
            pass
        yield _parse(buffer)


def _read(piece: bytes | FileRange, directory: Directory, into: np.ndarray) -> None:
    if isinstance(piece, bytes):
        into[:] = np.frombuffer(piece, np.uint8)
    else:
        directory.read_into(piece.name, piece.begin, into)


def _parse(buffer: np.ndarray) -> ShardDocuments:
    """Returns the documents of IPC messages end to end, their tokens as ranges of the buffer."""
    source = pa.BufferReader(pa.py_buffer(buffer))
    batches = []
    try:
        while source.tell() < source.size():
            batches.append(pa.ipc.read_record_batch(pa.ipc.read_message(source), SCHEMA))
    except (EOFError, OSError, pa.ArrowInvalid) as error:
        raise SpillJobError(
            f"a bucket's documents can't be read ({error}): the temporary files of this build were "
            "changed while it ran. Run the same command again, once."
        ) from error
    batches = [batch for batch in batches if batch.num_rows]
    if not batches:
        return ShardDocuments.of(pa.RecordBatch.from_pylist([], SCHEMA))
    ids = [document_ids(batch) for batch in batches]
    ranges = [ranges_of(batch["tokens"]) for batch in batches]
    # Where each batch's tokens begin in the buffer, which Arrow has not copied.
    starts = [tokens.data.ctypes.data - buffer.ctypes.data for tokens in ranges]
    return ShardDocuments(
        np.concatenate([file_index for file_index, _ in ids]),
        np.concatenate([row for _, row in ids]),
        TokenRanges(
            buffer,
            np.concatenate([t.begin + start for t, start in zip(ranges, starts, strict=True)]),
            np.concatenate([t.end + start for t, start in zip(ranges, starts, strict=True)]),
        ),
    )
