"""WebDataset: tar archives in which the files of one name before its first dot are a row.

Rows are put together as `datasets` does, but a file is read and decoded only where its column is
wanted: what other columns hold, and whether they are the same in all rows, doesn't matter.
"""

import tarfile
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from datasets import DownloadConfig
from datasets.download.streaming_download_manager import ArchiveIterable
from datasets.filesystems import EXTENSION_TO_COMPRESSION_FS_FILE_CLS
from datasets.packaged_modules.webdataset.webdataset import WebDataset, base_plus_ext

from shardstream.shard_format.messages import first_line
from shardstream.sources.rows import AnyValue, Fault, Lost, Rows
from shardstream.sources.spec import ReadSpec, SourceFile
from shardstream.sources.texts import text_of, too_large

_ROWS_AT_ONCE, _BYTES_AT_ONCE = 1024, 2 << 20
_PEEK_ROWS = 5  # as many as `datasets` looks at


class _Sample:
    """A row as it is put together.

    Attributes:
        key: of its files.
        fields: wanted columns by name, decoded.
        names: of all its columns.
        fault: why it is no document.
    """

    def __init__(self, key: str, url: str) -> None:
        self.key = key
        self.fields: dict[str, Any] = {"__key__": key, "__url__": url}
        self.names: list[str] = []
        self.fault: Fault | None = None


def read_tar(file: SourceFile, spec: ReadSpec) -> Iterator[Rows | Lost]:
    """Yields an archive's rows."""
    samples: list[_Sample] = []
    held = 0
    try:
        for sample in _samples(file.url, frozenset(spec.roots), spec.max_document_bytes):
            samples.append(sample)
            held += sum(len(v) for v in sample.fields.values() if isinstance(v, str | bytes))
            if len(samples) >= _ROWS_AT_ONCE or held >= _BYTES_AT_ONCE:
                yield _rows_of(samples, spec)
                samples, held = [], 0
    except tarfile.TarError as error:
        if samples:
            yield _rows_of(samples, spec)
        yield Lost(1, Fault("unreadable", f"the rest of the archive: {first_line(error)}"))
        return
    if samples:
        yield _rows_of(samples, spec)


def peek_tar(file: SourceFile, wanted: frozenset[str], limit: int) -> dict[str, list[Any]]:
    """Returns the wanted values of the first rows by column; of others only that they are there."""
    seen: dict[str, list[Any]] = {}
    for number, sample in enumerate(_samples(file.url, wanted, limit)):
        if number >= _PEEK_ROWS:
            break
        for name in ["__key__", "__url__", *sample.names]:
            seen.setdefault(name, []).append(sample.fields.get(name))
    return seen


def _samples(url: str, wanted: frozenset[str], limit: int) -> Iterator[_Sample]:
    sample: _Sample | None = None
    for name, stream in ArchiveIterable.from_urlpath(url, download_config=DownloadConfig()):
        key, field = base_plus_ext(name)
        if key is None or field is None:
            continue
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = _Sample(key, url)
        if field in sample.names and field in wanted:
            sample.fault = Fault("invalid_row", f"file {name!r} is there twice")
        sample.names.append(field)
        if field in wanted and sample.fault is None:
            _take(sample, name, field, stream, limit)
    if sample is not None:
        yield sample


def _take(sample: _Sample, name: str, field: str, stream: AnyValue, limit: int) -> None:
    """Reads and decodes one file into its row."""
    extension = name.rsplit(".", 1)[-1].lower()
    packed: Any = EXTENSION_TO_COMPRESSION_FS_FILE_CLS.get(f".{extension}")
    if packed is not None:
        stream, extension = packed(stream, mode="rb"), name.rsplit(".", 2)[-2].lower()
    data = stream.read(limit + 1)
    if len(data) > limit:
        sample.fault = too_large(len(data), limit, f"file {name!r}")
        return
    decode = WebDataset.DECODERS.get(extension)
    if decode is None or extension in ("txt", "text", "transcript"):
        sample.fields[field] = data  # whether it is text is looked at with all others
        return
    try:
        sample.fields[field] = decode(data)
    except Exception as error:
        preview = data[:200].decode(errors="replace")
        sample.fault = Fault("invalid_row", f"file {name!r}: {first_line(error)}", preview)


def _rows_of(samples: list[_Sample], spec: ReadSpec) -> Rows:
    faults = {i: sample.fault for i, sample in enumerate(samples) if sample.fault is not None}
    columns = {}
    for name, path in spec.column_paths.items():
        kind = spec.column_kinds[name]
        texts: list[bytes | None] = []
        for i, sample in enumerate(samples):
            value: Any = sample.fields
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, bytes):
                texts.append(value)
                continue
            text, fault = text_of(value, name, kind)
            if fault is not None:
                faults.setdefault(i, fault)
            texts.append(None if text is None else text.encode("utf-8", "surrogatepass"))
        columns[name] = pa.array(texts, pa.large_binary()).view(pa.large_string())
    return Rows(pa.table(columns), faults)
