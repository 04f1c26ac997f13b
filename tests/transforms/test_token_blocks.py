"""A document that the tokenizer can't take is a dead letter; the rest of its block goes on."""

import numpy as np
import pyarrow as pa
import pytest

from shardstream.sources.read import TextBlock
from shardstream.tokens.options import TokenizerOptions
from shardstream.tokens.tokenizer import Tokenizer, open_tokenizer
from shardstream.transforms.token_blocks import tokenize_block


@pytest.fixture
def tokenizer(tokenizer_directory: str) -> Tokenizer:
    return open_tokenizer(TokenizerOptions(tokenizer=tokenizer_directory))


def _block(texts: list[str], first_row: int = 100) -> TextBlock:
    rows = np.arange(first_row, first_row + len(texts))
    return TextBlock(3, rows, pa.array(texts, pa.large_string()), [], len(texts))


def test_tokenize_block_keeps_identity_and_counts(tokenizer: Tokenizer) -> None:
    block = tokenize_block(_block(["one two", "", "<|endoftext|> three"]), tokenizer, seed=0)
    assert block.batch["partition"].to_pylist() == [3, 3, 3]
    assert block.batch["row"].to_pylist() == [100, 101, 102]
    ids = [np.frombuffer(item, "<u2").tolist() for item in block.batch["tokens"].to_pylist()]
    reference = tokenizer.reference
    assert ids[0] == [*reference.encode("one two"), tokenizer.eos_id]
    assert ids[1] == [tokenizer.eos_id]
    assert block.counts["tokens_in"] == sum(map(len, ids))
    assert block.counts["documents_read"] == block.counts["documents_tokenized"] == 3
    assert block.counts["special_text_documents"] == 1
    assert block.counts["text_bytes"] == len("one two" + "<|endoftext|> three")


def test_tokenize_block_isolates_poison(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Tokenizer.encode_counted

    def encode_counted(self: Tokenizer, texts: pa.Array, audit_rows: object = None) -> object:
        if "poison" in " ".join(texts.to_pylist()):
            raise RuntimeError("the engine fell over")
        return original(self, texts, audit_rows)

    monkeypatch.setattr(Tokenizer, "encode_counted", encode_counted)
    block = tokenize_block(_block(["a", "poison 1", "b", "poison 2"]), tokenizer, seed=0)
    assert block.batch["row"].to_pylist() == [100, 102]
    assert [(d.file_index, d.row, d.reason) for d in block.dead_letters] == [
        (3, 101, "tokenizer_error"),
        (3, 103, "tokenizer_error"),
    ]
    assert block.dead_letters[0].message == "RuntimeError: the engine fell over"
    assert block.dead_letters[0].preview == "poison 1"
    assert block.counts["documents_read"] == 4
    assert block.counts["dead_letters/tokenizer_error"] == 2
