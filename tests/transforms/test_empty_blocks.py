"""Blocks without a document, wherever they stand among others, through every step on blocks."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shardstream.shard_format.storage import open_directory
from shardstream.sources.read import DeadLetter, TextBlock
from shardstream.tokens.options import TokenizerOptions
from shardstream.tokens.tokenizer import Tokenizer, open_tokenizer
from shardstream.transforms.batch.spill import SpillFile, read_index, spill_partition
from shardstream.transforms.batch.spill_limit import SpillLimit
from shardstream.transforms.scatter import scatter_block
from shardstream.transforms.shard_documents import BufferPool, FileRange, reading
from shardstream.transforms.stream.buffer import ShuffleBuffer, drain
from shardstream.transforms.token_blocks import TokenBlock, join_blocks, tokenize_blocks
from tests.transforms.test_stream_buffer import make_plan

# Documents and dead letters of each of three blocks, in every order.
_SHAPES = {"good": (4, 0), "dead": (0, 3), "nothing": (0, 0)}
_ORDERS = list(product(_SHAPES, repeat=3))
_each_order = pytest.mark.parametrize("order", _ORDERS, ids="-".join)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_directory: str) -> Tokenizer:
    return open_tokenizer(TokenizerOptions(tokenizer=tokenizer_directory))


def _text_blocks(order: tuple[str, ...]) -> list[TextBlock]:
    blocks, row = [], 0
    for shape in order:
        good, dead = _SHAPES[shape]
        rows = np.arange(row, row + good, dtype=np.int64)
        letters = [
            DeadLetter(file_index=0, row=row + good + i, reason="null_text", message="", preview="")
            for i in range(dead)
        ]
        texts = pa.array([f"text {i}" for i in rows.tolist()], pa.large_string())
        blocks.append(TextBlock(0, rows, texts, letters, good + dead))
        row += good + dead
    return blocks


def _token_blocks(order: tuple[str, ...], tokenizer: Tokenizer) -> list[TokenBlock]:
    with ThreadPoolExecutor(2) as executor:
        found = tokenize_blocks(
            _text_blocks(order), tokenizer, seed=0, executor=executor, max_pending=2
        )
        return list(found)


def _good_rows(order: tuple[str, ...]) -> list[int]:
    return [row for block in _text_blocks(order) for row in block.rows.tolist()]


@_each_order
def test_blocks_are_tokenized_in_order(order: tuple[str, ...], tokenizer: Tokenizer) -> None:
    blocks = _token_blocks(order, tokenizer)
    assert [(b.batch.num_rows, len(b.dead_letters)) for b in blocks] == [_SHAPES[s] for s in order]
    read = sum(block.counts["documents_read"] for block in blocks)
    assert read == sum(sum(_SHAPES[shape]) for shape in order)
    assert join_blocks(b.batch for b in blocks)["row"].to_pylist() == _good_rows(order)


@_each_order
@pytest.mark.parametrize("spill_bytes", [1, 1 << 30])
def test_blocks_are_spilled_and_read_back_by_bucket(
    tmp_path: Path, order: tuple[str, ...], tokenizer: Tokenizer, spill_bytes: int
) -> None:
    plan = dataclasses.replace(make_plan(), num_shards=3, output=str(tmp_path))
    directory = open_directory(str(tmp_path))
    blocks = _token_blocks(order, tokenizer)
    limit = SpillLimit(1, most=spill_bytes, least=spill_bytes)
    done = spill_partition(blocks, "p", plan, directory, limit)
    assert len(done["files"]) == (order.count("good") if spill_bytes == 1 else "good" in order)
    assert len(done["dead_letters"]) == 3 * order.count("dead")
    files = [SpillFile(*item) for item in done["files"].items()]
    rows = []
    for bucket in range(plan.num_buckets):
        ranges = []
        for file in files:
            index = read_index(directory, file, plan.num_buckets)
            ranges.append(FileRange(file.name, int(index[bucket]), int(index[bucket + 1])))
        with reading(ranges, directory, BufferPool(), None) as documents:
            rows += documents.row.tolist()
            assert len(documents.tokens.begin) == len(documents.row)
    assert sorted(rows) == _good_rows(order)


@_each_order
def test_blocks_are_scattered_for_the_runner_s_shuffle(
    order: tuple[str, ...], tokenizer: Tokenizer
) -> None:
    plan = dataclasses.replace(make_plan(), num_shards=3)
    pieces = [
        piece.serialize().to_pybytes()
        for block in _token_blocks(order, tokenizer)
        for _, piece in scatter_block(block.batch, plan)
    ]
    with reading(pieces, open_directory("/nowhere"), BufferPool(), None) as documents:
        assert sorted(documents.row.tolist()) == _good_rows(order)


@_each_order
def test_blocks_pass_the_stream_s_buffer(order: tuple[str, ...], tokenizer: Tokenizer) -> None:
    plan, rows = make_plan(buffer_documents=4), []
    buffer = ShuffleBuffer(plan, 0)
    blocks = [block.batch for block in _token_blocks(order, tokenizer)]
    for block in blocks:
        buffer.add(block)
        while buffer.is_full:
            rows += buffer.draw()["row"].to_pylist()
    rows += [row for drawn in buffer.drain() for row in drawn["row"].to_pylist()]
    assert (sorted(rows), buffer.is_empty) == (_good_rows(order), True)
    drawn = drain(join_blocks(blocks), plan, 0)
    assert sorted(row for each in drawn for row in each["row"].to_pylist()) == _good_rows(order)
    assert [split for split, those in plan.by_split(join_blocks(blocks)).items()] == (
        ["train"] if _good_rows(order) else []
    )
