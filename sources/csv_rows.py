"""CSV and its relatives, parsed by pandas as `datasets` parses them.

The wanted columns are read as they are written, whatever they look like (`csv_types` has the
exception). Rows are taken in numbers that fit a block, so that a large field costs its own size
only.
"""

import dataclasses
from collections.abc import Iterator
from typing import IO, Any, cast

import pandas as pd
import pyarrow as pa
from datasets.packaged_modules.csv.csv import CsvConfig

from shardstream.shard_format.messages import first_line
from shardstream.sources.csv_types import with_types
from shardstream.sources.open_files import listed_size, members_of, open_stream
from shardstream.sources.rows import AnyValue, Fault, Lost, Rows, missing_columns, pick, rows_after
from shardstream.sources.spec import ReadSpec, SourceFile

_FIRST_ROWS, _MOST_ROWS = 64, 10_000
_TARGET_BYTES = 2 << 20
# Stands in a row for fields that don't fit the header; no text can hold it.
_MISFIT = "\udcff\udcfe misfit \udcfe\udcff"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Attempt:
    """A way to parse a file, tried after those that are faster and forgive less.

    Attributes:
        is_lenient: bytes that are no text pass, and no column is converted.
        engine: of pandas; "python" goes on after rows that don't fit.
        is_single: row by row, from the first row that was not read before.
    """

    is_lenient: bool = True
    engine: str | None = None
    is_single: bool = False


_ATTEMPTS = (
    _Attempt(is_lenient=False),
    _Attempt(),
    _Attempt(engine="python"),
    _Attempt(engine="python", is_single=True),
)


def read_csv(file: SourceFile, spec: ReadSpec) -> Iterator[Rows | Lost]:
    """Yields a file's rows; one with more fields than the header has is dead.

    pandas' fast parser stops at the first row that doesn't fit, with all rows of its chunk; the
    slow one then goes on, in chunks and at last row by row, up to what nothing can parse.
    """
    for member in members_of(file.url):
        num_rows, problem = 0, None
        for attempt in _ATTEMPTS:
            try:
                with open_stream(member, num_bytes=listed_size(member, file)) as stream:
                    single_from = num_rows if attempt.is_single else None
                    frames = _read_frames(stream, spec, attempt, single_from)
                    frames = with_types(frames, spec, _settings_of(spec))
                    for rows in rows_after(frames, num_rows):
                        yield rows
                        num_rows += rows.num_rows
                problem = None
                break
            except (pd.errors.ParserError, UnicodeError) as error:
                problem = error
        if problem is not None:
            message = f"the file from row {num_rows} on: {first_line(problem)}"
            yield Lost(1, Fault("unreadable", message))


def peek_csv(file: SourceFile, spec: ReadSpec) -> list[str]:
    """Returns the names of a file's columns; none where it is empty."""
    for member in members_of(file.url):
        with open_stream(member) as stream:
            reader = _open_reader(stream, spec, _Attempt())
            if reader is not None:
                frame = _chunk(reader, 1)
                return [] if frame is None else [str(name) for name in frame.columns]
    return []


def _settings_of(spec: ReadSpec) -> dict[str, Any]:
    return CsvConfig(**dict(spec.config)).pd_read_csv_kwargs


def _open_reader(stream: IO[bytes], spec: ReadSpec, attempt: _Attempt) -> AnyValue:
    """Returns pandas' reader, None for a file without even a header."""
    options = _settings_of(spec)
    # With `usecols` the parser would take rows with too many fields, and cut their texts.
    options["dtype"] = object if attempt.is_lenient else dict.fromkeys(spec.roots, object)
    if len(options["sep"] or "") == 1:  # of one chunk, columns must have one type
        options["low_memory"] = False
    if attempt.is_lenient and options.get("encoding_errors") in (None, "strict"):
        options["encoding_errors"] = "surrogateescape"
    if attempt.engine is not None:
        options |= {"engine": attempt.engine, "on_bad_lines": _mark_misfit}
        if options.get("index_col") is None:
            options["index_col"] = False
    if options.get("engine") in ("python", "pyarrow"):
        for name in ("low_memory", "float_precision", "memory_map"):
            options.pop(name, None)
    try:
        return pd.read_csv(cast(Any, stream), iterator=True, **options)
    except pd.errors.EmptyDataError:
        return None


def _mark_misfit(_: list[str]) -> list[str]:
    return [_MISFIT]


def _chunk(reader: AnyValue, num_rows: int) -> pd.DataFrame | None:
    try:
        return reader.get_chunk(num_rows)
    except StopIteration:
        return None


def _read_frames(
    stream: IO[bytes], spec: ReadSpec, attempt: _Attempt, single_from: int | None
) -> Iterator[Rows | Lost]:
    """Yields a stream's rows in runs; one by one from a row on where that is asked for."""
    reader = _open_reader(stream, spec, attempt)
    if reader is None:
        return
    at, size = 0, _FIRST_ROWS
    while True:
        if single_from is not None:
            size = min(size, single_from - at) if at < single_from else 1
        frame = _chunk(reader, size)
        if frame is None or len(frame) == 0:
            return
        at += len(frame)
        fault = missing_columns([str(name) for name in frame.columns], spec)
        rows = Lost(len(frame), fault) if fault is not None else _rows_of(frame, spec)
        yield rows
        row_bytes = 1 if isinstance(rows, Lost) else max(1, rows.table.nbytes // len(frame))
        size = max(1, min(_MOST_ROWS, 4 * size, _TARGET_BYTES // row_bytes))


def _rows_of(frame: pd.DataFrame, spec: ReadSpec) -> Rows:
    misfits = [i for i, value in enumerate(frame.iloc[:, 0].to_numpy()) if value == _MISFIT]
    fault = Fault("invalid_row", "more fields than the header has")
    columns = {}
    for name in spec.roots:
        values = frame[name].to_numpy()
        if misfits:
            values = values.copy()
            values[misfits] = None
        try:
            columns[name] = pa.array(values, pa.large_string(), from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
            texts = [_bytes_of(value) for value in values]
            columns[name] = pa.array(texts, pa.large_binary()).view(pa.large_string())
    return Rows(pick(pa.table(columns), spec), dict.fromkeys(misfits, fault))


def _bytes_of(value: AnyValue) -> bytes | None:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return None if value is None or value != value else str(value).encode()
