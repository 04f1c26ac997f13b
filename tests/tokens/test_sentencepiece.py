"""A tokenizer that comes as a SentencePiece model alone: opened with the extra, named without it."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import sentencepiece

from shardstream.tokens.options import TokenizerOptions
from shardstream.tokens.tokenizer import open_tokenizer


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer without a tokenizer.json."""
    folder = tmp_path_factory.mktemp("model")
    lines = (f"hello world of documents, number {i}, and words to learn\n" for i in range(500))
    (folder / "text").write_text("".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=60,
        model_type="bpe",
        minloglevel=2,
    )
    settings = {"tokenizer_class": "LlamaTokenizer", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_ids_are_those_of_transformers(model_directory: Path) -> None:
    from transformers import AutoTokenizer

    texts = ["hello world", "", "words to learn, number 7", "documents"]
    reference = AutoTokenizer.from_pretrained(str(model_directory))
    expected = [reference(text, add_special_tokens=False)["input_ids"] for text in texts]
    tokenizer = open_tokenizer(TokenizerOptions(tokenizer=str(model_directory), add_eos=False))
    encoded = tokenizer.encode(pa.array(texts, pa.large_string()))
    assert [encoded.row(i).tolist() for i in range(len(texts))] == expected


def test_missing_package_is_named_with_its_extra(model_directory: Path) -> None:
    code = (
        "import sys; sys.modules['sentencepiece'] = None\n"
        "from shardstream.tokens.options import TokenizerOptions\n"
        "from shardstream.tokens.tokenizer import open_tokenizer\n"
        f"open_tokenizer(TokenizerOptions(tokenizer={str(model_directory)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "TokenizerError" in done.stderr
    assert "pip install 'shardstream[sentencepiece]'" in done.stderr
