"""Parquet files: footers, and row groups in pieces that fit a block whatever their pages hide.

A dictionary page holds a text once however many rows have it, so a row group's size in the footer
says little about the texts that come out. Where there is such a page the group is read a few rows
at a time, so few that even the longest text the page could hold stays within a few blocks, and the
pieces are joined until they fill a block.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardstream.shard_format.messages import first_line
from shardstream.sources.errors import SourceError, is_damage
from shardstream.sources.rows import Fault, Lost, Rows, missing_columns, pick
from shardstream.sources.spec import ReadSpec

BLOCK_ROWS = 8192
# Smaller batches cost Arrow more to hand over than to decode.
_LEAST_BATCH_BYTES = 64 << 10
_MOST_SMALL_ROWS = 32
_SHORT_ROW_BYTES = 512
# Encodings in which a row may stand for more bytes than it takes.
_SHARING_ENCODINGS = frozenset(("PLAIN_DICTIONARY", "RLE_DICTIONARY", "DELTA_BYTE_ARRAY"))


@contextlib.contextmanager
def open_parquet(url: str, *, read_dictionary: list[str] | None = None) -> Iterator[pq.ParquetFile]:
    """Opens a parquet file for exact ranged reads.

    Args:
        url: of the file.
        read_dictionary: columns to give as they are stored, a row group's first pages only.

    No read-ahead cache: Arrow coalesces the column chunks it wants, and anything fetched beside
    them would be another column's bytes.
    """
    file_system, path = fsspec.core.url_to_fs(url)
    remote: dict[str, Any] = {} if is_local(url) else {"cache_type": "none"}
    with file_system.open(path, "rb", **remote) as stream:
        try:
            parquet = pq.ParquetFile(
                stream, pre_buffer=read_dictionary is None, read_dictionary=read_dictionary
            )
        except (ValueError, OSError) as error:
            raise SourceError(
                f"{url}: not a readable parquet file ({first_line(error)}). Remove it from the "
                "data files or fetch it again."
            ) from error
        with parquet:
            yield parquet


def is_local(url: str) -> bool:
    """Says whether reading a file again can't give other bytes than reading it once."""
    return "://" not in url or url.startswith(("file://", "local://"))


def has_bad_footer(error: SourceError) -> bool:
    """Says whether a file couldn't be opened for what it holds: damage, not a failed fetch."""
    return error.__cause__ is not None and is_damage(error.__cause__)


def text_bytes_of(metadata: pq.FileMetaData, group: int, spec: ReadSpec) -> int:
    """Returns the uncompressed bytes of a row group's wanted columns, as its footer has them."""
    return sum(c.total_uncompressed_size for c in _wanted_chunks(metadata.row_group(group), spec))


def _wanted_chunks(metadata: pq.RowGroupMetaData, spec: ReadSpec) -> list[pq.ColumnChunkMetaData]:
    names = [".".join(path) for path in spec.column_paths.values()]
    below = tuple(f"{name}." for name in names)

    def is_wanted(path: str) -> bool:
        # What lies inside a JSON text has no column of its own.
        return f"{path}.".startswith(below) or any(name.startswith(f"{path}.") for name in names)

    columns = (metadata.column(i) for i in range(metadata.num_columns))
    return [column for column in columns if is_wanted(column.path_in_schema)]


def _columns_to_read(schema: pa.Schema, spec: ReadSpec) -> list[str]:
    """Returns the wanted columns as Arrow names them: a field of an object by its whole path."""
    columns = []
    for path in spec.column_paths.values():
        kind, depth = schema.field(path[0]).type, 1
        while (
            depth < len(path)
            and pa.types.is_struct(kind)
            and kind.get_field_index(path[depth]) >= 0
        ):
            kind, depth = kind.field(path[depth]).type, depth + 1
        columns.append(".".join(path[:depth]))
    return columns


def read_groups(
    url: str, groups: tuple[int, int] | None, spec: ReadSpec, block_bytes: int
) -> Iterator[Rows | Lost]:
    """Yields the rows of a file's row groups.

    Args:
        url: of the file.
        groups: half-open; None means all.
        spec: of the source.
        block_bytes: of text that a run of rows should have.

    Raises:
        SourceError: the file can't be opened.
    """
    with open_parquet(url) as parquet:
        fault = missing_columns(parquet.schema_arrow.names, spec)
        # A row group at a time: pre_buffer would otherwise fetch and hold all of them at once.
        for group in range(*(groups or (0, parquet.metadata.num_row_groups))):
            num_rows = parquet.metadata.row_group(group).num_rows
            if fault is not None:
                yield Lost(num_rows, fault)
                continue
            given = 0
            try:
                for table in _read_group(url, parquet, group, spec, block_bytes):
                    given += table.num_rows
                    yield Rows(table, {})
            except Exception as error:
                if not is_damage(error):
                    raise
                message = f"row group {group}, rows {given} to {num_rows - 1}: {first_line(error)}"
                yield Lost(num_rows - given, Fault("unreadable", message))


def _read_group(
    url: str, parquet: pq.ParquetFile, group: int, spec: ReadSpec, block_bytes: int
) -> Iterator[pa.Table]:
    metadata = parquet.metadata.row_group(group)
    text_bytes = text_bytes_of(parquet.metadata, group, spec)
    batch_rows = _rows_per_batch(url, metadata, group, spec, block_bytes, text_bytes)
    batches = parquet.iter_batches(
        batch_size=batch_rows,
        row_groups=[group],
        columns=_columns_to_read(parquet.schema_arrow, spec),
        use_threads=False,
    )
    held: list[pa.RecordBatch] = []
    held_rows = held_bytes = 0
    for batch in batches:
        held.append(batch)
        held_rows += batch.num_rows
        held_bytes += batch.nbytes
        if held_bytes >= block_bytes or held_rows >= BLOCK_ROWS:
            yield _join(held, spec)
            held, held_rows, held_bytes = [], 0, 0
    if held:
        yield _join(held, spec)


def _join(batches: list[pa.RecordBatch], spec: ReadSpec) -> pa.Table:
    table = pa.Table.from_batches(batches)
    return pick(table if len(batches) == 1 else table.combine_chunks(), spec)


def _rows_per_batch(
    url: str,
    metadata: pq.RowGroupMetaData,
    group: int,
    spec: ReadSpec,
    block_bytes: int,
    text_bytes: int,
) -> int:
    rows = max(1, metadata.num_rows)
    row_bytes = max(1, text_bytes // rows)
    honest = max(1, min(BLOCK_ROWS, block_bytes // row_bytes))
    chunks = _wanted_chunks(metadata, spec)
    if not any(_SHARING_ENCODINGS.intersection(chunk.encodings) for chunk in chunks):
        return honest
    # No text of the group is longer than all its pages together.
    safe = 4 * block_bytes // max(1, text_bytes)
    least = max(1, min(_MOST_SMALL_ROWS, _LEAST_BATCH_BYTES // row_bytes))
    if row_bytes < _SHORT_ROW_BYTES and rows > BLOCK_ROWS and honest > max(safe, least):
        # Short rows, many of them: worth a look at the longest text that the page does hold.
        safe = 4 * block_bytes // max(1, _longest_shared(url, group, spec))
    return min(honest, max(safe, least))


def _longest_shared(url: str, group: int, spec: ReadSpec) -> int:
    """Returns the bytes of the longest text in the dictionary page of a row group.

    Only the pages before its first row are read, without a look ahead.
    """
    with open_parquet(url) as parquet:
        names = _columns_to_read(parquet.schema_arrow, spec)
    with open_parquet(url, read_dictionary=names) as parquet:
        batches = parquet.iter_batches(
            batch_size=1, row_groups=[group], columns=names, use_threads=False
        )
        longest = 0
        for column in next(batches, pa.RecordBatch.from_pylist([])).columns:
            if not pa.types.is_dictionary(column.type):
                return parquet.metadata.row_group(group).total_byte_size
            lengths = pc.call_function("binary_length", [column.dictionary]).to_numpy(
                zero_copy_only=False
            )
            longest = max(longest, int(lengths.max(initial=0)))
        return longest
