"""Units without a good row, or without a row: files, blocks, partitions and buckets, in every mode."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardstream.pipelines.job.options import parse_options
from shardstream.pipelines.job.planning import make_plan
from shardstream.shard_format.manifest import read_manifest
from shardstream.shard_format.storage import open_directory
from shardstream.shard_format.verify import verify
from shardstream.transforms.scatter import scatter_block
from shardstream.transforms.token_blocks import SCHEMA, document_lengths, join_blocks
from tests.pipeline_runs import build, needs_prism, read_documents

# What a file holds: rows of text, only nulls, only texts without a token, no row at all.
_FILES: dict[str, list[str | None]] = {
    "good": [f"A line of text, number {i}." for i in range(9)],
    "null": [None] * 5,
    "blank": [""] * 3,
    "none": [],
}
_MODES = {
    "files": ["--shuffle_via", "files", "--num_shards", "2"],
    "processes": ["--processes", "2", "--num_shards", "2"],
    "engine": ["--shuffle_via", "engine", "--num_shards", "2"],
    "more shards than documents": ["--num_shards", "40"],
    "stream": ["--mode", "stream"],
}
_ORDERS = [
    order
    for order in itertools.product(_FILES, repeat=3)
    if "good" in order and len(set(order)) > 1
]


def _write(folder: Path, order: tuple[str, ...]) -> list[str]:
    files = []
    for number, kind in enumerate(order):
        files.append(str(folder / f"{number}.parquet"))
        pq.write_table(pa.table({"text": pa.array(_FILES[kind], pa.string())}), files[-1])
    return files


def _flags(files: list[str], tokenizer: str) -> list[str]:
    source = ["--dataset", "parquet", "--data_files", *files, "--max_dead_letter_fraction", "1"]
    return [*source, "--tokenizer", tokenizer, "--sequence_length", "16", "--no-eos"]


def _check(out: Path, order: tuple[str, ...]) -> None:
    assert list(verify(open_directory(out))) == []
    totals = _totals(out)
    rows = {
        (number, row)
        for number, kind in enumerate(order)
        for row, text in enumerate(_FILES[kind])
        if text
    }
    assert set(read_documents(out)) == rows
    nulls = sum(len(_FILES[kind]) for kind in order if kind == "null")
    assert totals["dead_letters"].get("null_text", 0) == nulls
    assert totals["documents_read"] == sum(len(_FILES[kind]) for kind in order)


def _totals(out: Path) -> dict:
    manifest = read_manifest(open_directory(out))
    return manifest.totals | {"dead_letters": manifest.dead_letters}


@pytest.mark.parametrize(
    ("order", "mode"),
    [
        # Every mode, and every order of files in one mode or another.
        pytest.param(order, list(_MODES)[number % len(_MODES)], id="-".join(order))
        for number, order in enumerate(_ORDERS[::3])
    ],
)
def test_units_without_a_good_row_leave_the_others_whole(
    tmp_path: Path, tokenizer_directory: str, order: tuple[str, ...], mode: str
) -> None:
    flags = _flags(_write(tmp_path, order), tokenizer_directory)
    build(tmp_path / "out", *flags, *_MODES[mode])
    _check(tmp_path / "out", order)


@needs_prism
@pytest.mark.parametrize("mode", ["files", "engine", "stream"])
def test_units_without_a_good_row_on_prism(
    tmp_path: Path, tokenizer_directory: str, mode: str
) -> None:
    order = ("null", "good", "none")
    flags = _flags(_write(tmp_path, order), tokenizer_directory)
    build(tmp_path / "out", *flags, *_MODES[mode], runner="PrismRunner")
    _check(tmp_path / "out", order)


@pytest.mark.parametrize(
    ("kind", "mode", "packing"),
    [
        ("null", "files", "concat"),
        ("blank", "files", "best_fit"),
        ("null", "stream", "pad"),
        ("blank", "stream", "none"),
    ],
)
def test_a_source_without_a_good_row(
    tmp_path: Path, tokenizer_directory: str, kind: str, mode: str, packing: str
) -> None:
    flags = _flags(_write(tmp_path, (kind,)), tokenizer_directory)
    build(tmp_path / "out", *flags, *_MODES[mode], "--packing", packing)
    _check(tmp_path / "out", (kind,))


def test_an_empty_block_goes_to_no_bucket(tmp_path: Path, tokenizer_directory: str) -> None:
    flags = _flags(_write(tmp_path, ("good",)), tokenizer_directory)
    plan = make_plan(parse_options([*flags, "--output", str(tmp_path / "out")]))
    empty = pa.RecordBatch.from_pylist([], SCHEMA)
    assert list(scatter_block(empty, plan)) == []
    assert join_blocks([]).num_rows == 0
    assert np.array_equal(document_lengths(empty["tokens"], plan), np.zeros(0, np.int64))
