"""What the readers of all formats give: runs of rows with the wanted columns, or none at all."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Self, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from shardstream.sources.spec import ReadSpec

PREVIEW_CHARACTERS = 200
# A value as JSON or a decoder gives it: None, bool, number, str, bytes, list or dict of such.
AnyValue: TypeAlias = Any


class Fault(NamedTuple):
    """Why a row is no document: a code, what was found, and its first characters."""

    reason: str
    message: str
    preview: str = ""


class Rows(NamedTuple):
    """A run of rows: `table` has the wanted columns by the user's names, `faults` is by row."""

    table: pa.Table
    faults: dict[int, Fault]

    @property
    def num_rows(self) -> int:
        """Of the run."""
        return self.table.num_rows

    def cut(self, begin: int, end: int) -> "Rows":
        """Returns rows begin to end - 1 as a run of their own."""
        faults = {i - begin: fault for i, fault in self.faults.items() if begin <= i < end}
        return Rows(self.table.slice(begin, end - begin), faults)


class Lost(NamedTuple):
    """A run of rows of which none can be read, for one and the same reason."""

    num_rows: int
    fault: Fault

    def cut(self, begin: int, end: int) -> "Lost":
        """Returns rows begin to end - 1 as a run of their own."""
        return Lost(end - begin, self.fault)


def rows_after(runs: Iterator[Rows | Lost], num_rows: int) -> Iterator[Rows | Lost]:
    """Yields what follows the first rows of several runs."""
    for run in runs:
        passed = min(num_rows, run.num_rows)
        num_rows -= passed
        if passed == 0:
            yield run
        elif passed < run.num_rows:
            yield run.cut(passed, run.num_rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A document that can't become tokens, and why; or a run of them with one reason.

    Attributes:
        file_index: of its file in the source.
        row: row in the file, the first of a run.
        reason: a code: "null_text", "not_a_string", "invalid_utf8", "invalid_row", "too_large",
            "unreadable", "tokenizer_error".
        message: what was found.
        preview: its first characters, as far as they can be shown.
        num_rows: of the run.
    """

    file_index: int
    row: int
    reason: str
    message: str
    preview: str
    num_rows: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields as they are written to a file; a single row has no `num_rows`."""
        fields = {"partition": self.file_index, **dataclasses.asdict(self)}
        del fields["file_index"]
        if self.num_rows == 1:
            del fields["num_rows"]
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Returns the letter that `as_dict` wrote."""
        others = {name: value for name, value in fields.items() if name != "partition"}
        return cls(file_index=fields["partition"], **others)


def count_by_reason(letters: Iterable[DeadLetter]) -> dict[str, int]:
    """Returns the number of rows that letters stand for, by reason, sorted."""
    counts: Counter[str] = Counter()
    for letter in letters:
        counts[letter.reason] += letter.num_rows
    return dict(sorted(counts.items()))


def missing_columns(names: list[str], spec: ReadSpec) -> Fault | None:
    """Returns what is wrong with every row of a file that has these columns, if anything.

    A file with only some of the wanted columns has no whole document either.
    """
    for root in spec.roots:
        if names.count(root) > 1:
            message = f"column {root!r} is there {names.count(root)} times, expected once"
            return Fault("invalid_row", message)
        if root not in names:
            there = ", ".join(dict.fromkeys(names)) or "none"
            return Fault("null_text", f"the file has no column {root!r}; its columns: {there}")
    return None


def pick(table: pa.Table, spec: ReadSpec) -> pa.Table:
    """Returns the wanted columns of a table that holds their roots, under the user's names.

    Columns that aren't there are null.
    """
    return pa.table(
        {name: _walk(table, path) for name, path in spec.column_paths.items()}
        if table.num_rows
        else {name: pa.array([], pa.large_string()) for name in spec.columns}
    )


def _walk(table: pa.Table, path: tuple[str, ...]) -> pa.ChunkedArray | pa.Array:
    if path[0] not in table.column_names:
        return pa.nulls(table.num_rows)
    column = table[path[0]]
    for at, name in enumerate(path[1:], start=1):
        if isinstance(column.type, pa.BaseExtensionType):
            return _walk_json(column, path[at:])
        if not pa.types.is_struct(column.type) or column.type.get_field_index(name) < 0:
            return pa.nulls(table.num_rows)
        column = pc.call_function("struct_field", [column], pc.StructFieldOptions([name]))
    return column


def _walk_json(column: pa.ChunkedArray, path: tuple[str, ...]) -> pa.Array:
    """Returns what lies at a path below values that `datasets` keeps as JSON text."""
    found: list[str | None] = []
    for encoded in column.to_pylist():
        value = json.loads(encoded) if isinstance(encoded, str) else encoded
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        found.append(None if value is None else json.dumps(value))
    return pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array(found, pa.string()))
