"""Reads a partition as blocks of text: Arrow arrays from start to end, no Python string a document.

Rows whose text is null, not text or not UTF-8 come out as dead letters beside the block they stood
in; a row is never lost and never stops the read.
"""

import dataclasses
import json
import threading
from collections.abc import Iterator
from typing import NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from shardstream.sources.options import parse_template
from shardstream.sources.partitions import Partition, open_parquet
from shardstream.sources.resolve import ReadSpec, SourceFile

# Blocks of about this much text: large enough that the cost of a call vanishes, small enough that a
# few of them in flight are nothing beside a shard.
BLOCK_BYTES = 2 << 20
BLOCK_ROWS = 8192
_PREVIEW_CHARACTERS = 200

# `datasets` patches modules for streaming as it opens a builder; one thread at a time.
_opening = threading.Lock()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A document that can't become tokens, and why.

    Attributes:
        partition: index of its file.
        row: row in the file.
        reason: a code: "null_text", "not_a_string", "invalid_utf8", "tokenizer_error".
        message: what was found.
        preview: its first characters, as far as they can be shown.
    """

    partition: int
    row: int
    reason: str
    message: str
    preview: str


class TextBlock(NamedTuple):
    """Documents read together.

    `texts` is large_string[n] without nulls; document i is row `rows[i]` (int64[n]) of file
    `partition`; `num_read` counts the dead letters too.
    """

    partition: int
    rows: np.ndarray
    texts: pa.LargeStringArray
    dead_letters: list[DeadLetter]
    num_read: int


def read_blocks(
    partition: Partition, spec: ReadSpec, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[TextBlock]:
    """Yields the documents of a partition in order.

    Guarantees: every row of the partition is in one block, as a text or as a dead letter. At most
    one row group (one chunk of `datasets`' own reader for other formats) is in memory.
    """
    skip, left = partition.skip_documents, partition.max_documents
    for file in partition.files:
        row = partition.first_row
        for table in _read_tables(file, partition, spec, block_bytes):
            first, num_rows = row, table.num_rows
            row += num_rows
            if skip >= num_rows:
                skip -= num_rows
                continue
            table = table.slice(skip, left)  # a length of None means to the end
            first, skip = first + skip, 0
            for start, piece in _split_by_bytes(table, block_bytes):
                yield _text_block(piece, file.index, first + start, spec)
            if left is not None:
                left -= table.num_rows
                if left == 0:
                    return


def _read_tables(
    file: SourceFile, partition: Partition, spec: ReadSpec, block_bytes: int
) -> Iterator[pa.Table]:
    if spec.module != "parquet":
        yield from _read_with_datasets(file, spec)
        return
    with open_parquet(file.url) as parquet:
        groups = range(*(partition.row_groups or (0, parquet.metadata.num_row_groups)))
        # A row group at a time: pre_buffer would otherwise fetch and hold all of them at once.
        for group in groups:
            batches = parquet.iter_batches(
                batch_size=_rows_per_block(parquet, group, spec, block_bytes),
                row_groups=[group],
                columns=list(spec.columns),
                use_threads=False,
            )
            for batch in batches:
                yield pa.Table.from_batches([batch])


def _rows_per_block(parquet: object, group: int, spec: ReadSpec, block_bytes: int) -> int:
    metadata = parquet.metadata.row_group(group)  # type: ignore[attr-defined]
    text_bytes = sum(
        metadata.column(i).total_uncompressed_size
        for i in range(metadata.num_columns)
        if metadata.column(i).path_in_schema in spec.columns
    )
    return int(min(BLOCK_ROWS, max(1, block_bytes * metadata.num_rows // max(1, text_bytes))))


def _read_with_datasets(file: SourceFile, spec: ReadSpec) -> Iterator[pa.Table]:
    with _opening:
        stream = datasets.load_dataset(
            spec.module,
            data_files={"train": [file.url]},
            split="train",
            streaming=True,
            **dict(spec.config),
        )
    try:
        tables = stream.with_format("arrow").iter(BLOCK_ROWS)
        for table in tables:
            missing = [column for column in spec.columns if column not in table.column_names]
            if missing:
                # A jsonl file whose rows lack the key altogether: nulls, as in any other file.
                for column in missing:
                    table = table.append_column(column, pa.nulls(table.num_rows))
            yield table.select(list(spec.columns))
    except (ValueError, pa.ArrowInvalid, datasets.exceptions.DatasetGenerationError) as error:
        cause = error.__cause__ or error
        raise ValueError(
            f"{file.url}: can't be read as {spec.module}: {str(cause).splitlines()[0]}. "
            "Mend the file or leave it out with --data_files."
        ) from error


def _split_by_bytes(table: pa.Table, block_bytes: int) -> Iterator[tuple[int, pa.Table]]:
    """Yields (first row, slice) so that a slice is about block_bytes, or one row."""
    pieces = max(1, min(table.num_rows, table.nbytes // block_bytes))
    step = -(-table.num_rows // pieces)
    for start in range(0, table.num_rows, step):
        yield start, table.slice(start, step)


def _text_block(table: pa.Table, partition: int, first_row: int, spec: ReadSpec) -> TextBlock:
    rows = np.arange(first_row, first_row + table.num_rows, dtype=np.int64)
    reasons: dict[int, tuple[str, str, str]] = {}
    columns = {name: _as_text(table[name].combine_chunks(), name, reasons) for name in spec.columns}
    if spec.text_template is None:
        texts = columns[spec.columns[0]]
    else:
        texts = _fill_template(spec.text_template, columns)
    dead = [
        DeadLetter(partition=partition, row=first_row + i, reason=r, message=m, preview=p)
        for i, (r, m, p) in sorted(reasons.items())
    ]
    if dead:
        keep = np.ones(len(rows), bool)
        keep[list(reasons)] = False
        rows, texts = rows[keep], texts.filter(pa.array(keep))
    return TextBlock(partition, rows, texts, dead, table.num_rows)


def _as_text(
    column: pa.Array, name: str, reasons: dict[int, tuple[str, str, str]]
) -> pa.LargeStringArray:
    """Returns large_string[n] of a column; rows that are no text are noted in reasons and null."""
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if isinstance(column, pa.ExtensionArray):
        column = _decode_json(column, name, reasons)
    elif not (pa.types.is_null(column.type) or _is_text(column.type)):
        for i in np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)).tolist():
            value = str(column[i].as_py())[:_PREVIEW_CHARACTERS]
            reasons[i] = ("not_a_string", f"column {name!r} holds {column.type}", value)
        column = pa.nulls(len(column), pa.large_string())
    column = column.cast(pa.large_string()) if column.type != pa.large_string() else column
    column = _without_invalid_utf8(column, name, reasons)
    if column.null_count:
        for i in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
            reasons.setdefault(i, ("null_text", f"column {name!r} is null", ""))
    return column


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()


def _decode_json(
    column: pa.ExtensionArray, name: str, reasons: dict[int, tuple[str, str, str]]
) -> pa.Array:
    """Decodes what `datasets` makes of a JSON column of mixed types: each value as JSON text."""
    values: list[str | None] = []
    for i, encoded in enumerate(column.storage.to_pylist()):
        value = None if encoded is None else json.loads(encoded)
        if value is not None and not isinstance(value, str):
            kind = type(value).__name__
            preview = encoded[:_PREVIEW_CHARACTERS]
            reasons[i] = ("not_a_string", f"column {name!r} holds a JSON {kind}", preview)
            value = None
        values.append(value)
    return pa.array(values, pa.large_string())


def _without_invalid_utf8(
    column: pa.LargeStringArray, name: str, reasons: dict[int, tuple[str, str, str]]
) -> pa.LargeStringArray:
    try:
        column.validate(full=True)
        return column
    except pa.ArrowInvalid:
        pass
    raw = column.cast(pa.large_binary())
    valid = np.ones(len(column), bool)
    for i, value in enumerate(raw.to_pylist()):
        try:
            (value or b"").decode()
        except UnicodeDecodeError as error:
            valid[i] = False
            preview = value[:_PREVIEW_CHARACTERS].decode(errors="replace")
            reasons[i] = ("invalid_utf8", f"column {name!r}: {error}", preview)
    return pc.if_else(pa.array(valid), raw, None).cast(pa.large_string())


def _fill_template(template: str, columns: dict[str, pa.LargeStringArray]) -> pa.LargeStringArray:
    parts: list[pa.LargeStringArray | pa.Scalar] = []
    for literal, column in parse_template(template):
        if literal:
            parts.append(pa.scalar(literal, pa.large_string()))
        if column is not None:
            parts.append(columns[column])
    return pc.binary_join_element_wise(*parts, pa.scalar("", pa.large_string()))
