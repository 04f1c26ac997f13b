"""Plain text files: a row a line, a paragraph or a file."""

import io
from collections.abc import Iterable, Iterator

import pyarrow as pa

from shardstream.sources.errors import SourceError
from shardstream.sources.open_files import LineReader, listed_size, members_of, open_stream
from shardstream.sources.rows import Lost, Rows
from shardstream.sources.spec import ReadSpec, SourceFile
from shardstream.sources.texts import too_large

_SAMPLES = ("line", "paragraph", "document")
_CHUNK_BYTES = 4 << 20
_CHUNK_CHARACTERS = 1 << 20


def read_text(file: SourceFile, spec: ReadSpec) -> Iterator[Rows | Lost]:
    """Yields a text file's rows; bytes that aren't in its encoding come out as invalid UTF-8."""
    config = dict(spec.config)
    encoding = config.get("encoding", "utf-8")
    is_plain = encoding.lower() in ("utf-8", "utf8") and config.get("encoding_errors") is None
    sample_by = config.get("sample_by", "line")
    if sample_by not in _SAMPLES:
        raise SourceError(
            f"sample_by is {sample_by!r}, expected one of {', '.join(_SAMPLES)}. Give "
            "--reader_option."
        )
    for member in members_of(file.url):
        with open_stream(member, num_bytes=listed_size(member, file)) as stream:
            if sample_by == "line" and is_plain:
                yield from _read_lines(LineReader(stream, spec.max_document_bytes), spec, config)
                continue
            # A byte that can't be decoded becomes a lone surrogate, which is no UTF-8 either.
            errors = config.get("encoding_errors") or "surrogateescape"
            decoded = io.TextIOWrapper(stream, encoding=encoding, errors=errors)
            try:
                if sample_by == "line":
                    pieces = _lines_of(decoded, keep=config.get("keep_linebreaks", False))
                elif sample_by == "paragraph":
                    pieces = _paragraphs_of(decoded)
                else:
                    pieces = iter([[decoded.read()]])
                yield from (_rows_of(_encoded(texts), spec) for texts in pieces if texts)
            finally:
                decoded.detach()


def _read_lines(
    reader: LineReader, spec: ReadSpec, config: dict[str, object]
) -> Iterator[Rows | Lost]:
    keep = bool(config.get("keep_linebreaks", False))
    while True:
        chunk, oversize = reader.read_chunk(_CHUNK_BYTES)
        if not chunk and not oversize:
            return
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if chunk:
            lines = chunk.split(b"\n")
            last = lines.pop()
            if keep:
                lines = [line + b"\n" for line in lines]
            if last:
                lines.append(last)
            yield _rows_of(lines, spec)
        if oversize:
            yield Lost(1, too_large(oversize, spec.max_document_bytes, "the line"))


def _lines_of(stream: io.TextIOWrapper, *, keep: bool) -> Iterator[list[str]]:
    while True:
        batch = stream.read(_CHUNK_CHARACTERS)
        if not batch:
            return
        batch += stream.readline()
        lines = io.StringIO(batch).readlines()
        yield lines if keep else [line.rstrip("\n") for line in lines]


def _paragraphs_of(stream: io.TextIOWrapper) -> Iterator[list[str]]:
    left = ""
    while True:
        batch = stream.read(_CHUNK_CHARACTERS)
        if not batch:
            break
        *whole, left = (left + batch + stream.readline()).split("\n\n")
        yield [paragraph for paragraph in whole if paragraph]
    if left:
        yield [left]


def _encoded(texts: Iterable[str]) -> list[bytes]:
    return [text.encode("utf-8", "surrogatepass") for text in texts]


def _rows_of(lines: list[bytes], spec: ReadSpec) -> Rows:
    """Returns rows whose texts may be invalid UTF-8; who reads them looks."""
    column = pa.array(lines, pa.large_binary()).view(pa.large_string())
    return Rows(pa.table({name: column for name in spec.columns}), {})
