"""Reading: every format gives the documents that `load_dataset(..., streaming=True)` gives."""

import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from shardstream.sources.options import SourceOptions
from shardstream.sources.partitions import list_partitions, split_partition
from shardstream.sources.read import read_blocks
from shardstream.sources.resolve import resolve

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


def _read(options: SourceOptions, partition_bytes: int = 1 << 20, block_bytes: int = 1 << 20):
    source = resolve(options)
    spec = source.read_spec
    coarse = list_partitions(
        source.files,
        spec,
        skip_documents=options.skip_documents,
        max_documents=options.max_documents,
    )
    for item in coarse:
        for partition in split_partition(item, spec, partition_bytes):
            yield from read_blocks(partition, spec, block_bytes=block_bytes)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_documents_are_those_of_load_dataset(tmp_path: Path, name: str, block_bytes: int) -> None:
    module, write = FORMATS[name]
    write(tmp_path / name)
    options = SourceOptions(dataset=module, data_files=(str(tmp_path / name),))
    blocks = list(_read(options, partition_bytes=1, block_bytes=block_bytes))
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
    assert sum(block.num_read for block in _read(options)) == len(TEXTS)


@pytest.mark.parametrize("partition_bytes", [1, 60, 1 << 20])
@pytest.mark.parametrize(("skip", "take"), [(0, None), (1, None), (0, 3), (3, 4), (7, 2), (5, 99)])
def test_partitions_hold_each_document_of_the_window_once(
    tmp_path: Path, partition_bytes: int, skip: int, take: int | None
) -> None:
    for index in range(2):
        _write_parquet(tmp_path / f"{index}.parquet")
    options = SourceOptions(dataset=str(tmp_path), skip_documents=skip, max_documents=take)
    found = [
        (block.partition, row)
        for block in _read(options, partition_bytes)
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
    (block,) = _read(SourceOptions(dataset=str(tmp_path)))
    assert block.texts.to_pylist() == ["a", "b", "a"]
    assert block.rows.tolist() == [0, 2, 3]
    assert [(letter.row, letter.reason) for letter in block.dead_letters] == [(1, "null_text")]


def test_row_that_lacks_the_key_is_a_null(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"other": 1}\n')
    (block,) = _read(SourceOptions(dataset=str(tmp_path)))
    assert [(letter.row, letter.reason) for letter in block.dead_letters] == [(1, "null_text")]


def test_broken_line_is_a_dead_letter(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n{"text": \n')
    *_, block = _read(SourceOptions(dataset=str(tmp_path)))
    (letter,) = block.dead_letters
    assert (block.texts.to_pylist(), letter.row, letter.reason) == (["a"], 1, "invalid_row")
    assert letter.message.startswith("no JSON: Expecting value: line 1 column")
