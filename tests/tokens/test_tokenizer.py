"""Opening a tokenizer: what it tells a manifest, special ids, errors, saving."""

from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from shardstream.tokens.engines.exact import EncodeCounts
from shardstream.tokens.load import TokenizerError, load_reference
from shardstream.tokens.options import TokenizerOptions
from shardstream.tokens.tokenizer import Tokenizer, open_tokenizer
from tests.real_tokenizers import write_config
from tests.tokens.conftest import TOKENIZERS

# sha256 of GPT-2's definition: changes only when ids could, and then datasets must not be mixed.
GPT2_FINGERPRINT_PREFIX = "3ecd0f76"


@pytest.fixture(scope="module")
def gpt2(directory_of) -> Tokenizer:
    return open_tokenizer(TokenizerOptions(tokenizer=str(directory_of("gpt2"))))


def test_open_gpt2_tells_what_a_manifest_needs(gpt2):
    assert gpt2.vocab_size == 50257
    assert gpt2.token_dtype is np.uint16
    assert (gpt2.bos_id, gpt2.eos_id, gpt2.unk_id, gpt2.pad_id) == (50256, 50256, 50256, None)
    assert (gpt2.engine_name, gpt2.engine_version) == ("gigatoken", "0.10.0")
    assert gpt2.fingerprint.startswith(GPT2_FINGERPRINT_PREFIX)
    assert len(gpt2.fingerprint) == 64


def test_open_large_vocabulary_needs_uint32(directory_of):
    options = TokenizerOptions(tokenizer=str(directory_of("deepseek")), engine="transformers")
    tokenizer = open_tokenizer(options)
    assert (tokenizer.vocab_size, tokenizer.token_dtype) == (129280, np.uint32)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_save_opens_again_with_same_fingerprint(directory_of, name, tmp_path):
    options = TokenizerOptions(
        tokenizer=str(directory_of(name)), engine="transformers", add_eos=False
    )
    tokenizer = open_tokenizer(options)
    tokenizer.save(tmp_path / "saved")
    saved = TokenizerOptions(
        tokenizer=str(tmp_path / "saved"), engine="transformers", add_eos=False
    )
    again = open_tokenizer(saved)
    assert again.fingerprint == tokenizer.fingerprint
    text = pa.array(["Hello, wörld <s> 12"])
    assert again.encode(text).ids.tolist() == tokenizer.encode(text).ids.tolist()


def test_fingerprint_other_special_id_differs(directory_of, tmp_path):
    shutil.copytree(directory_of("gpt2"), tmp_path, dirs_exist_ok=True)
    write_config(tmp_path, tokenizer_class="GPT2Tokenizer", eos_token="!")
    changed = TokenizerOptions(tokenizer=str(tmp_path), engine="transformers")
    tokenizer = open_tokenizer(changed)
    assert tokenizer.eos_id == 0
    assert not tokenizer.fingerprint.startswith(GPT2_FINGERPRINT_PREFIX)


def test_encode_bos_and_eos_around_every_document(directory_of):
    options = TokenizerOptions(tokenizer=str(directory_of("deepseek")), add_bos=True)
    tokenizer = open_tokenizer(options)
    encoded = tokenizer.encode(pa.array(["Hi", ""]))
    (hi,) = tokenizer.reference("Hi", add_special_tokens=False)["input_ids"]
    assert encoded.row(0).tolist() == [0, hi, 1]
    assert encoded.row(1).tolist() == [0, 1]


def test_encode_literal_special_token_in_both_modes(directory_of):
    document = pa.array(["a<|endoftext|>b"])
    options = TokenizerOptions(tokenizer=str(directory_of("gpt2")), add_eos=False)
    assert 50256 not in open_tokenizer(options).encode(document).ids
    parse = TokenizerOptions(
        tokenizer=str(directory_of("gpt2")), add_eos=False, special_tokens_in_text="parse"
    )
    assert open_tokenizer(parse).encode(document).ids.tolist() == [64, 50256, 65]


def test_decode_gives_text_back(gpt2):
    encoded = gpt2.encode(pa.array(["Hello, wörld \u4e2d"]))
    assert gpt2.decode(encoded.row(0)) == "Hello, wörld \u4e2d<|endoftext|>"


def test_encode_counted_counts_the_block_and_the_total(directory_of):
    options = TokenizerOptions(tokenizer=str(directory_of("gpt2")))
    tokenizer = Tokenizer(options, load_reference(options))
    block = pa.array(["a", "b \U0010fffd", "c"])  # the second is outside every certificate
    _, counts = tokenizer.encode_counted(block, np.array([True, True, False]))
    expected = EncodeCounts(
        documents=3, reference_documents=1, uncertified_documents=1, audited_documents=1
    )
    assert counts == expected
    tokenizer.encode(block)
    assert tokenizer.counts.documents == 6
    assert tokenizer.audit_differences == ()


def test_encode_threads_share_a_tokenizer(gpt2):
    texts = [pa.array([f"document {i} \u00e9 \U0010fffd", "plain"] * 20) for i in range(16)]
    expected = [gpt2.encode(block).ids.tolist() for block in texts]
    with ThreadPoolExecutor(4) as threads:
        assert [e.ids.tolist() for e in threads.map(gpt2.encode, texts)] == expected


def test_open_same_options_gives_same_instance(directory_of):
    options = TokenizerOptions(tokenizer=str(directory_of("gpt2")), engine="transformers")
    with ThreadPoolExecutor(4) as threads:
        opened = list(threads.map(open_tokenizer, [options] * 4))
    assert all(tokenizer is opened[0] for tokenizer in opened)


def test_tokenizer_pickled_says_what_to_send(gpt2):
    with pytest.raises(TypeError, match="Send TokenizerOptions"):
        pickle.dumps(gpt2)
    assert pickle.loads(pickle.dumps(gpt2.options)) == gpt2.options


@pytest.mark.parametrize("special", ("eos", "bos"))
def test_open_missing_special_token_names_the_options(directory_of, special):
    options = TokenizerOptions(
        tokenizer=str(directory_of("minilm")), add_eos=special == "eos", add_bos=special == "bos"
    )
    with pytest.raises(TokenizerError, match=f"Pass --no-{special}, or set {special}_token"):
        open_tokenizer(options)


def test_open_missing_directory_says_what_was_tried(tmp_path):
    with pytest.raises(TokenizerError, match=r"found nothing at .*/nowhere"):
        open_tokenizer(TokenizerOptions(tokenizer=str(tmp_path / "nowhere")))


def test_open_directory_without_tokenizer_lists_it(tmp_path):
    (tmp_path / "readme.txt").touch()
    with pytest.raises(TokenizerError, match=r"it holds: readme\.txt"):
        open_tokenizer(TokenizerOptions(tokenizer=str(tmp_path)))


def test_open_file_asks_for_its_directory(directory_of):
    path = directory_of("gpt2") / "tokenizer.json"
    with pytest.raises(TokenizerError, match="expected a directory, found a file"):
        open_tokenizer(TokenizerOptions(tokenizer=str(path)))


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"tokenizer": " "}, "expected a hub name"),
        ({"engine": "fast"}, "engine is 'fast', expected one of auto, gigatoken"),
        ({"special_tokens_in_text": "no"}, "is 'no', expected one of encode, parse"),
        ({"audit_every": -1}, "expected 0 .* found -1"),
    ),
)
def test_options_invalid_say_expected_and_found(changes, message):
    with pytest.raises(ValueError, match=message):
        TokenizerOptions(**({"tokenizer": "gpt2"} | changes))


def test_fingerprint_ignores_padding_and_truncation(directory_of, tmp_path):
    shutil.copytree(directory_of("gpt2"), tmp_path, dirs_exist_ok=True)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(content | {"truncation": cut}))
    tokenizer = open_tokenizer(TokenizerOptions(tokenizer=str(tmp_path), add_eos=False))
    assert tokenizer.fingerprint.startswith(GPT2_FINGERPRINT_PREFIX)
    assert len(tokenizer.encode(pa.array(["one two three four"])).ids) == 4
