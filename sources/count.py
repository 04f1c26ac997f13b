"""How many rows files have: from footers where there are any, otherwise by reading them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from shardstream.sources.errors import SourceError
from shardstream.sources.parquet_rows import open_parquet, text_bytes_of
from shardstream.sources.read import count_rows
from shardstream.sources.spec import ReadSpec, SourceFile

if TYPE_CHECKING:  # sources.resolve counts rows itself
    from shardstream.sources.resolve import Source

_THREADS = 16
_MOST_FOOTERS = 2000
_FILES_ASKED = 8


def known_documents(source: "Source") -> int | None:
    """Returns the documents of a source's split, None where only reading would tell.

    A card's count is taken for what it says; else footers are counted where there are not too many
    of them. What `skip_documents` and `max_documents` leave out is not looked at.
    """
    if source.num_documents:
        return source.num_documents
    spec, files = source.read_spec, source.files
    if spec.module != "parquet" or len(files) > _MOST_FOOTERS:
        return None
    rows = num_rows_of(files, spec)
    total = 0
    for begin, end, first_row, end_row in spec.ranges or ((0, len(files), 0, None),):
        own = sum(rows[begin:end])
        total += max(0, (own if end_row is None else min(own, end_row)) - first_row)
    return total


def num_rows_of(files: Sequence[SourceFile], spec: ReadSpec) -> list[int]:
    """Returns the rows of each file."""

    def count(file: SourceFile) -> int:
        if spec.module != "parquet":
            return count_rows(file, spec)
        with open_parquet(file.url) as parquet:
            return parquet.metadata.num_rows

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(count, files))


def sample_text(source: "Source") -> tuple[int, int, int | None]:
    """Returns what one parquet file's footer says: text bytes, uncompressed, rows, and its size.

    It is the first file's, unless that has no text to judge by.
    """
    problem: SourceError | None = None
    text_bytes, rows, size = 0, 0, None
    for file in source.files[:_FILES_ASKED]:
        try:
            with open_parquet(file.url) as parquet:
                metadata = parquet.metadata
        except SourceError as error:
            problem = problem or error
            continue
        groups = range(metadata.num_row_groups)
        text_bytes = sum(text_bytes_of(metadata, group, source.read_spec) for group in groups)
        rows, size = metadata.num_rows, file.bytes
        if text_bytes:
            return text_bytes, rows, size
    if size is None and problem is not None:
        raise problem
    return text_bytes, rows, size
