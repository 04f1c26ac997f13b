"""Reading: every format gives the documents that `load_dataset(..., streaming=True)` gives."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from shardstream.sources.options import SourceOptions
from shardstream.sources.partitions import Partition
from shardstream.sources.read import SEGMENT_ROWS, read_blocks
from shardstream.sources.resolve import resolve
from tests.sources.reading import outcomes, read_source, rows_of_load_dataset, texts_of

TEXTS = ["one", "", "zwei\nZeilen", '三, "quoted"', "x" * 5000, "last"]


def _write_parquet(path: Path) -> None:
    pq.write_table(pa.table({"text": TEXTS, "n": range(len(TEXTS))}), path, row_group_size=2)


def _lines() -> bytes:
    return "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in TEXTS).encode()


def _write_csv(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["n", "text"])
        writer.writerows((i, text) for i, text in enumerate(TEXTS))


FORMATS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "rows.parquet": ("parquet", _write_parquet),
    "rows.jsonl": ("json", lambda path: path.write_bytes(_lines())),
    "rows.jsonl.gz": ("json", lambda path: path.write_bytes(gzip.compress(_lines()))),
    "rows.jsonl.zst": ("json", lambda path: path.write_bytes(zstandard.compress(_lines()))),
    "rows.jsonl.bz2": ("json", lambda path: path.write_bytes(bz2.compress(_lines()))),
    "rows.jsonl.xz": ("json", lambda path: path.write_bytes(lzma.compress(_lines()))),
    "rows.csv": ("csv", _write_csv),
    "rows.txt": ("text", lambda path: path.write_text("\n".join(TEXTS))),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_documents_are_those_of_load_dataset(tmp_path: Path, name: str, block_bytes: int) -> None:
    module, write = FORMATS[name]
    write(tmp_path / name)
    options = SourceOptions(dataset=module, data_files=(str(tmp_path / name),))
    blocks = list(read_source(options, partition_bytes=1, block_bytes=block_bytes))
    stream = datasets.load_dataset(
        module, data_files=str(tmp_path / name), split="train", streaming=True
    )
    # An empty field of a csv is a null there and a dead letter here.
    expected = [row["text"] for row in stream]
    found = {row: None for block in blocks for row in (d.row for d in block.dead_letters)}
    for block in blocks:
        found.update(zip(block.rows.tolist(), block.texts.to_pylist(), strict=True))
    assert [found[row] for row in range(len(expected))] == expected
    assert sum(block.num_read for block in blocks) == len(expected)


def test_local_directory_is_a_dataset(tmp_path: Path) -> None:
    _write_parquet(tmp_path / "train-0.parquet")
    _write_parquet(tmp_path / "test-0.parquet")
    options = SourceOptions(dataset=str(tmp_path), split="test")
    assert [f.name for f in resolve(options).files] == ["test-0.parquet"]
    assert sum(block.num_read for block in read_source(options)) == len(TEXTS)


@pytest.mark.parametrize("partition_bytes", [1, 60, 1 << 20])
@pytest.mark.parametrize(("skip", "take"), [(0, None), (1, None), (0, 3), (3, 4), (7, 2), (5, 99)])
def test_partitions_hold_each_document_of_the_window_once(
    tmp_path: Path, partition_bytes: int, skip: int, take: int | None
) -> None:
    for index in range(2):
        _write_parquet(tmp_path / f"{index}.parquet")
    options = SourceOptions(dataset=str(tmp_path), skip_documents=skip, max_documents=take)
    found = [
        (block.file_index, row)
        for block in read_source(options, partition_bytes)
        for row in block.rows.tolist()
    ]
    every = [(file, row) for file in range(2) for row in range(len(TEXTS))]
    assert found == every[skip:][:take]


def test_commit_of_local_files_follows_their_content(tmp_path: Path) -> None:
    _write_parquet(tmp_path / "rows.parquet")
    files = (str(tmp_path / "rows.parquet"),)
    first = resolve(SourceOptions(dataset="parquet", data_files=files)).commit
    resolve.cache_clear()
    assert resolve(SourceOptions(dataset="parquet", data_files=files)).commit == first
    pq.write_table(pa.table({"text": TEXTS[::-1], "n": range(len(TEXTS))}), files[0])
    resolve.cache_clear()
    assert resolve(SourceOptions(dataset="parquet", data_files=files)).commit != first


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_text_columns_of_every_arrow_type(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array(["a", None, "b", "a"], pa.string()).cast(kind)
    pq.write_table(pa.table({"text": column}), tmp_path / "rows.parquet")
    (block,) = read_source(SourceOptions(dataset=str(tmp_path)))
    assert block.texts.to_pylist() == ["a", "b", "a"]
    assert block.rows.tolist() == [0, 2, 3]
    assert [(letter.row, letter.reason) for letter in block.dead_letters] == [(1, "null_text")]


def test_row_that_lacks_the_key_is_a_null(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"other": 1}\n')
    (block,) = read_source(SourceOptions(dataset=str(tmp_path)))
    assert [(letter.row, letter.reason) for letter in block.dead_letters] == [(1, "null_text")]


def test_broken_line_is_a_dead_letter(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n{"text": \n')
    *_, block = read_source(SourceOptions(dataset=str(tmp_path)))
    (letter,) = block.dead_letters
    assert (block.texts.to_pylist(), letter.row, letter.reason) == (["a"], 1, "invalid_row")
    assert letter.message.startswith("no JSON: Expecting value: line 1 column")


SECOND_CHUNKS: dict[str, list[dict]] = {
    "null, then an object": [{"text": "b", "side": {"a": [1]}}],
    "an object, then a number": [{"text": "b", "side": 1}],
    "times": [{"text": "2024-01-01T10:00:00"}, {"text": None}, {"text": "2024-02-01"}],
    "times and text": [{"text": "2024-01-01"}, {"text": "no time"}],
    "numbers": [{"text": 1}, {"text": 2}],
    "fractions": [{"text": 1.5}, {"text": 2}],
    "truths": [{"text": True}, {"text": False}],
    "nulls": [{"text": None}, {"text": None}],
    "no text": [{"side": 1}],
}


@pytest.mark.parametrize("case", SECOND_CHUNKS)
def test_chunks_of_other_types(tmp_path: Path, case: str) -> None:
    # Readers look at the types of 16 KiB at a time at least.
    first = [{"text": "a" * 99, "side": None}] * 200
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*first, *SECOND_CHUNKS[case]]))
    size = 200 * len(json.dumps(first[0]) + "\n") - 1
    ours = SourceOptions(
        dataset="json", data_files=(str(path),), reader_option=(f"chunksize={size}",)
    )
    found = texts_of(ours)
    assert len(found) == 200 + len(SECOND_CHUNKS[case])
    theirs = rows_of_load_dataset("json", data_files=str(path), chunksize=size)
    if theirs is not None:
        assert found == [row["text"] for row in theirs]
    else:
        assert found[200:] == [row.get("text") for row in SECOND_CHUNKS[case]]


@pytest.mark.parametrize("texts", [["x" * 150_000], ["x" * 90_000, "y" * 30_000, "z"]])
@pytest.mark.parametrize("compression", ["snappy", "zstd"])
def test_blocks_are_sized_by_what_comes_out(
    tmp_path: Path, texts: list[str], compression: str
) -> None:
    rows = [texts[i % len(texts)] for i in range(3000)]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": rows}), path, compression=compression)
    assert path.stat().st_size < 100_000
    before, count = pa.total_allocated_bytes(), 0
    for block in read_source(SourceOptions(dataset=str(tmp_path)), block_bytes=1 << 20):
        assert block.texts.nbytes <= 2 << 20
        # What Arrow reads at once is held beside the block: four blocks at most.
        assert pa.total_allocated_bytes() - before < 8 << 20
        assert block.texts.to_pylist() == rows[count : count + block.num_read]
        count += block.num_read
    assert count == len(rows)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "txt", "arrow"])
def test_no_block_spans_two_segments(tmp_path: Path, suffix: str) -> None:
    texts = [f"row {i}" for i in range(2 * SEGMENT_ROWS + 100)]
    path = tmp_path / f"rows.{suffix}"
    if suffix == "arrow":
        table = pa.table({"text": texts})
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=5000)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    else:
        path.write_text("\n".join((["text"] if suffix == "csv" else []) + texts))
    module = {"jsonl": "json", "txt": "text"}.get(suffix, suffix)
    found = []
    for block in read_source(SourceOptions(dataset=module, data_files=(str(path),))):
        assert block.rows[0] // SEGMENT_ROWS == block.rows[-1] // SEGMENT_ROWS
        found += block.texts.to_pylist()
    assert found == texts


def test_file_without_the_column_has_one_letter_a_row_group(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"body": ["b"] * 7}), tmp_path / "b.parquet", row_group_size=4)
    _, first, second = read_source(SourceOptions(dataset=str(tmp_path)))
    (letter,) = first.dead_letters
    assert (letter.file_index, letter.row, letter.num_rows, letter.reason) == (1, 0, 4, "null_text")
    assert letter.message == "the file has no column 'text'; its columns: body"
    assert letter.as_dict()["num_rows"] == 4
    assert (second.num_read, second.dead_letters[0].row) == (3, 4)


@pytest.mark.parametrize(
    "column", [pa.array([["a"], None]), pa.array([{"b": 1}, None])], ids=["list", "object"]
)
def test_what_cannot_be_cast_is_dead(tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": column}), tmp_path / "b.parquet")
    found = outcomes(SourceOptions(dataset=str(tmp_path)))
    assert found[1, 0] == ("dead", "not_a_string")
    assert found[1, 1] == ("dead", "null_text")


def test_zip_archives_are_read_member_by_member(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("b.jsonl", "folder/a.jsonl", ".hidden.jsonl"):
            archive.writestr(name, json.dumps({"text": name}) + "\n")
    files = str(tmp_path / "all.zip")
    theirs = rows_of_load_dataset("json", data_files=files)
    assert theirs is not None
    assert texts_of(SourceOptions(dataset="json", data_files=(files,))) == [
        row["text"] for row in theirs
    ]


@pytest.mark.parametrize("suffix", ["jsonl.gz", "txt.gz", "csv.gz"])
def test_cut_archive_names_the_file(tmp_path: Path, suffix: str) -> None:
    lines = b"text\n" + b"".join(b'{"text": "%d"}\n' % (i * i) for i in range(50_000))
    (tmp_path / f"rows.{suffix}").write_bytes(gzip.compress(lines)[:100_000])
    with pytest.raises(ValueError, match=rf"rows\.{suffix}, .*can't be read as .*\. (Check|Mend)"):
        list(read_source(SourceOptions(dataset=str(tmp_path))))


def test_objects_over_many_lines_and_broken_first_lines(tmp_path: Path) -> None:
    pretty = [{"text": "a\nb", "n": [1, 2]}, {"text": "c", "n": []}]
    path = tmp_path / "rows.json"
    path.write_text("\n".join(json.dumps(row, indent=2) for row in pretty))
    ours = SourceOptions(dataset="json", data_files=(str(path),))
    theirs = rows_of_load_dataset("json", data_files=str(path))
    assert texts_of(ours) == [row["text"] for row in theirs or pretty] == ["a\nb", "c"]
    lines = ['{"text": "cut', '{"te', "}", '"x": 1}', '{"text": "good"}']
    path.write_text("\n".join(lines))
    resolve.cache_clear()
    assert texts_of(ours) == [None] * 4 + ["good"]


class _CountedFile(io.BytesIO):
    """Counts the bytes that are read of it."""

    num_read = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        _CountedFile.num_read += len(data)
        return data


@pytest.mark.parametrize("short_rows", [False, True])
def test_wide_parquet_is_read_for_its_text_alone(
    monkeypatch: pytest.MonkeyPatch, short_rows: bool
) -> None:
    texts = [f"{row} {'x' * (10 if short_rows else 3000)}" for row in range(20_000)]
    texts = texts if short_rows else texts[:500]
    random = np.random.default_rng(0)
    columns = {f"c{i}": random.random(len(texts)) for i in range(40)}
    sink = io.BytesIO()
    table = pa.table({**columns, "text": texts})
    pq.write_table(table, sink, compression="none")
    footer = int.from_bytes(sink.getvalue()[-8:-4], "little")
    fsspec.filesystem("memory").pipe_file("/wide.parquet", sink.getvalue())
    source = resolve(SourceOptions(dataset="parquet", data_files=("memory://wide.parquet",)))
    opened = lambda self, path, *_, **__: _CountedFile(sink.getvalue())  # noqa: E731
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "_open", opened)
    _CountedFile.num_read = 0
    partition = Partition(files=source.files)
    found = [text for b in read_blocks(partition, source.read_spec) for text in b.texts.to_pylist()]
    assert found == texts
    text_bytes = sum(map(len, texts)) + 16 * len(texts)
    # Of short rows the first pages are looked at beforehand, for what their dictionary holds.
    looks = 4 if short_rows else 1
    assert _CountedFile.num_read < text_bytes + looks * (2 * footer + (2 << 20))
    assert _CountedFile.num_read < len(sink.getvalue()) / 2 or not short_rows
