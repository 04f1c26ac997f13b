"""Pieces of a bucket in one buffer: whatever they come in, the documents are the same."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shardstream.shard_format.storage import open_directory
from shardstream.transforms.batch.spill import SpillFile, read_index, write_spill
from shardstream.transforms.shard_documents import (
    BufferPool,
    FileRange,
    ShardDocuments,
    SpillJobError,
    reading,
)
from shardstream.transforms.token_blocks import SCHEMA, join_blocks


def _batch(partition: int, tokens: list[list[int]]) -> pa.RecordBatch:
    rows = range(100, 100 + len(tokens))
    data = [np.array(item, "<u2").tobytes() for item in tokens]
    columns = [pa.array([partition] * len(tokens), pa.int32()), pa.array(rows, pa.int64())]
    return pa.RecordBatch.from_arrays([*columns, pa.array(data, pa.large_binary())], schema=SCHEMA)


BATCHES = [
    _batch(0, [[1, 2, 3], [], [4]]),
    _batch(1, []),
    _batch(2, [[], []]),
    _batch(3, [[5] * 1000, [6]]).slice(1),
    _batch(4, [[7, 8]]),
]


def _content(documents: ShardDocuments) -> list[tuple[int, int, list[int]]]:
    data, begin, end = documents.tokens
    tokens = [data[b:e].view("<u2").tolist() for b, e in zip(begin, end, strict=True)]
    return list(zip(documents.file_index.tolist(), documents.row.tolist(), tokens, strict=True))


def test_documents_are_those_of_the_batches_in_order(tmp_path: Path) -> None:
    directory, pool = open_directory(tmp_path), BufferPool()
    size = write_spill(directory, "spill", {1: BATCHES[:3], 3: [_batch(9, [[9]])]}, 4)
    index = read_index(directory, SpillFile("spill", size), 4)
    assert np.diff(index)[[0, 2]].tolist() == [0, 0]  # buckets without documents
    pieces = [
        FileRange("spill", *index[1:3].tolist()),
        *(batch.serialize().to_pybytes() for batch in BATCHES[3:]),
    ]
    expected = _content(ShardDocuments.of(join_blocks(BATCHES)))
    assert expected[:3] == [(0, 100, [1, 2, 3]), (0, 101, []), (0, 102, [4])]
    for _ in range(2):  # the second time in a used buffer
        with reading(pieces, directory, pool, None) as documents:
            assert _content(documents) == expected
    with reading([], directory, pool, None) as documents:
        assert _content(documents) == []


def test_tokens_are_not_copied_out_of_the_buffer(tmp_path: Path) -> None:
    piece = BATCHES[0].serialize().to_pybytes()
    with reading([piece], open_directory(tmp_path), BufferPool(), None) as documents:
        assert len(documents.tokens.data) == len(piece)


def test_buffers_are_used_again_but_never_by_two_at_once() -> None:
    pool = BufferPool()
    with pool.buffer(100) as first, pool.buffer(50) as second:
        assert not np.shares_memory(first, second)
    with pool.buffer(90) as third, pool.buffer(100) as fourth:
        assert np.shares_memory(third, first) or np.shares_memory(third, second)
        assert (len(third), len(fourth)) == (90, 100)
        assert not np.shares_memory(third, fourth)


def test_released_range_is_no_documents(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    size = write_spill(directory, "spill", {0: BATCHES[:1]}, 1)
    index = read_index(directory, SpillFile("spill", size), 1)
    reference = FileRange("spill", *index.tolist())
    directory.release_range(*reference)
    with (
        pytest.raises(SpillJobError, match="temporary files of this build were changed"),
        reading([reference], directory, BufferPool(), None),
    ):
        pass
