"""Damage is told from failed fetches; every message says where and what to do."""

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardstream.sources import read
from shardstream.sources.errors import SourceError, border, is_damage
from shardstream.sources.options import SourceOptions
from shardstream.sources.partitions import Partition
from shardstream.sources.read import read_blocks
from shardstream.sources.resolve import resolve
from shardstream.sources.rows import Fault, Lost, Rows
from tests.sources.reading import outcomes


@pytest.mark.parametrize(
    ("error", "damage"),
    [
        (pa.ArrowInvalid("x"), True),
        (OSError("Corrupt snappy compressed data."), True),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "x"), True),
        (tarfile.ReadError("x"), True),
        (FileNotFoundError(2, "x"), False),
        (PermissionError(13, "x"), False),
        (ConnectionResetError(104, "x"), False),
        (TimeoutError("x"), False),
        (EOFError("x"), False),
        (zlib.error("x"), False),
        (MemoryError(), False),
    ],
)
def test_what_is_damage(error: BaseException, damage: bool) -> None:
    assert is_damage(error) == damage


def test_border_makes_one_line_of_everything() -> None:
    with (
        pytest.raises(SourceError, match=r"^a\.csv: KeyError: 'x'\. Mend it\.$"),
        border("a.csv", "Mend it."),
    ):
        raise KeyError("x")
    with (
        pytest.raises(SourceError, match=r"^a\.csv: first\. Mend it\.$"),
        border("a.csv", "Mend it."),
    ):
        raise ValueError("first\nsecond")
    with pytest.raises(MemoryError), border("a.csv", "Mend it."):
        raise MemoryError


def _remote_file(name: str) -> SourceOptions:
    with fsspec.open(f"memory://{name}", "wb") as stream:
        pq.write_table(pa.table({"text": [f"row {i}" for i in range(6)]}), stream, row_group_size=2)
    return SourceOptions(dataset="parquet", data_files=(f"memory://{name}",))


@pytest.mark.parametrize(("failures", "lost"), [(1, False), (2, False), (3, True)])
def test_remote_files_are_read_again_before_they_count_as_damaged(
    monkeypatch: pytest.MonkeyPatch, failures: int, lost: bool
) -> None:
    options = _remote_file(f"again-{failures}.parquet")
    reads, whole = [0], read.read_groups

    def short(*args: object) -> Iterator[Rows | Lost]:
        reads[0] += 1
        groups = iter(whole(*args))  # type: ignore[arg-type]
        yield next(groups)
        if reads[0] <= failures:
            next(groups)
            yield Lost(2, Fault("unreadable", "cut"))
        yield from groups

    monkeypatch.setattr(read, "read_groups", short)
    found = [kind for _, (kind, _) in sorted(outcomes(options).items())]
    assert found == ["text", "text", *(["dead"] * 2 if lost else ["text"] * 2), "text", "text"]


def test_who_does_not_keep_going_gets_the_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(6)]}), path, row_group_size=2)
    data = bytearray(path.read_bytes())
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    data[begin : begin + 20] = b"\xff" * 20
    path.write_bytes(data)
    source = resolve(SourceOptions(dataset=str(tmp_path)))
    blocks = read_blocks(Partition(files=source.files), source.read_spec, keep_going=False)
    assert next(blocks).num_read == 2
    message = r"rows\.parquet, row 2: can't be read as parquet \(row group 1, rows 0 to 1: .*Fetch"
    with pytest.raises(SourceError, match=message):
        list(blocks)


@pytest.mark.parametrize("make", ["missing", "directory"])
def test_files_that_cannot_be_opened_are_no_dead_letters(tmp_path: Path, make: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n')
    source = resolve(SourceOptions(dataset=str(tmp_path)))
    path.unlink()
    if make == "directory":
        path.mkdir()
    blocks = read_blocks(Partition(files=source.files), source.read_spec)
    with pytest.raises(SourceError, match=r"rows\.jsonl, row 0 on: can't be read as json: .*Check"):
        list(blocks)
