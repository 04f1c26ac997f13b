"""The rolling buffer as arithmetic: nothing lost, order a pure function, as random as it claims."""

import dataclasses
import pickle

import numpy as np
import pyarrow as pa
import pytest

from shardstream.shard_format import keys
from shardstream.shard_format.shard_file import ShardOptions
from shardstream.sources.options import SourceOptions
from shardstream.sources.resolve import ReadSpec
from shardstream.tokens.options import TokenizerOptions
from shardstream.tokens.packing.pack import PackingOptions
from shardstream.transforms.plan import TokenizerFacts
from shardstream.transforms.stream.buffer import MIN_BLOCKS, ShuffleBuffer, drain, draw
from shardstream.transforms.stream.plan import StreamPlan
from shardstream.transforms.token_blocks import SCHEMA


def make_plan(**changes: object) -> StreamPlan:
    values = dict(
        source=SourceOptions(dataset="x"),
        source_identity={"num_files": 1},
        read_spec=ReadSpec(module="parquet", config=(), columns=("text",), text_template=None),
        tokenizer=TokenizerOptions(tokenizer="t"),
        tokenizer_facts=TokenizerFacts(
            fingerprint="f", vocab_size=9, token_dtype="uint16", bos_id=None, eos_id=0, pad_id=0
        ),
        packing=PackingOptions(packing="concat", sequence_length=8),
        shard_options=ShardOptions(),
        seed=7,
        num_shards=0,
        validation_fraction=0.0,
        num_validation_shards=0,
        output="/nowhere",
        shuffle_via="worker",
        max_dead_letter_fraction=0.0,
        block_bytes=1,
        threads=1,
        buffer_documents=64,
        buffer_bytes=1 << 30,
        shard_records=None,
        max_shard_latency_secs=60.0,
        epochs=1,
        follow_source=False,
        poll_secs=1.0,
        lanes=1,
    )
    return StreamPlan(**values | changes)


def block(first: int, count: int, tokens: int = 4) -> pa.RecordBatch:
    data = [np.full(tokens, row % 9, "<u2").tobytes() for row in range(first, first + count)]
    columns = [np.zeros(count, np.int32), np.arange(first, first + count), data]
    types = zip(columns, SCHEMA.types, strict=True)
    return pa.RecordBatch.from_arrays([pa.array(c, t) for c, t in types], schema=SCHEMA)


def rows(batch: pa.RecordBatch) -> list[int]:
    return batch["row"].to_pylist()


def in_shard(batch: pa.RecordBatch) -> list[int]:
    """The rows of a draw in the order in which a shard has them: by key."""
    row = batch["row"].to_numpy()
    return row[np.argsort(keys.document_keys(7, 0, row))].tolist()


def stream_order(buffer: ShuffleBuffer, num_documents: int, step: int = 4) -> list[int]:
    order: list[int] = []
    for first in range(0, num_documents, step):
        buffer.add(block(first, step))
        while buffer.is_full:
            order += in_shard(buffer.draw())
    for part in buffer.drain():
        order += in_shard(part)
    return order


def test_draw_and_rest_are_all_documents_once() -> None:
    drawn, kept = draw(block(0, 40), make_plan(), 0, 0)
    assert (len(rows(drawn)), rows(kept)) == (10, sorted(rows(kept)))
    assert sorted(rows(drawn) + rows(kept)) == list(range(40))


def test_draw_does_not_depend_on_the_order_of_arrival() -> None:
    documents = block(0, 40)
    reversed_ = documents.take(pa.array(np.arange(39, -1, -1)))
    assert rows(draw(documents, make_plan(), 3, 4)[0]) == rows(
        draw(reversed_, make_plan(), 3, 4)[0]
    )


def test_draws_differ_by_lane_draw_and_seed() -> None:
    found = {
        tuple(rows(draw(block(0, 40), make_plan(seed=seed), lane, number)[0]))
        for seed in (0, 1)
        for lane in (0, 1)
        for number in (0, 1)
    }
    assert len(found) == 8


def test_draw_of_golden_documents() -> None:
    # python -c "from tests.transforms.test_stream_buffer import *; print(rows(draw(block(0, 16), make_plan(), 0, 0)[0]))"
    assert rows(draw(block(0, 16), make_plan(), 0, 0)[0]) == [15, 9, 6, 7]


@pytest.mark.parametrize(("records", "expected"), [(1, 2), (3, 6), (1000, 20)])
def test_shard_records_size_the_draw_up_to_half(records: int, expected: int) -> None:
    drawn, _ = draw(block(0, 40), make_plan(shard_records=records), 0, 0)
    assert len(rows(drawn)) == expected


def test_drain_gives_everything_in_parts_of_a_shard() -> None:
    parts = drain(block(0, 64), make_plan(), 0, 0)
    assert [len(rows(part)) for part in parts] == [16] * 4
    assert sorted(row for part in parts for row in rows(part)) == list(range(64))
    assert drain(block(0, 0), make_plan(), 0, 0) == []
    assert len(drain(block(0, 1), make_plan(), 0, 0)) == 1


def test_buffer_passes_every_document_once_and_stays_bounded() -> None:
    buffer = ShuffleBuffer(make_plan(), 0, 0)
    order = stream_order(buffer, 1000)
    assert sorted(order) == list(range(1000))
    assert buffer.is_empty


def test_bytes_bound_the_buffer_as_documents_do() -> None:
    buffer = ShuffleBuffer(make_plan(buffer_documents=10**9, buffer_bytes=64 * 8), 0, 0)
    for first in range(0, 400, 4):
        buffer.add(block(first, 4))
        while buffer.is_full:
            buffer.draw()
        assert buffer.nbytes <= 64 * 8 + 4 * 8


def test_first_draws_are_early_and_small() -> None:
    buffer = ShuffleBuffer(make_plan(buffer_documents=640), 0, 0)
    sizes = []
    for first in range(0, 4000, 4):
        buffer.add(block(first, 4))
        while buffer.is_full:
            sizes.append(len(rows(buffer.draw())))
    assert sizes[0] == MIN_BLOCKS * 4 // 4
    assert sizes[1:6] == sorted(sizes[1:6])
    assert set(sizes[6:]) == {160}


def test_document_stays_a_buffers_length_on_average() -> None:
    """Place in the stream minus place in the source: HF's shuffle(64) gives 64 on average too."""
    order = np.array(stream_order(ShuffleBuffer(make_plan(), 0, 0), 20_000))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    away = np.abs(place - np.arange(len(order)))[2000:-2000]
    assert 40 < away.mean() < 90
    assert np.count_nonzero(np.diff(order) == 1) / len(order) < 2 / 64


@pytest.mark.parametrize("changes", [{}, {"shard_records": 5}])
def test_the_buffer_in_memory_draws_what_the_function_on_a_batch_draws(changes: dict) -> None:
    """One law for the worker's lane and the engine's state: the same documents leave, untouched."""
    plan = make_plan(**changes)
    buffer, held, tokens = ShuffleBuffer(plan, 3), [], {}
    for number in range(60):
        fresh = block(number * 4, 4, tokens=1 + number % 7)
        tokens |= dict(zip(rows(fresh), fresh["tokens"].to_pylist(), strict=True))
        buffer.add(fresh)
        held.append(fresh)
        if number > 15 and number % 3 == 0:
            drawn, kept = draw(pa.concat_batches(held), plan, 3, buffer._draws)
            found, held = buffer.draw(), [kept]
            assert sorted(rows(found)) == sorted(rows(drawn))
            assert found["tokens"].to_pylist() == [tokens[row] for row in rows(found)]
            assert sum(b.num_rows for b in buffer._blocks) <= 2 * kept.num_rows
    parts = drain(pa.concat_batches(held), plan, 3, buffer._draws)
    assert [sorted(rows(p)) for p in buffer.drain()] == [sorted(rows(p)) for p in parts]
    assert buffer.is_empty
    assert buffer.drain() == []


def test_plan_travels() -> None:
    plan = make_plan()
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert dataclasses.replace(plan, poll_secs=9.0).fingerprint == plan.fingerprint
    assert dataclasses.replace(plan, buffer_documents=9).fingerprint != plan.fingerprint
