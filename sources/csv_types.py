"""The types that pandas would find in columns of numbers: what `load_dataset` casts to text.

`datasets` lets pandas type a csv file 10,000 rows at a time, then casts to what the dataset's card
says. A run of nothing but numbers thereby loses leading zeros and trailing ones; the same happens
here, for columns that a card declares to be text. Others stay as they are written.
"""

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pyarrow as pa

from shardstream.sources.rows import Lost, Rows
from shardstream.sources.spec import DECLARED, ReadSpec

_CHUNK_ROWS = 10_000
_MOST_HELD_BYTES = 64 << 20
_MAY_BE_TYPED = re.compile(r"\s*([-+]?(\.?\d|inf)|true|false)", re.I)
_SETTINGS = ("na_values", "keep_default_na", "na_filter", "decimal", "thousands", "float_precision")
_MORE_SETTINGS = ("true_values", "false_values")


def with_types(
    runs: Iterator[Rows | Lost], spec: ReadSpec, settings: dict[str, Any]
) -> Iterator[Rows | Lost]:
    """Yields runs of rows as they came, those of a chunk of numbers joined and typed.

    Args:
        runs: of one file, as they are written.
        spec: of the source; the wanted columns are plain.
        settings: of pandas' reader.
    """
    declared = [name for name, kind in spec.column_kinds.items() if kind == DECLARED]
    if not declared:
        yield from runs
        return
    chunk_rows = int(settings.get("chunksize") or _CHUNK_ROWS)
    held: list[Rows] = []
    typed, at, held_bytes = list(declared), 0, 0
    for run in runs:
        if isinstance(run, Lost):
            yield from _release(held, typed, settings)
            held, held_bytes, at = [], 0, at + run.num_rows
            yield run
            continue
        begin = 0
        while begin < run.num_rows:
            if at % chunk_rows == 0:
                yield from _release(held, typed, settings)
                held, held_bytes, typed = [], 0, list(declared)
            end = min(run.num_rows, begin + chunk_rows - at % chunk_rows)
            piece = run.cut(begin, end)
            typed = [name for name in typed if _may_be_typed(piece.table[name])]
            at, begin = at + end - begin, end
            held.append(piece)
            held_bytes += piece.table.nbytes
            if not typed or held_bytes > _MOST_HELD_BYTES:
                yield from held
                held, held_bytes, typed = [], 0, []
    yield from _release(held, typed, settings)


def _may_be_typed(column: pa.ChunkedArray) -> bool:
    """Says whether nothing in a column shows at once that it is text."""
    try:
        texts = column.drop_null().to_pylist()
    except UnicodeDecodeError:
        return False
    return all(_MAY_BE_TYPED.match(text) for text in texts)


def _release(held: list[Rows], typed: list[str], settings: dict[str, Any]) -> Iterator[Rows]:
    if not held:
        return
    table = pa.concat_tables([run.table for run in held])
    faults, first = {}, 0
    for run in held:
        faults |= {first + i: fault for i, fault in run.faults.items()}
        first += run.num_rows
    for name in typed:
        found = _typed(table[name].to_pylist(), settings)
        if found is not None:
            table = table.set_column(table.column_names.index(name), name, found)
    yield Rows(table, faults)


def _typed(texts: list[str | None], settings: dict[str, Any]) -> pa.ChunkedArray | None:
    """Returns a column as pandas types it, None where that is text."""
    if all(text is None for text in texts):
        return None
    written = io.StringIO()
    writer = csv.writer(written, quoting=csv.QUOTE_ALL)
    writer.writerows([text] for text in ["v", *texts])
    kept = {name: settings[name] for name in (*_SETTINGS, *_MORE_SETTINGS) if name in settings}
    frame = pd.read_csv(io.StringIO(written.getvalue()), skip_blank_lines=False, **kept)
    column = pa.Table.from_pandas(frame, preserve_index=False)["v"]
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return None if is_text or len(column) != len(texts) else column
