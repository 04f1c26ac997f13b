"""A partition's documents from the network as tokens, each once in spite of network faults.

A read that fails is taken up again after the last document delivered; one that goes on failing
raises with the file, the row and what was tried. Rows are read by `sources.read`, ids are made by
`tokens`: the same code as the pipeline's.
"""

import contextlib
import dataclasses
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, cast

import numpy as np

from shardstream.loaders.hub.cache import TokenizedRows
from shardstream.loaders.hub.catalog import RowGroups
from shardstream.loaders.hub.options import FetchOptions
from shardstream.loaders.hub.retry import Retry, Stopped, StreamError

if TYPE_CHECKING:
    from shardstream.sources.partitions import Partition
    from shardstream.sources.read import TextBlock
    from shardstream.sources.resolve import ReadSpec, SourceFile
    from shardstream.tokens.tokenizer import Tokenizer


class Counts:
    """What was read so far, prefetched documents among it; thread-safe."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, counts: dict[str, int]) -> None:
        """Adds to counts by name."""
        with self._lock:
            self._counts.update(counts)

    def as_dict(self) -> dict[str, int]:
        """Returns the counts by name, sorted."""
        with self._lock:
            return dict(sorted(self._counts.items()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Reads partitions; one for all lanes of a stream.

    Attributes:
        spec: of the source.
        tokenizer: open.
        seed: chooses the documents that the tokenizer's audit compares.
        block_bytes: text read and tokenized together.
        options: how to read.
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
    options: FetchOptions
    row_groups: RowGroups
    counts: Counts
    encoding: threading.Semaphore
    stopping: threading.Event
    reading: dict[int, str]

    @property
    def can_seek(self) -> bool:
        """Whether files can be entered in the middle, at their row groups."""
        return self.spec.module == "parquet"

    def fetch(
        self, partition: "Partition", passed: int, origin: int
    ) -> Generator[TokenizedRows, None, None]:
        """Yields what follows the first `passed` rows of a partition.

        Args:
            partition: to read.
            passed: rows to leave out.
            origin: number of the partition's first row in the blocks; its row in the file, or
                anything where the partition has several files, whose rows are counted through.

        Raises:
            StreamError: a read keeps failing.
        """
        from shardstream.sources.read import read_blocks

        retry, failed = Retry(self.options, self.stopping), 0
        while (rest := self._rest_of(partition, passed)) is not None:
            blocks = read_blocks(rest, self.spec, block_bytes=self.block_bytes, keep_going=False)
            with contextlib.closing(cast("Generator[TextBlock, None, None]", blocks)):
                try:
                    while (text := self._next(blocks, partition, origin + passed)) is not None:
                        block = self._tokenize(text, origin + passed)
                        failed, passed = 0, passed + text.num_read
                        yield block
                    return
                except (Stopped, StreamError):
                    raise
                except Exception as error:
                    failed += 1
                    self.counts.add({"failed_reads": 1})
                    with self._note(f"{partition.files[0].url}, attempt {failed + 1} ({error})"):
                        retry.failed(partition.files[0].url, origin + passed, failed, error)

    def first_rows(self, file: "SourceFile") -> np.ndarray:
        """Returns int64[groups + 1]: where a parquet file's row groups begin, and its rows."""
        retry = Retry(self.options, self.stopping)
        return retry.call(file.url, lambda: self.row_groups.first_rows(file))

    def _next(
        self, blocks: Iterator["TextBlock"], partition: "Partition", row: int
    ) -> "TextBlock | None":
        if self.stopping.is_set():
            raise Stopped
        with self._note(f"{partition.files[0].url}, row {row}"):
            return next(blocks, None)

    def _rest_of(self, partition: "Partition", passed: int) -> "Partition | None":
        """Returns what is left of a partition; None where nothing is."""
        if passed == 0:
            return partition
        most = partition.max_documents
        if most is not None and passed >= most:
            return None
        most = None if most is None else most - passed
        if not self.can_seek:
            skip = partition.skip_documents + passed
            return dataclasses.replace(partition, skip_documents=skip, max_documents=most)
        first_rows = self.first_rows(partition.files[0])
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

    def _tokenize(self, text: "TextBlock", first_row: int) -> TokenizedRows:
        from shardstream.tokens.assemble import as_binary
        from shardstream.tokens.encode_around import audited_rows, encode_around

        tokenizer, rows = self.tokenizer, text.rows
        dead: dict[str, list[int]] = {}
        for letter in text.dead_letters:
            lost = range(letter.row, letter.row + letter.num_rows)
            dead.setdefault(letter.reason, []).extend(lost)
        audit = audited_rows(tokenizer, seed=self.seed, file_index=text.file_index, rows=rows)
        with self.encoding:
            encoded, _, keep, errors = encode_around(tokenizer, text.texts, audit)
        if errors:
            dead["tokenizer_error"] = [int(rows[i]) for i in errors]
            rows = rows[keep]
        # Where a partition has several files, their rows are counted through.
        shift = first_row - _first_of(text)
        dead = {reason: [row + shift for row in found] for reason, found in dead.items()}
        tokens = as_binary(encoded, np.dtype(tokenizer.token_dtype))
        return TokenizedRows(first_row, first_row + text.num_read, rows + shift, tokens, dead)

    @contextlib.contextmanager
    def _note(self, text: str) -> Iterator[None]:
        thread = threading.get_ident()
        self.reading[thread] = text
        try:
            yield
        finally:
            self.reading.pop(thread, None)


def _first_of(text: "TextBlock") -> int:
    """Returns the first row of a block, dead or not, in its own file."""
    firsts = [int(text.rows[0])] if len(text.rows) else []
    return min(firsts + [letter.row for letter in text.dead_letters[:1]])
