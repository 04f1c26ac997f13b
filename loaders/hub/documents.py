"""A partition's documents as tokens, from any row on, whatever the network does.

Every document comes once: a read that fails is taken up again behind the last document delivered,
and one that goes on failing raises with the file, the row and what was tried. Tokens come from the
cache where it has them.

Source rows are read by `sources.read`, ids are made by `tokens`: the same code as the pipeline's.
"""

import contextlib
import dataclasses
import logging
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from loaders.hub.cache import EntryWriter, TokenBlock, TokenCache
from loaders.hub.catalog import RowGroups
from loaders.hub.options import FetchOptions
from loaders.hub.retry import is_transient, wait_secs
from loaders.hub.units import Documents

if TYPE_CHECKING:
    from sources.partitions import Partition
    from sources.read import TextBlock
    from sources.resolve import ReadSpec, SourceFile
    from tokens.tokenizer import Tokenizer

_log = logging.getLogger("shardstream.loaders")

# Formats that can't be entered in the middle are kept by so many rows: the chunk in which
# sources.read takes them, so no block spans two.
_ROWS_PER_SEGMENT = 8192


class StreamError(RuntimeError):
    """Documents can't be read, or no longer; the message says which and what was tried."""


class Stopped(Exception):
    """The stream was closed while it waited."""


class Counts:
    """What was read so far, prefetched documents among it; thread-safe."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, **counts: int) -> None:
        """Adds to counts by name."""
        with self._lock:
            self._counts.update(counts)

    def add_block(self, block: TokenBlock, token_bytes: int) -> None:
        """Counts a block's documents, dead ones by reason."""
        with self._lock:
            self._counts["documents"] += len(block.rows)
            self._counts["tokens"] += token_bytes
            for reason, rows in block.dead.items():
                self._counts[f"dead_letters/{reason}"] += len(rows)

    def as_dict(self) -> dict[str, int]:
        """Returns the counts that are not 0."""
        with self._lock:
            return {name: count for name, count in sorted(self._counts.items()) if count}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DocumentReader:
    """Reads partitions; one for all lanes of a stream.

    Attributes:
        spec: of the source.
        tokenizer: open.
        seed: chooses the documents that the tokenizer's audit compares.
        block_bytes: text read and tokenized together.
        fetch: how to read.
        cache: of tokens, if there is one.
        row_groups: of the source's files.
        counts: are kept here.
        encoding: held while a block is tokenized; lets as many through as there are cores, so that
            the block asked for first is ready first.
        stopping: set to end waits.
        reading: what each thread is waiting for, in words.
    """

    spec: "ReadSpec"
    tokenizer: "Tokenizer"
    seed: int
    block_bytes: int
    fetch: FetchOptions
    cache: TokenCache | None
    row_groups: RowGroups
    counts: Counts
    encoding: threading.Semaphore
    stopping: threading.Event
    reading: dict[int, str]

    def documents(self, partition: "Partition", passed: int) -> Iterator[Documents]:
        """Yields the documents of a partition behind its first `passed` rows, in order.

        Raises:
            StreamError: a read keeps failing.
        """
        itemsize = np.dtype(self.tokenizer.token_dtype).itemsize
        origin = partition.first_row + partition.skip_documents
        if self.cache is None or len(partition.files) > 1:
            blocks = self._fetch(partition, passed, origin)
        else:
            blocks = self._kept_or_fetched(partition, passed, origin, self.cache)
        with contextlib.closing(blocks):
            for block in blocks:
                self.counts.add_block(block, _nbytes(block.tokens) // itemsize)
                yield Documents(block.tokens, block.rows + 1 - origin)

    # From the network.

    def _fetch(
        self, partition: "Partition", passed: int, origin: int
    ) -> Generator[TokenBlock, None, None]:
        """Yields blocks, rows counted so that the partition's first is `origin`."""
        from sources.read import read_blocks

        failed = 0
        while (rest := self._rest_of(partition, passed, failed)) is not None:
            blocks = read_blocks(rest, self.spec, block_bytes=self.block_bytes)
            with contextlib.closing(blocks):
                try:
                    while True:
                        with self._waiting_for(partition, origin + passed):
                            text = next(blocks)
                        block = self._tokenize(text, origin + passed)
                        failed = 0
                        passed += text.num_read
                        yield block
                except StopIteration:
                    return
                except (Stopped, StreamError):
                    raise
                except Exception as error:
                    failed += 1
                    self._wait_or_raise(partition, origin + passed, failed, error)

    def _rest_of(self, partition: "Partition", passed: int, failed: int) -> "Partition | None":
        """Returns what is left of a partition; None where nothing is."""
        if passed == 0:
            return partition
        most = partition.max_documents
        if most is not None and passed >= most:
            return None
        most = None if most is None else most - passed
        if self.spec.module != "parquet":
            skip = partition.skip_documents + passed
            return dataclasses.replace(partition, skip_documents=skip, max_documents=most)
        first_rows = self._first_rows(partition.files[0])
        row = partition.first_row + partition.skip_documents + passed
        _, stop = partition.row_groups or (0, len(first_rows) - 1)
        if row >= first_rows[stop]:
            return None
        group = int(np.searchsorted(first_rows, row, side="right")) - 1
        return dataclasses.replace(
            partition,
            row_groups=(group, stop),
            first_row=int(first_rows[group]),
            skip_documents=row - int(first_rows[group]),
            max_documents=most,
        )

    def _first_rows(self, file: "SourceFile") -> np.ndarray:
        """Returns where a file's row groups begin, tried as often as any read."""
        failed = 0
        while True:
            try:
                return self.row_groups.first_rows(file)
            except Exception as error:
                failed += 1
                self._wait(file, 0, failed, error)

    def _tokenize(self, text: "TextBlock", first_row: int) -> TokenBlock:
        from tokens.assemble import as_binary
        from tokens.encode_around import audited_rows, encode_around

        dead: dict[str, list[int]] = {}
        for letter in text.dead_letters:
            dead.setdefault(letter.reason, []).append(letter.row)
        rows = text.rows
        # A walk over several files counts through; a partition of one keeps the file's own rows.
        shift = first_row - _first_of(text)
        audit = audited_rows(self.tokenizer, seed=self.seed, partition=text.partition, rows=rows)
        with self.encoding:
            encoded, _, keep, errors = encode_around(self.tokenizer, text.texts, audit)
        if errors:
            dead["tokenizer_error"] = [int(rows[i]) for i in errors]
            rows = rows[keep]
        if shift:
            rows = rows + shift
            dead = {reason: [row + shift for row in found] for reason, found in dead.items()}
        tokens = as_binary(encoded, np.dtype(self.tokenizer.token_dtype))
        return TokenBlock(first_row, first_row + text.num_read, rows, tokens, dead)

    def _wait_or_raise(
        self, partition: "Partition", row: int, failed: int, error: Exception
    ) -> None:
        self._wait(partition.files[0], row, failed, error)

    def _wait(self, file: "SourceFile", row: int, failed: int, error: Exception) -> None:
        """Waits before the next attempt.

        Raises:
            StreamError: the error is final, or there were attempts enough.
            Stopped: the stream was closed.
        """
        is_local = "://" not in file.url
        where = f"{file.url}, row {row}"
        what = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        if is_local or not is_transient(error):
            raise StreamError(f"{where}: can't be read ({what}).") from error
        if failed > self.fetch.retries:
            raise StreamError(
                f"{where}: {failed} attempts in a row brought no document (the last: {what}). "
                "Check the network and the file; get_state() of the last batch resumes here, "
                "retries=... allows more."
            ) from error
        pause = wait_secs(error, failed, self.fetch.retry_secs)
        _log.warning("%s: %s; attempt %d in %.1f s", where, what, failed + 1, pause)
        self.counts.add(retries=1)
        with self._waiting_for_text(f"{where}, attempt {failed + 1} after {what}"):
            if self.stopping.wait(pause):
                raise Stopped

    @contextlib.contextmanager
    def _waiting_for(self, partition: "Partition", row: int) -> Iterator[None]:
        with self._waiting_for_text(f"{partition.files[0].url}, row {row}"):
            if self.stopping.is_set():
                raise Stopped
            yield

    @contextlib.contextmanager
    def _waiting_for_text(self, text: str) -> Iterator[None]:
        thread = threading.get_ident()
        self.reading[thread] = text
        try:
            yield
        finally:
            self.reading.pop(thread, None)

    # From the cache.

    def _kept_or_fetched(
        self, partition: "Partition", passed: int, origin: int, cache: TokenCache
    ) -> Generator[TokenBlock, None, None]:
        """Yields blocks in the file's own rows, segment by segment from wherever they are."""
        file = partition.files[0]
        row, end = origin + passed, self._end_row(partition, origin)
        while end is None or row < end:
            entry = cache.find(file.index, self._segment_of(file, row))
            if entry is None:
                row = yield from self._fetch_and_keep(partition, row, end, cache)
                if row is None:
                    return
                continue
            for block in entry.blocks:
                if block.end_row > row:
                    yield block.part(row, end)
                    row = block.end_row
            if entry.is_last:
                return

    def _fetch_and_keep(
        self, partition: "Partition", row: int, end: int | None, cache: TokenCache
    ) -> Generator[TokenBlock, None, int | None]:
        """Fetches from row's segment on; returns the row behind, None at the end of the file."""
        file = partition.files[0]
        segment = self._segment_of(file, row)
        begin, stop = self._rows_of(file, segment)
        writer: EntryWriter | None = None
        blocks = self._fetch(self._from_segment(partition, segment), 0, begin)
        try:
            for block in blocks:
                if block.first_row == begin:
                    writer = cache.writer(file.index, segment)
                if writer:
                    writer.add(block)
                if block.end_row > row:
                    yield block.part(row, end)
                    row = block.end_row
                if block.end_row == stop:
                    if writer:
                        writer.close(is_last=False)
                        writer = None
                    segment = self._segment_of(file, stop)
                    begin, stop = self._rows_of(file, segment)
                    if (end is not None and row >= end) or cache.has(file.index, segment):
                        return row
                elif end is not None and row >= end:
                    return row
            if self.spec.module != "parquet":
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
        if partition.max_documents is not None:
            return origin + partition.max_documents
        if self.spec.module != "parquet":
            return None
        first_rows = self._first_rows(partition.files[0])
        return int(first_rows[(partition.row_groups or (0, len(first_rows) - 1))[1]])

    def _segment_of(self, file: "SourceFile", row: int) -> int:
        if self.spec.module != "parquet":
            return row // _ROWS_PER_SEGMENT
        return int(np.searchsorted(self._first_rows(file), row, side="right")) - 1

    def _rows_of(self, file: "SourceFile", segment: int) -> tuple[int, int]:
        """Returns the first row of a segment and the one behind its last."""
        if self.spec.module != "parquet":
            return segment * _ROWS_PER_SEGMENT, (segment + 1) * _ROWS_PER_SEGMENT
        first_rows = self._first_rows(file)
        last = len(first_rows) - 1
        return int(first_rows[min(segment, last)]), int(first_rows[min(segment + 1, last)])

    def _from_segment(self, partition: "Partition", segment: int) -> "Partition":
        """Returns the whole of a file from a segment on."""
        file = partition.files[0]
        first = self._rows_of(file, segment)[0]
        whole = dataclasses.replace(partition, max_documents=None, text_bytes=None)
        if self.spec.module != "parquet":
            return dataclasses.replace(whole, skip_documents=first)
        stop = len(self._first_rows(file)) - 1
        groups = (segment, stop)
        return dataclasses.replace(whole, row_groups=groups, first_row=first, skip_documents=0)


def _first_of(text: "TextBlock") -> int:
    """Returns the first row of a block, dead or not, in its own file."""
    firsts = [int(text.rows[0])] if len(text.rows) else []
    firsts += [letter.row for letter in text.dead_letters[:1]]
    return min(firsts)


def _nbytes(tokens: pa.LargeBinaryArray) -> int:
    if not len(tokens):
        return 0
    offsets = np.frombuffer(tokens.buffers()[1], np.int64)
    return int(offsets[tokens.offset + len(tokens)] - offsets[tokens.offset])
