"""Files of every format with every defect: what the matrix of `test_matrix.py` is made of.

A format turns rows into a file. A defect changes the rows or the file's bytes and says what should
come out: a text, or the reason of a dead letter, for each row that the file has.
"""

import bz2
import csv
import dataclasses
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Dead:
    """A row that is no document."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Made:
    """A file, and the text or the Dead of each of its rows."""

    data: bytes
    expected: list[str | Dead]


@dataclasses.dataclass(frozen=True)
class Format:
    """How rows become a file.

    Attributes:
        module: that reads it.
        suffix: of its name.
        write: rows to bytes.
        pack: bytes to compressed bytes.
        options: of the reader.
        has_columns: beside the text.
        has_types: columns may be something else than text.
    """

    module: str
    suffix: str
    write: Callable[[list[Row]], bytes]
    pack: Callable[[bytes], bytes] = bytes
    options: tuple[str, ...] = ()
    has_columns: bool = True
    has_types: bool = True


def _table(rows: list[Row]) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: pa.array([row.get(name) for row in rows]) for name in names}
    return pa.table(columns) if columns else pa.table({"text": pa.array([], pa.string())})


def _parquet(rows: list[Row]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(_table(rows), sink, row_group_size=2)
    return sink.getvalue()


def _arrow(rows: list[Row], *, as_file: bool = False) -> bytes:
    sink, table = io.BytesIO(), _table(rows)
    open_writer = pa.ipc.new_file if as_file else pa.ipc.new_stream
    with open_writer(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return sink.getvalue()


def _arrow_file(rows: list[Row]) -> bytes:
    return _arrow(rows, as_file=True)


def _jsonl(rows: list[Row]) -> bytes:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def _json_array(rows: list[Row]) -> bytes:
    return json.dumps(rows).encode()


def _csv(rows: list[Row], separator: str = ",") -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row)) or ["text"]
    sink = io.StringIO()
    writer = csv.DictWriter(sink, names, delimiter=separator, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode()


def _tsv(rows: list[Row]) -> bytes:
    return _csv(rows, "\t")


def _text(rows: list[Row]) -> bytes:
    return "".join(f"{row['text']}\n" for row in rows).encode()


def _tar(rows: list[Row]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for number, row in enumerate(rows):
            for name, value in row.items():
                if value is None:
                    continue
                kind = "txt" if name == "text" and isinstance(value, str) else f"{name}.json"
                data = value if kind == "txt" else json.dumps(value)
                info = tarfile.TarInfo(f"{number:04d}.{kind}")
                info.size = len(data.encode())
                archive.addfile(info, io.BytesIO(data.encode()))
    return sink.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}

FORMATS: dict[str, Format] = {
    "parquet": Format("parquet", ".parquet", _parquet),
    "arrow": Format("arrow", ".arrow", _arrow),
    "arrow_file": Format("arrow", ".arrow", _arrow_file),
    "jsonl": Format("json", ".jsonl", _jsonl),
    "json_array": Format("json", ".json", _json_array),
    "csv": Format("csv", ".csv", _csv, has_types=False),
    "tsv": Format("csv", ".tsv", _tsv, options=("sep=\\t",), has_types=False),
    "text": Format("text", ".txt", _text, has_columns=False, has_types=False),
    "tar": Format("webdataset", ".tar", _tar),
}
for _name in ("jsonl", "csv", "text"):
    for _suffix, _pack in PACKERS.items():
        FORMATS[_name + _suffix] = dataclasses.replace(
            FORMATS[_name], suffix=FORMATS[_name].suffix + _suffix, pack=_pack
        )


def good_rows(file: int, count: int = 5) -> list[Row]:
    """Returns a file's rows without a defect, their texts all different."""
    texts = [f"file {file}, row {row}: naïve — 東京 {'x' * row}" for row in range(count)]
    return [{"text": text, "n": row} for row, text in enumerate(texts)]


Defect = Callable[[Format, list[Row], int], Made | None]


def _of(form: Format, rows: list[Row], changed: dict[int, str | Dead] | None = None) -> Made:
    expected: list[str | Dead] = [row.get("text") for row in rows]  # type: ignore[misc]
    for row, outcome in (changed or {}).items():
        expected[row] = outcome
    return Made(form.write(_fit(form, rows)), expected)


def _fit(form: Format, rows: list[Row]) -> list[Row]:
    return rows if form.has_columns else [{"text": row["text"]} for row in rows]


def none(form: Format, rows: list[Row], at: int) -> Made | None:
    return _of(form, rows)


def empty_text(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module == "csv":
        return None  # an empty field is a null there
    rows[at]["text"] = ""
    return _of(form, rows)


def null_row(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module == "text":
        return None
    rows[at]["text"] = None
    return _of(form, rows, {at: Dead("null_text")})


def only_null_rows(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module == "text":
        return None
    for row in rows:
        row["text"] = None
    return _of(form, rows, {i: Dead("null_text") for i in range(len(rows))})


def missing_column(form: Format, rows: list[Row], at: int) -> Made | None:
    if not form.has_columns:
        return None
    rows = [{"n": row["n"]} for row in rows]
    return _of(form, rows, {i: Dead("null_text") for i in range(len(rows))})


def numbers(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module == "webdataset":
        return None
    for number, row in enumerate(rows):
        row["text"] = number + 7
    return _of(form, rows, {i: str(i + 7) for i in range(len(rows))})


def fractions(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module == "webdataset":
        return None
    for number, row in enumerate(rows):
        row["text"] = number + 0.5
    return _of(form, rows, {i: str(i + 0.5) for i in range(len(rows))})


def times(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module != "json":
        return None
    for number, row in enumerate(rows):
        row["text"] = f"2024-01-0{number + 1}T10:00:00"
    return _of(form, rows, {i: f"2024-01-0{i + 1} 10:00:00" for i in range(len(rows))})


def one_number(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module != "json":
        return None
    rows[at]["text"] = 5
    return _of(form, rows, {at: Dead("not_a_string")})


def one_list(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module != "json":
        return None
    rows[at]["text"] = ["a"]
    return _of(form, rows, {at: Dead("not_a_string")})


def binary(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module not in ("parquet", "arrow"):
        return None
    expected: list[str | Dead] = [row["text"] for row in rows]
    for row in rows:
        row["text"] = row["text"].encode()
    return Made(form.write(rows), expected)


def binary_bad_byte(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module not in ("parquet", "arrow"):
        return None
    expected: list[str | Dead] = [row["text"] for row in rows]
    expected[at] = Dead("invalid_utf8")
    for row in rows:
        row["text"] = row["text"].encode()
    rows[at]["text"] = b"\xff" + rows[at]["text"]
    return Made(form.write(rows), expected)


def side_column_changes(form: Format, rows: list[Row], at: int) -> Made | None:
    if not form.has_columns:
        return None
    for row in rows:
        row["n"] = {"a": [row["n"]]} if form.has_types else f"no number {row['n']}"
    return _of(form, rows)


def side_column_more(form: Format, rows: list[Row], at: int) -> Made | None:
    if not form.has_columns:
        return None
    for row in rows:
        row["more"] = "x"
    return _of(form, rows)


def side_column_less(form: Format, rows: list[Row], at: int) -> Made | None:
    return _of(form, [{"text": row["text"]} for row in rows]) if form.has_columns else None


def side_column_in_one_row(form: Format, rows: list[Row], at: int) -> Made | None:
    if not form.has_columns or form.module not in ("json", "webdataset"):
        return None
    rows[at]["n"] = {"b": "x"}
    rows[at]["only here"] = [1]
    return _of(form, rows)


def other_order(form: Format, rows: list[Row], at: int) -> Made | None:
    return _of(form, [dict(reversed(row.items())) for row in rows]) if form.has_columns else None


def bad_byte(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module not in ("json", "csv", "text"):
        return None
    made = _of(form, rows, {at: Dead("invalid_utf8")})
    if form.suffix.startswith(".json") and not form.suffix.startswith(".jsonl"):
        return None  # escaped throughout
    text = rows[at]["text"].encode()
    return Made(made.data.replace(text, text.replace(b" ", b"\xff", 1)), made.expected)


def bad_byte_beside(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module != "csv" and not form.suffix.startswith(".jsonl"):
        return None
    rows[at]["n"] = "beside"
    made = _of(form, rows)
    return Made(made.data.replace(b"beside", b"bes\xffide"), made.expected)


def lone_surrogate(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module != "json":
        return None
    rows[at]["text"] = "before SURROGATE after"
    # In an array `datasets` parses with a reader that leaves such a character out.
    is_array = form.suffix == ".json"
    made = _of(form, rows, {at: "before  after" if is_array else Dead("invalid_utf8")})
    return Made(made.data.replace(b"SURROGATE", b"\\ud800"), made.expected)


def lone_surrogate_beside(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module != "json":
        return None
    rows[at]["n"] = "SURROGATE"
    made = _of(form, rows)
    return Made(made.data.replace(b"SURROGATE", b"\\ud800"), made.expected)


def broken_row(form: Format, rows: list[Row], at: int) -> Made | None:
    """A line that is no JSON; a csv row with more fields than the header."""
    rows[at]["text"] = "BROKEN"
    made = _of(form, rows, {at: Dead("invalid_row")})
    if form.suffix.startswith(".jsonl"):
        return Made(made.data.replace(b'"BROKEN"', b'"BROKEN'), made.expected)
    if form.module == "csv" and at > 0:
        separator = b"\t" if form.options else b","
        return Made(made.data.replace(b"BROKEN", b"BROKEN" + separator * 3), made.expected)
    return None


def repeated_key(form: Format, rows: list[Row], at: int) -> Made | None:
    if not form.suffix.startswith(".jsonl"):
        return None
    rows[at]["text"] = "REPEATED"
    made = _of(form, rows, {at: Dead("invalid_row")})
    return Made(made.data.replace(b'"REPEATED"', b'"a", "text": "b"'), made.expected)


def no_object(form: Format, rows: list[Row], at: int) -> Made | None:
    if not form.suffix.startswith(".jsonl"):
        return None
    lines = form.write(rows).splitlines(keepends=True)
    lines[at] = b"5\n"
    expected: list[str | Dead] = [row["text"] for row in rows]
    expected[at] = Dead("invalid_row")
    return Made(b"".join(lines), expected)


def repeated_column(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module not in ("parquet", "arrow"):
        return None
    column = pa.array([row["text"] for row in rows])
    table = pa.Table.from_arrays([column, column], ["text", "text"])
    sink = io.BytesIO()
    if form.module == "parquet":
        pq.write_table(table, sink)
    else:
        open_writer = pa.ipc.new_file if form.write is _arrow_file else pa.ipc.new_stream
        with open_writer(sink, table.schema) as writer:
            writer.write_table(table)
    return Made(sink.getvalue(), [Dead("invalid_row")] * len(rows))


def repeated_column_beside(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module not in ("parquet", "arrow"):
        return None
    text = pa.array([row["text"] for row in rows])
    beside = pa.array([row["n"] for row in rows])
    table = pa.Table.from_arrays([beside, text, beside], ["n", "text", "n"])
    sink = io.BytesIO()
    if form.module == "parquet":
        pq.write_table(table, sink)
    else:
        open_writer = pa.ipc.new_file if form.write is _arrow_file else pa.ipc.new_stream
        with open_writer(sink, table.schema) as writer:
            writer.write_table(table)
    return Made(sink.getvalue(), [row["text"] for row in rows])


def no_bytes(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module in ("parquet", "webdataset"):
        return None  # no such file without a byte
    return Made(b"", [])


def no_rows(form: Format, rows: list[Row], at: int) -> Made | None:
    return Made(form.write([]), []) if form.module != "json" or "l" in form.suffix else None


def garbage(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module in ("parquet", "arrow", "webdataset"):
        return Made(b"neither this nor that" * 40, [Dead("unreadable")])
    return None


def cut(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module == "parquet":
        data = form.write(rows)
        return Made(data[: len(data) // 2], [Dead("unreadable")])
    if form.suffix.startswith(".jsonl"):
        made = _of(form, rows, {len(rows) - 1: Dead("invalid_row")})
        return Made(made.data[:-4], made.expected)
    if form.module == "webdataset":
        data = form.write(rows)
        last = data.rfind(f"{len(rows) - 1:04d}.txt".encode())
        expected: list[str | Dead] = [row["text"] for row in rows[:-1]]
        return Made(data[: last + 512 + 3], [*expected, Dead("unreadable")])
    return None


def damaged_row_group(form: Format, rows: list[Row], at: int) -> Made | None:
    if form.module != "parquet":
        return None
    data = bytearray(form.write(rows))
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    group = at // 2
    chunk = metadata.row_group(group).column(0)
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    data[begin : begin + 20] = b"\xff" * 20
    expected: list[str | Dead] = [row["text"] for row in rows]
    for row in range(group * 2, min(len(rows), group * 2 + 2)):
        expected[row] = Dead("unreadable")
    return Made(bytes(data), expected)


DEFECTS: dict[str, Defect] = {
    function.__name__: function
    for function in (
        none,
        empty_text,
        null_row,
        only_null_rows,
        missing_column,
        numbers,
        fractions,
        times,
        one_number,
        one_list,
        binary,
        binary_bad_byte,
        side_column_changes,
        side_column_more,
        side_column_less,
        side_column_in_one_row,
        other_order,
        bad_byte,
        bad_byte_beside,
        lone_surrogate,
        lone_surrogate_beside,
        broken_row,
        repeated_key,
        no_object,
        repeated_column,
        repeated_column_beside,
        no_bytes,
        no_rows,
        garbage,
        cut,
        damaged_row_group,
    )
}
# Defects of one row, tried in the first and in the last.
OF_A_ROW = frozenset(
    (
        "empty_text",
        "null_row",
        "one_number",
        "one_list",
        "binary_bad_byte",
        "side_column_in_one_row",
        "bad_byte",
        "bad_byte_beside",
        "lone_surrogate",
        "lone_surrogate_beside",
        "broken_row",
        "repeated_key",
        "no_object",
        "damaged_row_group",
    )
)
