"""The gigatoken engine: any Arrow layout, several threads, and memory within a budget."""

from __future__ import annotations

import itertools
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from shardstream.tokens.engines import gigatoken as gigatoken_engine
from shardstream.tokens.engines.engine import EngineUnavailable, as_large_strings
from shardstream.tokens.engines.gigatoken import GigatokenEngine
from shardstream.tokens.fingerprint import canonical_json
from tests.real_tokenizers import gpt2_directory


@pytest.fixture(scope="module")
def tokenizer_json() -> str:
    return canonical_json(AutoTokenizer.from_pretrained(gpt2_directory()))


@pytest.fixture(scope="module")
def engine(tokenizer_json) -> GigatokenEngine:
    return GigatokenEngine(tokenizer_json, split_special_tokens=True)


def _distinct_words(block: int, count: int = 20_000) -> pa.LargeStringArray:
    """Words never seen before, a hundred a row."""
    start = block * count
    words = [f"w{(start + i) * 2654435761 % 2**40:x}q" for i in range(count)]
    rows = [" ".join(words[i : i + 100]) for i in range(0, count, 100)]
    return pa.array(rows, pa.large_string())


@pytest.mark.parametrize("kind", (pa.string(), pa.large_string(), pa.string_view()))
def test_encode_every_arrow_layout_same_ids(engine, kind):
    texts = ["x", "hello world", "", "héllo \U0001f600", "", "it's"]
    column = pa.array(texts, kind)
    expected = [engine.encode(pa.array([t], pa.large_string())).ids.tolist() for t in texts]
    whole = engine.encode(as_large_strings(column))
    part = engine.encode(as_large_strings(column[1:5]))
    chunked = pa.chunked_array([column[:2], column[2:2], column[2:]])
    joined = engine.encode(as_large_strings(chunked))
    assert [whole.row(i).tolist() for i in range(6)] == expected
    assert [part.row(i).tolist() for i in range(4)] == expected[1:5]
    assert [joined.row(i).tolist() for i in range(6)] == expected
    assert (part.offsets[0], part.offsets[-1]) == (0, len(part.ids))


@pytest.mark.parametrize("texts", ([], [""], ["", "", ""]))
def test_encode_nothing_gives_empty_rows(engine, texts):
    encoded = engine.encode(pa.array(texts, pa.large_string()))
    assert encoded.offsets.tolist() == [0] * (len(texts) + 1)
    assert encoded.ids.dtype == np.uint32
    assert encoded.offsets.dtype == np.int64


def test_encode_results_outlive_engine_and_input(tokenizer_json):
    engine = GigatokenEngine(tokenizer_json, split_special_tokens=True)
    encoded = engine.encode(pa.array(["hello world"] * 1000, pa.large_string()))
    before = encoded.ids.tolist()
    engine.encode(pa.array(["other text"] * 1000, pa.large_string()))
    del engine
    assert encoded.ids.tolist() == before == [31373, 995] * 1000


def test_encode_four_threads_same_ids(engine):
    blocks = [_distinct_words(i) for i in range(12)]
    expected = [engine.encode(block).ids for block in blocks]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(engine.encode, blocks))
    for ours, theirs in zip(found, expected, strict=True):
        assert np.array_equal(ours.ids, theirs)


def test_encode_over_budget_rebuilds_and_keeps_ids(tokenizer_json, engine, monkeypatch):
    expected = [engine.encode(block).ids for block in map(_distinct_words, range(20, 26))]
    sizes = itertools.count(step=3 << 20)  # the process grows by 3 MiB a call
    monkeypatch.setattr(gigatoken_engine, "resident_bytes", lambda: next(sizes))
    small = GigatokenEngine(tokenizer_json, split_special_tokens=True, cache_bytes=4 << 20)
    for block, ids in zip(map(_distinct_words, range(20, 26)), expected, strict=True):
        assert np.array_equal(small.encode(block).ids, ids)
    assert small.num_rebuilds == 3


def test_encode_where_memory_cannot_be_read_charges_text(tokenizer_json, monkeypatch):
    monkeypatch.setattr(gigatoken_engine, "resident_bytes", lambda: None)
    small = GigatokenEngine(tokenizer_json, split_special_tokens=True, cache_bytes=100_000)
    for _ in range(4):
        small.encode(pa.array(["x" * 2600], pa.large_string()))
    assert small.num_rebuilds == 2


def test_engine_unknown_model_says_why(tokenizer_json):
    with pytest.raises(EngineUnavailable, match=r"gigatoken .* cannot load it"):
        GigatokenEngine('{"model": {"type": "Nonsense"}}', split_special_tokens=False)


def test_engine_pickled_says_what_to_send(engine):
    with pytest.raises(TypeError, match="Send TokenizerOptions"):
        pickle.dumps(engine)


def test_as_large_strings_null_names_first_row():
    with pytest.raises(ValueError, match="found 2 of 4, the first in row 1"):
        as_large_strings(pa.array(["a", None, "b", None]))


def test_as_large_strings_numbers_says_type():
    with pytest.raises(TypeError, match="found int64"):
        as_large_strings(pa.array([1, 2]))


def test_released_engine_gives_the_same_ids(tokenizer_json):
    engine = GigatokenEngine(tokenizer_json, split_special_tokens=True)
    texts = pa.array(["hello world", "again"], pa.large_string())
    before = engine.encode(texts).ids.tolist()
    engine.release_memory()
    assert not engine._idle
    assert engine.encode(texts).ids.tolist() == before


def test_without_special_tokens_is_the_same_whatever_the_order_of_keys(tokenizer_json):
    content = json.loads(tokenizer_json)
    expected = content | {"added_tokens": []}  # GPT-2's one added token is special
    assert content["added_tokens"]
    assert json.loads(gigatoken_engine._without_special_tokens(tokenizer_json)) == expected
    backwards = json.dumps(dict(reversed(content.items())))
    assert json.loads(gigatoken_engine._without_special_tokens(backwards)) == expected
