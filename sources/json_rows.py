"""JSON Lines, and JSON arrays, a row an object.

A chunk is parsed by Arrow with the wanted columns as strings and nothing else looked at. Where that
fails (a number among texts, a broken line, a lone surrogate) the chunk is parsed again line by
line, and a line that is no object is one dead row. `datasets` parses the same chunks with types of
its own finding: times are the one case in which that changes a text, so they are found here too.
"""

import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.json as paj
from datasets.utils.json import ujson_dumps, ujson_loads
from shardstream.sources.errors import SourceError, first_line
from shardstream.sources.open_files import LineReader, members_of, open_stream
from shardstream.sources.other_rows import read_with_datasets
from shardstream.sources.rows import PREVIEW_CHARACTERS, AnyValue, Fault, Lost, Rows, pick
from shardstream.sources.spec import JSON, ReadSpec, SourceFile
from shardstream.sources.texts import text_of, too_large

_CHUNK_BYTES = 10 << 20  # as `datasets` has it: types are found chunk by chunk
_MIN_BLOCK_BYTES = 16 << 10
_LEAST_THREADED_BYTES = 1 << 20
_ROWS_AT_ONCE = 8192
# A line may hold more than the text: its escapes, and columns that are not wanted.
_LINE_BYTES_PER_TEXT_BYTE = 2
_MAY_BE_TIME = re.compile(r"\d{4}-\d\d-\d\d")
_SPACE = re.compile(r"\s*")


def read_json(file: SourceFile, spec: ReadSpec) -> Iterator[Rows | Lost]:
    """Yields a file's rows; a blank line is none."""
    config = dict(spec.config)
    if config.get("field") is not None:
        yield from read_with_datasets(file, spec)
        return
    chunk_bytes = int(config.get("chunksize") or _CHUNK_BYTES)
    limit = _LINE_BYTES_PER_TEXT_BYTE * spec.max_document_bytes
    for member in members_of(file.url):
        with open_stream(member) as stream:
            reader, is_first = LineReader(stream, limit), True
            while True:
                chunk, oversize = reader.read_chunk(chunk_bytes)
                if not chunk and not oversize:
                    break
                if is_first:
                    chunk = chunk.removeprefix(codecs.BOM_UTF8)
                    if chunk.lstrip().startswith(b"["):
                        data = chunk + reader.read_rest()
                        yield from _read_array(_as_utf8(data, config), spec)
                        break
                    if _spans_lines(chunk):
                        # One object over many lines: what `datasets` makes of the file as a whole.
                        yield from read_with_datasets(file, spec)
                        return
                is_first = False
                yield from parse_chunk(_as_utf8(chunk, config), spec)
                if oversize:
                    yield Lost(1, too_large(oversize, limit, "the line"))


def _as_utf8(data: bytes, config: dict[str, Any]) -> bytes:
    encoding = config.get("encoding", "utf-8")
    if encoding.lower() in ("utf-8", "utf8"):
        return data
    errors = config.get("encoding_errors") or "surrogateescape"
    return data.decode(encoding, errors).encode("utf-8", "surrogatepass")


def _spans_lines(chunk: bytes) -> bool:
    """Says whether a file's first object goes on after its first line."""
    first, _, rest = chunk.lstrip().partition(b"\n")
    if not rest or not first.startswith(b"{"):
        return False
    if first.strip() == b"{":
        return True
    try:
        json.loads(first)
        return False
    except (ValueError, RecursionError):
        pass
    try:
        _, end = json.JSONDecoder().raw_decode(chunk.decode("utf-8", "surrogateescape").lstrip())
        return end > len(first.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return False


def parse_chunk(chunk: bytes, spec: ReadSpec) -> Iterator[Rows]:
    """Yields the rows of whole lines."""
    if not chunk.strip():
        return
    try:
        table = pick(_parse_with_arrow(chunk, _wanted_schema(spec)), spec)
    except pa.ArrowInvalid:
        yield from _parse_lines(chunk, spec)
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


def _read_array(data: bytes, spec: ReadSpec) -> Iterator[Rows | Lost]:
    """Yields the items of one JSON array: objects, or strings that are the text."""
    try:
        items = ujson_loads(data)
    except ValueError:
        try:
            items = json.loads(data.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            yield Lost(1, Fault("unreadable", f"the file is no JSON array: {first_line(error)}"))
            return
    if items and not isinstance(items[0], dict):
        items = [{"text": item} for item in items]
    for begin in range(0, len(items), _ROWS_AT_ONCE):
        some = items[begin : begin + _ROWS_AT_ONCE]
        try:
            lines = "\n".join([ujson_dumps(item) for item in some]).encode()
        except (ValueError, OverflowError):
            yield _rows_of([_Line(item) for item in some], spec)
            continue
        yield from parse_chunk(lines, spec)


class _Line:
    """A parsed line: an object, or why there is none."""

    def __init__(self, row: AnyValue, fault: Fault | None = None) -> None:
        if fault is None and not isinstance(row, dict):
            found = json.dumps(row)[:PREVIEW_CHARACTERS]
            fault = Fault("invalid_row", f"a JSON {type(row).__name__}, expected an object", found)
        self.row: dict[str, Any] = row if fault is None else {}
        self.fault = fault


def _parse_lines(chunk: bytes, spec: ReadSpec) -> Iterator[Rows]:
    lines: list[_Line] = []
    for raw in chunk.split(b"\n"):
        if not raw.strip():
            continue
        lines += _parse_line(raw, spec)
        if len(lines) >= _ROWS_AT_ONCE:
            yield _rows_of(lines, spec)
            lines = []
    if lines:
        yield _rows_of(lines, spec)


def _parse_line(raw: bytes, spec: ReadSpec) -> list[_Line]:
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
            found.append(
                _Line(None, Fault("invalid_row", f"no JSON: {first_line(error)}", preview))
            )
            break
        fault = None
        if wanted := repeated & {name for path in spec.column_paths.values() for name in path}:
            fault = Fault("invalid_row", f"key {min(wanted)!r} is there twice")
        repeated.clear()
        found.append(_Line(row, fault))
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
    # Several objects of one line are rows of their own; a broken line is one.
    broken = [line for line in found if line.fault is not None]
    return broken[:1] if broken else found


def _rows_of(lines: list[_Line], spec: ReadSpec) -> Rows:
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


def peek_json(file: SourceFile, spec: ReadSpec) -> dict[str, list[Any]]:
    """Returns the first chunk's values by column, which is what `datasets` takes types from."""
    seen: dict[str, list[Any]] = {}
    for row in _first_rows(file, spec):
        for name, value in row.items():
            seen.setdefault(name, []).append(value)
    return seen


def _first_rows(file: SourceFile, spec: ReadSpec) -> list[dict[str, Any]]:
    limit = _LINE_BYTES_PER_TEXT_BYTE * spec.max_document_bytes
    for member in members_of(file.url):
        with open_stream(member) as stream:
            reader = LineReader(stream, limit)
            chunk_bytes = int(dict(spec.config).get("chunksize") or _CHUNK_BYTES)
            chunk = reader.read_chunk(chunk_bytes)[0].removeprefix(codecs.BOM_UTF8)
            if chunk.lstrip().startswith(b"["):
                items = json.loads((chunk + reader.read_rest()).decode("utf-8", "surrogateescape"))
                items = items[:_ROWS_AT_ONCE]
                return [item if isinstance(item, dict) else {"text": item} for item in items]
            if _spans_lines(chunk):
                whole = _as_utf8(chunk + reader.read_rest(), dict(spec.config))
                return [line.row for line in _parse_line(whole, spec)]
            lines = _as_utf8(chunk, dict(spec.config)).split(b"\n")
            found = [line for raw in lines if raw.strip() for line in _parse_line(raw, spec)]
            faults = [line.fault for line in found if line.fault is not None]
            if found and len(faults) == len(found):
                raise SourceError(f"its first {len(found)} lines are none ({faults[0].message})")
            if found:
                return [line.row for line in found]
    return []
