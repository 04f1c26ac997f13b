"""Chunks of JSON Lines → the wanted columns, a row an object.

A chunk is parsed by Arrow with the wanted columns as strings and nothing else looked at. Where that
fails (a number among texts, a broken line, a lone surrogate) the chunk is parsed again line by
line, and a line that is no object is one dead row. `datasets` parses the same chunks with types of
its own finding: times are the one case in which that changes a text, so they are found here too.
"""

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.json as paj

from shardstream.shard_format.messages import first_line
from shardstream.sources.rows import PREVIEW_CHARACTERS, AnyValue, Fault, Rows, pick
from shardstream.sources.spec import JSON, ReadSpec
from shardstream.sources.texts import text_of

_MIN_BLOCK_BYTES = 16 << 10
_LEAST_THREADED_BYTES = 1 << 20
_MAY_BE_TIME = re.compile(r"\d{4}-\d\d-\d\d")
_SPACE = re.compile(r"\s*")


def parse_chunk(chunk: bytes, spec: ReadSpec) -> Iterator[Rows]:
    """Yields the rows of whole lines."""
    if not chunk.strip():
        return
    try:
        table = pick(_parse_with_arrow(chunk, _wanted_schema(spec)), spec)
    except pa.ArrowInvalid:
        yield _parse_singly(chunk, spec)
        return
    yield Rows(_with_times(table, spec), {})


def _wanted_schema(spec: ReadSpec) -> pa.Schema:
    """Returns the schema of the wanted columns' roots, all leaves strings."""
    tree: dict[str, Any] = {}
    for path in spec.column_paths.values():
        branch = tree
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
            if branch is None:
                raise pa.ArrowInvalid("a column and a field of it are both wanted")
        branch[path[-1]] = None

    def type_of(branch: dict[str, Any] | None) -> pa.DataType:
        if branch is None:
            return pa.large_string()
        return pa.struct([(name, type_of(below)) for name, below in branch.items()])

    return pa.schema([(name, type_of(below)) for name, below in tree.items()])


def _parse_with_arrow(chunk: bytes, schema: pa.Schema | None) -> pa.Table:
    block_bytes = max(len(chunk) // 32, _MIN_BLOCK_BYTES)
    options = paj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    if schema is None:
        options = paj.ParseOptions()
    while True:
        try:
            return paj.read_json(
                io.BytesIO(chunk),
                read_options=paj.ReadOptions(
                    # Starting threads costs more than parsing a small chunk.
                    use_threads=len(chunk) > _LEAST_THREADED_BYTES,
                    block_size=min(block_bytes, 2**31 - 1),
                ),
                parse_options=options,
            )
        except pa.ArrowInvalid as error:
            if "straddling" not in str(error) or block_bytes >= len(chunk):
                raise
            block_bytes *= 2


def _with_times(table: pa.Table, spec: ReadSpec) -> pa.Table:
    """Returns the table with columns of nothing but times as Arrow's JSON reader types them."""
    for i, name in enumerate(table.column_names):
        column = table[name]
        if spec.column_kinds[name] == JSON or not pa.types.is_large_string(column.type):
            continue
        try:
            valid = column.drop_null()
            if len(valid) == 0 or not _MAY_BE_TIME.match(valid[0].as_py()):
                continue
            lines = "".join(
                f'{{"v":{json.dumps(text)}}}\n' if text is not None else '{"v":null}\n'
                for text in column.to_pylist()
            )
            found = _parse_with_arrow(lines.encode(), None)["v"]
        except (UnicodeError, pa.ArrowInvalid):
            continue
        if pa.types.is_timestamp(found.type):
            table = table.set_column(i, name, found)
    return table


class Line:
    """A parsed line: an object, or why there is none."""

    def __init__(self, row: AnyValue, fault: Fault | None = None) -> None:
        if fault is None and not isinstance(row, dict):
            found = json.dumps(row)[:PREVIEW_CHARACTERS]
            fault = Fault("invalid_row", f"a JSON {type(row).__name__}, expected an object", found)
        self.row: dict[str, Any] = row if fault is None else {}
        self.fault = fault


def _parse_singly(chunk: bytes, spec: ReadSpec) -> Rows:
    """Returns the rows of whole lines, of which some are not what Arrow takes."""
    wanted = frozenset(spec.roots)
    lines = []
    for raw in chunk.split(b"\n"):
        for line in parse_line(raw, spec) if raw.strip() else ():
            line.row = {name: line.row[name] for name in wanted if name in line.row}
            lines.append(line)
    return rows_of(lines, spec)


def parse_line(raw: bytes, spec: ReadSpec) -> list[Line]:
    """Returns the objects of a line, as a rule one; of a broken line one that says so."""
    repeated: set[str] = set()

    def note_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) != len(pairs):
            names = [name for name, _ in pairs]
            repeated.update(name for name in row if names.count(name) > 1)
        return row

    text = raw.decode("utf-8", "surrogateescape")
    decoder = json.JSONDecoder(object_pairs_hook=note_repeats, strict=False)
    found, at = [], _SPACE.match(text).end()  # type: ignore[union-attr]
    while at < len(text):
        try:
            row, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            preview = raw[: 4 * PREVIEW_CHARACTERS].decode(errors="replace")[:PREVIEW_CHARACTERS]
            found.append(Line(None, Fault("invalid_row", f"no JSON: {first_line(error)}", preview)))
            break
        fault = None
        if wanted := repeated & {name for path in spec.column_paths.values() for name in path}:
            fault = Fault("invalid_row", f"key {min(wanted)!r} is there twice")
        repeated.clear()
        found.append(Line(row, fault))
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
    # Several objects of one line are rows of their own; a broken line is one.
    broken = [line for line in found if line.fault is not None]
    return broken[:1] if broken else found


def rows_of(lines: list[Line], spec: ReadSpec) -> Rows:
    """Returns the rows of parsed lines."""
    faults = {i: line.fault for i, line in enumerate(lines) if line.fault is not None}
    columns = {}
    for name, path in spec.column_paths.items():
        values = [_value_at(line.row, path) for line in lines]
        columns[name] = _typed(values, name, spec.column_kinds[name], faults)
    return Rows(_with_times(pa.table(columns), spec), faults)


def _value_at(value: AnyValue, path: tuple[str, ...]) -> AnyValue:
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _typed(values: list[Any], name: str, kind: str, faults: dict[int, Fault]) -> pa.Array:
    """Returns an array of the one type that all values have, else of those that are text."""
    if any(isinstance(value, str) for value in values) or kind == JSON:
        texts: list[bytes | None] = []
        for i, value in enumerate(values):
            text, fault = text_of(value, name, kind)
            if fault is not None:
                faults.setdefault(i, fault)
            texts.append(None if text is None else _utf8(text))
        return pa.array(texts, pa.large_binary()).view(pa.large_string())
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return _typed_singly(values, name, kind, faults)


def _typed_singly(values: list[Any], name: str, kind: str, faults: dict[int, Fault]) -> pa.Array:
    texts = []
    for i, value in enumerate(values):
        text, fault = text_of(value, name, kind)
        if fault is not None:
            faults.setdefault(i, fault)
        texts.append(text)
    return pa.array(texts, pa.large_string())


def _utf8(text: str) -> bytes:
    """Returns a text's bytes, invalid where it holds what UTF-8 can't say."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
