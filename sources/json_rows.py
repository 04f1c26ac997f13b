"""JSON files: lines, arrays, objects over many lines, or a field of one object."""

import codecs
import json
from collections.abc import Iterator
from typing import Any

from datasets.utils.json import ujson_dumps, ujson_loads

from shardstream.shard_format.messages import first_line
from shardstream.sources.errors import SourceError
from shardstream.sources.json_lines import Line, parse_chunk, parse_line, rows_of
from shardstream.sources.open_files import LineReader, listed_size, members_of, open_stream
from shardstream.sources.other_rows import read_with_datasets
from shardstream.sources.rows import Fault, Lost, Rows
from shardstream.sources.spec import ReadSpec, SourceFile
from shardstream.sources.texts import too_large

_CHUNK_BYTES = 10 << 20  # as `datasets` has it: types are found chunk by chunk
_ITEMS_ASKED = 8192
# A line may hold more than the text: its escapes, and columns that are not wanted.
_LINE_BYTES_PER_TEXT_BYTE = 2


def read_json(file: SourceFile, spec: ReadSpec) -> Iterator[Rows | Lost]:
    """Yields a file's rows; a blank line is none."""
    config = dict(spec.config)
    if config.get("field") is not None:
        yield from read_with_datasets(file, spec)
        return
    chunk_bytes = int(config.get("chunksize") or _CHUNK_BYTES)
    limit = _LINE_BYTES_PER_TEXT_BYTE * spec.max_document_bytes
    for member in members_of(file.url):
        with open_stream(member, num_bytes=listed_size(member, file)) as stream:
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
    try:
        lines = "\n".join([ujson_dumps(item) for item in items]).encode()
    except (ValueError, OverflowError):
        yield rows_of([Line(item) for item in items], spec)
        return
    yield from parse_chunk(lines, spec)


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
                items = items[:_ITEMS_ASKED]
                return [item if isinstance(item, dict) else {"text": item} for item in items]
            if _spans_lines(chunk):
                whole = _as_utf8(chunk + reader.read_rest(), dict(spec.config))
                return [line.row for line in parse_line(whole, spec)]
            lines = _as_utf8(chunk, dict(spec.config)).split(b"\n")
            found = [line for raw in lines if raw.strip() for line in parse_line(raw, spec)]
            faults = [line.fault for line in found if line.fault is not None]
            if found and len(faults) == len(found):
                raise SourceError(f"its first {len(found)} lines are none ({faults[0].message})")
            if found:
                return [line.row for line in found]
    return []
