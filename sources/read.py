"""Reads a partition as blocks of text: Arrow arrays from start to end, no Python string a document.

Rows whose text is null, not text, not UTF-8 or too large come out as dead letters beside the block
they stood in; a row is never lost and never stops the read.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from shardstream.sources.arrow_rows import read_arrow
from shardstream.sources.csv_rows import read_csv
from shardstream.sources.errors import SourceError, border
from shardstream.sources.json_rows import read_json
from shardstream.sources.other_rows import read_with_datasets
from shardstream.sources.parquet_rows import has_bad_footer, is_local, read_groups
from shardstream.sources.rows import DeadLetter, Fault, Lost, Rows, count_by_reason, rows_after
from shardstream.sources.spec import Partition, ReadSpec, SourceFile
from shardstream.sources.tar_rows import read_tar
from shardstream.sources.text_rows import read_text
from shardstream.sources.texts import join_texts

__all__ = [
    "BLOCK_BYTES",
    "SEGMENT_ROWS",
    "DeadLetter",
    "TextBlock",
    "count_by_reason",
    "count_rows",
    "read_blocks",
]

# Blocks of about this much text: large enough that the cost of a call vanishes, small enough that a
# few of them in flight are nothing beside a shard.
BLOCK_BYTES = 2 << 20
# No block holds rows on both sides of a multiple of this, in files that can't be entered in the
# middle: a loader keeps such runs of rows as tokens.
SEGMENT_ROWS = 8192
# Reads of a remote file that end in the same place before its bytes are taken to be damaged.
_READS = 3

_READERS: dict[str, Callable[[SourceFile, ReadSpec], Iterator[Rows | Lost]]] = {
    "arrow": read_arrow,
    "csv": read_csv,
    "json": read_json,
    "text": read_text,
    "webdataset": read_tar,
}


class TextBlock(NamedTuple):
    """Documents read together.

    `texts` is large_string[n] without nulls; document i is row `rows[i]` (int64[n]) of file
    `file_index`; `num_read` counts the dead letters too.
    """

    file_index: int
    rows: np.ndarray
    texts: pa.LargeStringArray
    dead_letters: list[DeadLetter]
    num_read: int


def read_blocks(
    partition: Partition,
    spec: ReadSpec,
    *,
    block_bytes: int = BLOCK_BYTES,
    keep_going: bool = True,
) -> Iterator[TextBlock]:
    """Yields the documents of a partition in order.

    Guarantees: every row of the partition is in one block, as a text or as a dead letter. Two
    blocks and one row are in memory at most, and a chunk of a format that is read in chunks.

    Args:
        partition: to read.
        spec: of the source.
        block_bytes: of text in a block; a block of one row may have more.
        keep_going: what is damaged becomes dead letters; otherwise it raises.

    Raises:
        SourceError: the file can't be read, for another reason than what it holds.
    """
    skip, left = partition.skip_documents, partition.max_documents
    for file in partition.files:
        row = partition.first_row
        for run in _read_file(file, partition, spec, block_bytes, keep_going=keep_going):
            first, num_rows = row, run.num_rows
            row += num_rows
            if skip >= num_rows:
                skip -= num_rows
                continue
            end = num_rows if left is None else min(num_rows, skip + left)
            run, first, skip = run.cut(skip, end), first + skip, 0
            num_rows = run.num_rows
            yield from _blocks_of(run, file.index, first, spec, block_bytes)
            if left is not None:
                left -= num_rows
                if left == 0:
                    return


def count_rows(file: SourceFile, spec: ReadSpec) -> int:
    """Returns the rows of a file, by reading it."""
    runs = _read_file(file, Partition(files=(file,)), spec, BLOCK_BYTES, keep_going=True)
    return sum(run.num_rows for run in runs)


def _read_file(
    file: SourceFile, partition: Partition, spec: ReadSpec, block_bytes: int, *, keep_going: bool
) -> Iterator[Rows | Lost]:
    """Yields the rows of one of a partition's files, in runs that a block may hold."""

    def read() -> Iterator[Rows | Lost]:
        if spec.module != "parquet":
            reader = _READERS.get(spec.module) or read_with_datasets
            return reader(file, spec)
        return read_groups(file.url, partition.row_groups, spec, block_bytes)

    # Who doesn't want to keep going repeats reads itself, and counts them.
    reads = _READS if keep_going and not is_local(file.url) else 1
    runs = _reread(lambda: _guarded(read(), file, spec), reads)
    given = 0
    for run in runs:
        if isinstance(run, Lost) and run.fault.reason == "unreadable" and not keep_going:
            row = partition.first_row + given
            raise SourceError(
                f"{file.url}, row {row}: can't be read as {spec.module} ({run.fault.message}). "
                "Fetch the file again, or leave it out with --data_files."
            )
        if spec.module == "parquet":
            yield run
        else:
            yield from _segments(run, given)
        given += run.num_rows


def _guarded(
    runs: Iterator[Rows | Lost], file: SourceFile, spec: ReadSpec
) -> Iterator[Rows | Lost]:
    """Yields what a reader does; what a library raises becomes a line that names the place."""
    row = 0
    advice = "Check that the file is whole and can be read, or leave it out with --data_files."
    while True:
        try:
            with border(f"{file.url}, row {row} on: can't be read as {spec.module}", advice):
                run = next(runs, None)
        except SourceError as error:
            if row or not has_bad_footer(error):
                raise
            yield Lost(1, Fault("unreadable", str(error)))
            return
        if run is None:
            return
        yield run
        row += run.num_rows


def _reread(read: Callable[[], Iterator[Rows | Lost]], reads: int) -> Iterator[Rows | Lost]:
    """Yields a file's rows; what seems damaged is read again, as a fetch may have ended early."""
    given = failed = 0
    while True:
        for run in rows_after(read(), given):
            if isinstance(run, Lost) and run.fault.reason == "unreadable":
                failed += 1
                if failed < reads:
                    break
            failed = 0
            given += run.num_rows
            yield run
        else:
            return


def _segments(run: Rows | Lost, first_row: int) -> Iterator[Rows | Lost]:
    """Yields a run in pieces, none of them with rows on both sides of a segment's end."""
    begin = 0
    while begin < run.num_rows:
        end = min(run.num_rows, begin + SEGMENT_ROWS - (first_row + begin) % SEGMENT_ROWS)
        yield run.cut(begin, end)
        begin = end


def _blocks_of(
    run: Rows | Lost, partition: int, first_row: int, spec: ReadSpec, block_bytes: int
) -> Iterator[TextBlock]:
    if isinstance(run, Lost):
        if run.num_rows:
            yield _lost_block(run, partition, first_row)
        return
    for begin, end in _cuts(run.table, block_bytes):
        yield _text_block(run.cut(begin, end), partition, first_row + begin, spec)


def _cuts(table: pa.Table, block_bytes: int) -> Iterator[tuple[int, int]]:
    """Yields (first row, row after the last) of slices of about block_bytes, or of one row."""
    pieces = max(1, min(table.num_rows, table.nbytes // block_bytes))
    step = -(-table.num_rows // pieces)
    for begin in range(0, table.num_rows, step):
        yield begin, min(begin + step, table.num_rows)


def _text_block(run: Rows, file_index: int, first_row: int, spec: ReadSpec) -> TextBlock:
    rows = np.arange(first_row, first_row + run.num_rows, dtype=np.int64)
    texts, faults = join_texts(run, spec)
    dead = [
        DeadLetter(file_index=file_index, row=first_row + i, **fault._asdict())
        for i, fault in sorted(faults.items())
    ]
    if dead:
        keep = np.ones(len(rows), bool)
        keep[list(faults)] = False
        rows, texts = rows[keep], texts.filter(pa.array(keep))
    return TextBlock(file_index, rows, texts, dead, run.num_rows)


def _lost_block(run: Lost, file_index: int, first_row: int) -> TextBlock:
    letter = DeadLetter(
        file_index=file_index, row=first_row, num_rows=run.num_rows, **run.fault._asdict()
    )
    texts = pa.array([], pa.large_string())
    return TextBlock(file_index, np.zeros(0, np.int64), texts, [letter], run.num_rows)
