"""Formats that only `datasets` reads: its own reader, a file at a time, the wanted columns kept."""

import re
import threading
from collections.abc import Iterator
from typing import cast

import datasets
import fsspec
import pyarrow as pa
from datasets.exceptions import DatasetGenerationError

from shardstream.shard_format.messages import first_line
from shardstream.sources.errors import is_damage
from shardstream.sources.rows import Fault, Lost, Rows, missing_columns, pick
from shardstream.sources.spec import ReadSpec, SourceFile

_ROWS_AT_ONCE = 1024
_LANCE_FOLDER = re.compile(r"(.*)/(?:_versions|_transactions|_indices|_deletions|data)/[^/]*$")

# `datasets` patches modules for streaming as it opens a builder; one thread at a time.
_opening = threading.Lock()


def read_with_datasets(file: SourceFile, spec: ReadSpec) -> Iterator[Rows | Lost]:
    """Yields a file's rows as `load_dataset` of this file alone gives them."""
    try:
        yield from _read(file, spec)
    except StopIteration:  # a generator of `datasets` over a file of no rows
        return
    except (ValueError, TypeError, KeyError, DatasetGenerationError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, OSError | EOFError) and not is_damage(cause):
            raise
        yield Lost(1, Fault("unreadable", f"the rest of the file: {first_line(cause)}"))


def pattern_of(file: SourceFile, spec: ReadSpec) -> str:
    """Returns the data files that make up one of the source's: of Lance, a folder's."""
    return f"{file.url}/**" if is_folder(spec.module, file.url) else file.url


def is_folder(module: str, url: str) -> bool:
    """Says whether what counts as a file of the source is a folder of a format's own."""
    return module == "lance" and fsspec.core.url_to_fs(url)[0].isdir(url)


def units_of(module: str, urls: list[str]) -> list[str]:
    """Returns what is read as a file each: the data files, or the folders of Lance they lie in."""
    if module != "lance":
        return urls
    folders = (_LANCE_FOLDER.match(url) for url in urls)
    return list(dict.fromkeys(f[1] if f else u for u, f in zip(urls, folders, strict=True)))


def _read(file: SourceFile, spec: ReadSpec) -> Iterator[Rows | Lost]:
    with _opening:
        stream = datasets.load_dataset(
            spec.module,
            data_files={"train": [pattern_of(file, spec)]},
            split="train",
            streaming=True,
            **dict(spec.config),
        )
    there = [name for name in spec.roots if name in (stream.features or ())]
    if there:
        stream = stream.select_columns(there)
    tables = cast(Iterator[pa.Table], stream.with_format("arrow").iter(_ROWS_AT_ONCE))
    for table in tables:
        fault = missing_columns(table.column_names, spec) if spec.module != "json" else None
        if fault is not None:
            yield Lost(table.num_rows, fault)
        else:
            yield Rows(pick(table, spec), {})
