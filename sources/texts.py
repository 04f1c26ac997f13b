"""Columns as a file has them → texts, or the reason why a row has none.

What is no text is cast as `datasets` casts it to a string column: numbers, times and bytes are
written out. What can't be cast is noted by row and never stops the read.
"""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardstream.sources.options import parse_template
from shardstream.sources.rows import PREVIEW_CHARACTERS, AnyValue, Fault, Rows
from shardstream.sources.spec import DECLARED, JSON, ReadSpec


def join_texts(rows: Rows, spec: ReadSpec) -> tuple[pa.LargeStringArray, dict[int, Fault]]:
    """Returns large_string[n], null where a row is no document, and the faults by row."""
    faults = dict(rows.faults)
    kinds = spec.column_kinds
    columns = {name: _as_text(rows.table[name], name, kinds[name], faults) for name in spec.columns}
    for name, column in columns.items():
        columns[name] = _without_giants(column, name, spec.max_document_bytes, faults)
    if spec.text_template is None:
        return columns[spec.columns[0]], faults
    return _fill_template(spec.text_template, columns), faults


def _as_text(
    chunks: pa.ChunkedArray, name: str, kind: str, faults: dict[int, Fault]
) -> pa.LargeStringArray:
    """Returns large_string[n] of a column; rows that are no text are noted in faults and null."""
    column = _one_array(chunks)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    elif pa.types.is_run_end_encoded(column.type):
        column = pc.call_function("run_end_decode", [column])
    if isinstance(column, pa.ExtensionArray):
        column = _decode_json(column, name, kind, faults)
    elif pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        column = column.cast(pa.large_binary()).view(pa.large_string())
    elif not (pa.types.is_null(column.type) or is_text(column.type)):
        column = _write_out(column, name, kind, faults)
    column = column.cast(pa.large_string()) if column.type != pa.large_string() else column
    column = _without_invalid_utf8(column, name, faults)
    if column.null_count:
        for i in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
            faults.setdefault(i, Fault("null_text", f"column {name!r} is null"))
    return column


def is_text(kind: pa.DataType) -> bool:
    """Says whether an Arrow type is one of the three string types."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()


def _one_array(chunks: pa.ChunkedArray) -> pa.Array:
    if chunks.num_chunks == 1:
        return chunks.chunk(0)
    if chunks.num_chunks == 0:
        return pa.array([], chunks.type)
    if is_text(chunks.type):
        chunks = chunks.cast(pa.large_string())  # together they may hold more than 2 GiB
    return pa.concat_arrays(chunks.chunks)


def _write_out(column: pa.Array, name: str, kind: str, faults: dict[int, Fault]) -> pa.Array:
    """Casts what is no text; each row where that can't be done is a fault."""
    if kind != JSON and not pa.types.is_nested(column.type):
        try:
            return column.cast(pa.string()).cast(pa.large_string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass
    if kind == DECLARED and pa.types.is_struct(column.type):
        return _structs_as_json(column)
    for i in np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)).tolist():
        value = str(column[i].as_py())[:PREVIEW_CHARACTERS]
        faults.setdefault(i, Fault("not_a_string", f"column {name!r} holds {column.type}", value))
    return pa.nulls(len(column), pa.large_string())


def _structs_as_json(column: pa.StructArray) -> pa.Array:
    """Returns each object as `datasets` writes one into a string column."""
    import pandas as pd

    series = column.to_pandas(types_mapper=pd.ArrowDtype)
    lines = series.to_json(orient="records", lines=True).split("\n")
    values = (None if line.strip() == "null" else line.strip() for line in lines if line.strip())
    return pa.array(values, pa.large_string())


def _decode_json(
    column: pa.ExtensionArray, name: str, kind: str, faults: dict[int, Fault]
) -> pa.Array:
    """Decodes what `datasets` makes of a JSON column of mixed types: each value as JSON text."""
    values: list[str | None] = []
    for i, encoded in enumerate(column.storage.to_pylist()):
        value, fault = text_of(None if encoded is None else json.loads(encoded), name, kind)
        if fault is not None:
            faults.setdefault(i, fault)
        values.append(value)
    return pa.array(values, pa.large_string())


def text_of(value: AnyValue, name: str, kind: str) -> tuple[str | None, Fault | None]:
    """Returns the text of a JSON value that stands among texts, or why it has none."""
    if value is None or isinstance(value, str):
        return value, None
    encoded = json.dumps(value, ensure_ascii=False)
    if kind == DECLARED and not isinstance(value, list):
        return encoded, None
    message = f"column {name!r} holds a JSON {type(value).__name__}"
    return None, Fault("not_a_string", message, encoded[:PREVIEW_CHARACTERS])


def _without_invalid_utf8(
    column: pa.LargeStringArray, name: str, faults: dict[int, Fault]
) -> pa.LargeStringArray:
    try:
        column.validate(full=True)
        return column
    except pa.ArrowInvalid:
        pass
    valid = np.ones(len(column), bool)
    for i, value in enumerate(column.cast(pa.large_binary())):
        data = value.as_buffer()
        if data is None:
            continue
        try:
            str(data, "utf-8")
        except UnicodeDecodeError as error:
            valid[i] = False
            preview = bytes(data[: 4 * PREVIEW_CHARACTERS]).decode(errors="replace")
            fault = Fault("invalid_utf8", f"column {name!r}: {error}", preview[:PREVIEW_CHARACTERS])
            faults.setdefault(i, fault)
    return _only(column, valid)


def _without_giants(
    column: pa.LargeStringArray, name: str, limit: int, faults: dict[int, Fault]
) -> pa.LargeStringArray:
    if len(column) == 0 or column.nbytes <= limit:
        return column
    lengths = (
        pc.call_function("binary_length", [column]).fill_null(0).to_numpy(zero_copy_only=False)
    )
    giants = np.flatnonzero(lengths > limit)
    if not len(giants):
        return column
    for i in giants.tolist():
        faults.setdefault(i, too_large(int(lengths[i]), limit, f"column {name!r}"))
    return _only(column, lengths <= limit)


def _only(column: pa.LargeStringArray, wanted: np.ndarray) -> pa.LargeStringArray:
    """Returns the column with all but the wanted rows null, over the same bytes."""
    valid = column.is_valid().to_numpy(zero_copy_only=False) & wanted
    bits = pa.array(np.concatenate([np.zeros(column.offset, bool), valid])).buffers()[1]
    buffers = [bits, *column.buffers()[1:]]
    return pa.Array.from_buffers(column.type, len(column), buffers, offset=column.offset)


def too_large(num_bytes: int, limit: int, what: str) -> Fault:
    """Returns the fault of a text above the limit."""
    return Fault(
        "too_large",
        f"{what} has {num_bytes} bytes, expected at most {limit >> 20} MiB; max_document_mb "
        "allows more",
    )


def _fill_template(template: str, columns: dict[str, pa.LargeStringArray]) -> pa.LargeStringArray:
    pieces: list[pa.LargeStringArray | pa.Scalar] = []
    for literal, column in parse_template(template):
        if literal:
            pieces.append(pa.scalar(literal, pa.large_string()))
        if column is not None:
            pieces.append(columns[column])
    separator = pa.scalar("", pa.large_string())
    return pc.call_function("binary_join_element_wise", [*pieces, separator])
