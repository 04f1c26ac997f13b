"""A partition's documents as tokens, from any row on, out of the cache where it has them.

A file is kept by segments: the row groups of parquet files, and runs of a fixed number of rows of
other files. Fetching starts at a segment's beginning, so that the segment can be kept whole.
"""

import contextlib
import dataclasses
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import numpy as np

from shardstream.loaders.hub.cache import EntryWriter, TokenCache, TokenizedRows
from shardstream.loaders.hub.fetch import Fetcher
from shardstream.loaders.hub.units import Documents
from shardstream.tokens.arrow_buffers import value_nbytes

if TYPE_CHECKING:
    from shardstream.sources.partitions import Partition
    from shardstream.sources.resolve import SourceFile

# The rows that sources.read takes from `datasets` at a time, so that no block spans two segments.
_ROWS_PER_SEGMENT = 8192


class DocumentReader:
    """Reads partitions; one for all lanes of a stream.

    Args:
        fetcher: from the network.
        cache: of tokens, if there is one.
    """

    def __init__(self, fetcher: Fetcher, cache: TokenCache | None) -> None:
        self._fetcher, self._cache = fetcher, cache
        self._itemsize = np.dtype(fetcher.tokenizer.token_dtype).itemsize

    def documents(self, partition: "Partition", passed: int) -> Iterator[Documents]:
        """Yields the documents of a partition after its first `passed` rows, in order.

        Raises:
            StreamError: a read keeps failing.
        """
        origin = partition.first_row + partition.skip_documents
        if self._cache is None or len(partition.files) > 1:
            blocks = self._fetcher.fetch(partition, passed, origin)
        else:
            blocks = self._kept_or_fetched(partition, passed, origin, self._cache)
        with contextlib.closing(blocks):
            for block in blocks:
                self._count(block)
                yield Documents(block.tokens, block.rows + 1 - origin)

    def _count(self, block: TokenizedRows) -> None:
        counts = {
            "documents": len(block.rows),
            "tokens": value_nbytes(block.tokens) // self._itemsize,
        }
        dead = {f"dead_letters/{reason}": len(rows) for reason, rows in block.dead.items() if rows}
        self._fetcher.counts.add(counts | dead)

    def _kept_or_fetched(
        self, partition: "Partition", passed: int, origin: int, cache: TokenCache
    ) -> Generator[TokenizedRows, None, None]:
        file = partition.files[0]
        row, end = origin + passed, self._end_row(partition, origin)
        while end is None or row < end:
            entry = cache.find(file.index, self._segment_of(file, row))
            if entry is None:
                after = yield from self._fetch_and_keep(partition, row, end, cache)
                if after is None:
                    return
                row = after
                continue
            for block in entry.blocks:
                if block.end_row > row:
                    yield block.between(row, end)
                    row = block.end_row
            if entry.is_last:
                return

    def _fetch_and_keep(
        self, partition: "Partition", row: int, end: int | None, cache: TokenCache
    ) -> Generator[TokenizedRows, None, int | None]:
        """Yields a file from a row on, up to the next segment that the cache has.

        Returns:
            The row to go on from; None at the end of the file.
        """
        file = partition.files[0]
        segment = self._segment_of(file, row)
        begin, stop = self._rows_of(file, segment)
        writer: EntryWriter | None = None
        blocks = self._fetcher.fetch(self._from_segment(partition, segment), 0, begin)
        try:
            for block in blocks:
                if block.first_row == begin:
                    writer = cache.writer(file.index, segment)
                if writer:
                    writer.add(block)
                if block.end_row > row:
                    yield block.between(row, end)
                    row = block.end_row
                if block.end_row == stop:
                    if writer:
                        writer.close(is_last=False)
                        writer = None
                    segment = self._segment_of(file, stop)
                    begin, stop = self._rows_of(file, segment)
                    if cache.has(file.index, segment):
                        return row
                if end is not None and row >= end:
                    return row
            if not self._fetcher.can_seek:
                writer = writer or cache.writer(file.index, segment)
                if writer:
                    writer.close(is_last=True)
                    writer = None
            return None
        finally:
            blocks.close()
            if writer:
                writer.abandon()

    def _end_row(self, partition: "Partition", origin: int) -> int | None:
        """Returns the row after the partition's last, None where only reading tells."""
        if partition.max_documents is not None:
            return origin + partition.max_documents
        if not self._fetcher.can_seek:
            return None
        first_rows = self._fetcher.first_rows(partition.files[0])
        return int(first_rows[(partition.row_groups or (0, len(first_rows) - 1))[1]])

    def _segment_of(self, file: "SourceFile", row: int) -> int:
        if not self._fetcher.can_seek:
            return row // _ROWS_PER_SEGMENT
        return int(np.searchsorted(self._fetcher.first_rows(file), row, side="right")) - 1

    def _rows_of(self, file: "SourceFile", segment: int) -> tuple[int, int]:
        """Returns the first row of a segment and the one after its last."""
        if not self._fetcher.can_seek:
            return segment * _ROWS_PER_SEGMENT, (segment + 1) * _ROWS_PER_SEGMENT
        first_rows = self._fetcher.first_rows(file)
        last = len(first_rows) - 1
        return int(first_rows[min(segment, last)]), int(first_rows[min(segment + 1, last)])

    def _from_segment(self, partition: "Partition", segment: int) -> "Partition":
        """Returns the whole of a file from a segment on."""
        file = partition.files[0]
        first = self._rows_of(file, segment)[0]
        whole = dataclasses.replace(partition, max_documents=None, text_bytes=None)
        if not self._fetcher.can_seek:
            return dataclasses.replace(whole, skip_documents=first)
        stop = len(self._fetcher.first_rows(file)) - 1
        groups = (segment, stop)
        return dataclasses.replace(whole, row_groups=groups, first_row=first, skip_documents=0)
