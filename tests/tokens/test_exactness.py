"""Promise 1: the ids are those of `AutoTokenizer`, for every kind of tokenizer and any text."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from shardstream.tokens.engines import probes
from shardstream.tokens.options import TokenizerOptions
from shardstream.tokens.tokenizer import Tokenizer, open_tokenizer
from tests.tokens.conftest import TOKENIZERS

_WITHOUT_EOS = ("minilm",)
_ALL = [(name, mode) for name in TOKENIZERS for mode in ("encode", "parse")]


@pytest.fixture(scope="module", params=_ALL, ids=lambda pair: "-".join(pair))
def tokenizer(request, directory_of) -> Tokenizer:
    """Every kind of tokenizer in both modes, each opened once."""
    return _open(directory_of, *request.param)


def _open(directory_of, name: str, mode: str) -> Tokenizer:
    return open_tokenizer(
        TokenizerOptions(
            tokenizer=str(directory_of(name)),
            special_tokens_in_text=mode,
            add_eos=name not in _WITHOUT_EOS,
        )
    )


@functools.lru_cache(maxsize=1)
def _auto_tokenizer(directory: str) -> PreTrainedTokenizerBase:
    """A tokenizer that no code under test has touched."""
    return AutoTokenizer.from_pretrained(directory)


def _assert_same_ids(tokenizer: Tokenizer, texts: list[str]) -> None:
    """Compares with a tokenizer of its own, loaded and called the documented way."""
    reference = _auto_tokenizer(tokenizer.options.tokenizer)
    split = tokenizer.options.special_tokens_in_text == "encode"
    expected = reference(texts, add_special_tokens=False, split_special_tokens=split)["input_ids"]
    end = [tokenizer.eos_id] if tokenizer.options.add_eos else []
    encoded = tokenizer.encode(pa.array(texts, pa.large_string()))
    assert encoded.ids.dtype == np.uint32
    assert encoded.offsets.dtype == np.int64
    assert encoded.num_rows == len(texts)
    for row, (text, ids) in enumerate(zip(texts, expected, strict=True)):
        assert encoded.row(row).tolist() == [*ids, *end], text[:200]


def test_encode_real_text_same_ids_as_auto_tokenizer(tokenizer, real_texts):
    _assert_same_ids(tokenizer, real_texts)


def test_encode_adversarial_text_same_ids_as_auto_tokenizer(tokenizer):
    added = [str(token) for token in tokenizer.reference.added_tokens_decoder.values()]
    texts = [*map(probes.literal_text, added[:100]), *map(probes.near_literal_text, added[:100])]
    texts += [*probes.fixed_texts(), *probes.block_texts()[::13]]
    # Seeds the certificates were not made with; code points inside and outside them.
    texts += probes.random_texts(400, seed=7, extra=added[:50])
    _assert_same_ids(tokenizer, texts)


@pytest.mark.parametrize("name", ("gpt2", "deepseek", "sentencepiece_bpe"))
def test_encode_byte_pair_tokenizers_run_on_gigatoken(directory_of, name):
    assert _open(directory_of, name, "encode").engine_name == "gigatoken"


@pytest.mark.parametrize("name", ("minilm", "unigram"))
def test_encode_kinds_gigatoken_lacks_run_on_tokenizers(directory_of, name):
    assert _open(directory_of, name, "encode").engine_name == "tokenizers"


def test_encode_slow_tokenizer_runs_on_transformers(directory_of):
    assert _open(directory_of, "slow", "encode").engine_name == "transformers"


@pytest.mark.parametrize("name", ("gpt2", "sentencepiece_bpe"))
def test_encode_one_megabyte_word_same_ids(directory_of, name):
    _assert_same_ids(_open(directory_of, name, "encode"), ["a", probes.long_texts()[1], "b"])


def test_encode_twenty_megabyte_document_repeats_its_line(directory_of):
    # GPT-2's regex parts "\n" from a letter, so the ids of a repeated line are the line's, repeated.
    tokenizer = _open(directory_of, "gpt2", "encode")
    line = "Lorem ipsum dolor sit amet, café 12345 ½.\n"
    reference = _auto_tokenizer(tokenizer.options.tokenizer)
    ids = reference(line, add_special_tokens=False)["input_ids"]
    assert reference(line * 100, add_special_tokens=False)["input_ids"] == ids * 100
    num_lines = 20_000_000 // len(line.encode())
    encoded = tokenizer.encode(pa.array([line * num_lines, ""], pa.large_string()))
    assert np.array_equal(encoded.row(0)[:-1], np.tile(ids, num_lines))
    assert encoded.row(0)[-1] == tokenizer.eos_id
    assert encoded.row(1).tolist() == [tokenizer.eos_id]


@pytest.mark.slow
@pytest.mark.parametrize("name", ("gpt2", "deepseek", "minilm", "sentencepiece_bpe", "unigram"))
def test_encode_hundred_thousand_documents_same_ids(directory_of, real_texts, name):
    rng = np.random.default_rng(0)
    words = "\n".join(real_texts).split(" ")
    tokenizer = _open(directory_of, name, "encode")
    for _ in range(10):
        starts = rng.integers(0, len(words) - 200, 10_000)
        lengths = rng.integers(0, 120, 10_000)
        texts = [" ".join(words[s : s + n]) for s, n in zip(starts, lengths, strict=True)]
        texts[::10] = probes.random_texts(1000, seed=int(starts[0]))
        _assert_same_ids(tokenizer, texts)
