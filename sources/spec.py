"""A source as plain data: its files, how workers read them, and the partitions they read.

Everything here is small, frozen and picklable, and nothing imports `datasets`: what a plan holds
and what a loader keeps in its cache.
"""

import dataclasses
from typing import Any

# What is known of a wanted column's type. DECLARED: the dataset's card says text, so that numbers
# are written out. TEXT: text as far as the planner has seen; a number among texts is a mistake, a
# run of nothing but numbers is written out, as `datasets` does. JSON: mixed, as the planner saw.
DECLARED, TEXT, JSON = "declared", "text", "json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file of the source; its index is the `partition` of its documents.

    Attributes:
        index: place in the stream, from 0.
        url: what fsspec opens; hub URLs hold the pinned commit.
        name: path without what differs between machines.
        bytes: size, None where the server doesn't tell.
    """

    index: int
    url: str
    name: str
    bytes: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadSpec:
    """How to read the files of a source; small, and all a worker needs beside a partition.

    Attributes:
        module: the packaged reader of `datasets` ("parquet", "json", "csv", "text", ...).
        config: its settings that differ from the defaults, as (name, value) pairs.
        columns: the columns wanted, as the user names them.
        text_template: joins the columns; None where the one column is the text.
        paths: of each column, its name and those of the fields below it; () where all are plain.
        kinds: of each column, DECLARED, TEXT or JSON; () where all are TEXT.
        max_document_bytes: of text, above which a document is a dead letter.
        ranges: where the split is sliced, the rows wanted of each run of files, as
            (first file, file after the last, first row, row after the last or None).
    """

    module: str
    config: tuple[tuple[str, Any], ...]
    columns: tuple[str, ...]
    text_template: str | None
    paths: tuple[tuple[str, ...], ...] = ()
    kinds: tuple[str, ...] = ()
    max_document_bytes: int = 256 << 20
    ranges: tuple[tuple[int, int, int, int | None], ...] = ()

    @property
    def column_paths(self) -> dict[str, tuple[str, ...]]:
        """The path of each wanted column."""
        return dict(zip(self.columns, self.paths or ((c,) for c in self.columns), strict=True))

    @property
    def column_kinds(self) -> dict[str, str]:
        """What is known of each wanted column's type."""
        return dict(zip(self.columns, self.kinds or (TEXT for _ in self.columns), strict=True))

    @property
    def roots(self) -> tuple[str, ...]:
        """The columns of the file that the wanted ones are or lie in, each once."""
        return tuple(dict.fromkeys(path[0] for path in self.column_paths.values()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Partition:
    """What one worker reads in one go.

    Attributes:
        files: usually one; several where a prefix of a stream of unknown lengths is wanted.
        row_groups: of a parquet file, half-open; None means all of it.
        first_row: row inside the (first) file of the first row read.
        skip_documents: rows to pass over after that.
        max_documents: rows to read at most.
        text_bytes: uncompressed bytes expected, None where unknown.
    """

    files: tuple[SourceFile, ...]
    row_groups: tuple[int, int] | None = None
    first_row: int = 0
    skip_documents: int = 0
    max_documents: int | None = None
    text_bytes: int | None = None

    @property
    def name(self) -> str:
        """A file name that is this partition's alone, whatever else is read."""
        groups = "all" if self.row_groups is None else "{:05d}-{:05d}".format(*self.row_groups)
        window = f"-{self.skip_documents}+{self.max_documents}" if self.is_window else ""
        return f"{self.files[0].index:06d}-{groups}{window}"

    @property
    def is_window(self) -> bool:
        """Whether rows inside the partition are left out."""
        return self.skip_documents > 0 or self.max_documents is not None
