"""Tokenizers that are no function are refused, code of a tokenizer's own is never run unasked."""

import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from shardstream.shard_format.errors import OptionError
from shardstream.tokens.encode_around import encode_around
from shardstream.tokens.engines.engine import EnginePanic, calling_library
from shardstream.tokens.load import TokenizerError
from shardstream.tokens.options import TokenizerOptions
from shardstream.tokens.tokenizer import open_tokenizer
from tests.pipeline_runs import build, parquet_flags


def _bpe(folder: Path, dropout: float | None) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=["<eos>"], show_progress=False
    )
    tokenizer.train_from_iterator(["documents and documentation of the documented"] * 20, trainer)
    tokenizer.model.dropout = dropout
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("dropout", [0.01, 0.3, 1.0])
def test_bpe_dropout_is_refused_with_the_way_out(tmp_path: Path, dropout: float) -> None:
    name = _bpe(tmp_path, dropout)
    with pytest.raises(TokenizerError, match=r"dropout of .*--tokenizer_override dropout=null"):
        open_tokenizer(TokenizerOptions(tokenizer=name))


@pytest.mark.parametrize("dropout", [None, 0.0])
def test_no_dropout_is_taken(tmp_path: Path, dropout: float | None) -> None:
    open_tokenizer(TokenizerOptions(tokenizer=_bpe(tmp_path, dropout)))


def test_override_gives_the_ids_of_the_tokenizer_without_dropout(
    tmp_path: Path, twelve_documents: list[str]
) -> None:
    plain, random = _bpe(tmp_path / "plain", None), _bpe(tmp_path / "random", 0.3)
    expected = build(tmp_path / "a", *parquet_flags(twelve_documents, plain))
    flags = [*parquet_flags(twelve_documents, random), "--tokenizer_override", "dropout=null"]
    assert build(tmp_path / "b", *flags).fingerprint == expected.fingerprint
    saved = json.loads((tmp_path / "b/tokenizer/tokenizer.json").read_text())
    assert not saved["model"]["dropout"]


@pytest.mark.parametrize("text", ["dropout=0.1", "dropout", "lowercase=true", ""])
def test_unknown_override_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"expected dropout=null"):
        TokenizerOptions(tokenizer="x", tokenizer_override=(text,))


def test_tokenizer_that_draws_under_no_known_name_is_found(tmp_path: Path) -> None:
    from shardstream.tokens.determinism import why_not_a_function

    class Drawing:
        def __init__(self) -> None:
            self.init_kwargs: dict[str, object] = {}
            self.calls = 0

        def __call__(self, text: str, verbose: bool) -> dict:
            self.calls += 1
            return {"input_ids": [self.calls]}

    assert "gave 4 lists of ids" in (why_not_a_function(Drawing(), None) or "")


def test_vocabulary_without_an_unknown_token_makes_dead_letters(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    tokenizer = Tokenizer(models.WordLevel({"hello": 0, "world": 1, "<eos>": 2}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path / "words"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(folder)
    texts = ["hello world", "hello moon", "world", "sun"] * 5
    pq.write_table(pa.table({"text": texts}), tmp_path / "t.parquet")
    flags = [*parquet_flags([str(tmp_path / "t.parquet")], str(folder)), "--num_shards", 1]
    manifest = build(tmp_path / "out", *flags, "--max_dead_letter_fraction", "0.5")
    assert manifest.dead_letters == {"tokenizer_error": 10}
    assert manifest.totals["documents_written"] == 10


_CODE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
from transformers import PreTrainedTokenizerFast
class Mine(PreTrainedTokenizerFast): pass
"""


@pytest.fixture
def tokenizer_with_code(tmp_path: Path) -> Path:
    """A directory whose tokenizer can be opened with code of its own only."""
    folder = Path(_bpe(tmp_path / "coded", None))
    (folder / "tokenizer.json").rename(folder / "vocabulary.json")
    (folder / "mine.py").write_text(_CODE.format(marker=str(tmp_path / "marker")))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {
        "auto_map": {"AutoTokenizer": ["mine.Mine", "mine.Mine"]},
        "tokenizer_class": "Mine",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_code_of_a_tokenizer_is_not_run_whatever_stdin_says(
    tmp_path: Path, tokenizer_with_code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(TokenizerError, match=r"--trust_remote_code .*@COMMIT"):
        open_tokenizer(TokenizerOptions(tokenizer=str(tokenizer_with_code)))
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "trusted",
    ["acme/other@" + "a" * 40, "acme/tok@main", "acme/tok", "true", "acme/tok@" + "A" * 40],
)
def test_trust_names_the_tokenizer_and_a_full_commit(trusted: str) -> None:
    with pytest.raises(OptionError, match="expected acme/tok@COMMIT"):
        TokenizerOptions(tokenizer="acme/tok", trust_remote_code=trusted)


def test_tokenizer_that_takes_no_text_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"<eos>": 0}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(tmp_path)
    with pytest.raises(TokenizerError, match=r"refuses every text .*Mend its files"):
        open_tokenizer(TokenizerOptions(tokenizer=str(tmp_path)))


class _Panic(BaseException):
    """What a panic of Rust code comes as."""


def test_panic_of_a_library_is_an_exception() -> None:
    with pytest.raises(EnginePanic, match="_Panic: index out of bounds"), calling_library():
        raise _Panic("index out of bounds")
    for kept in (KeyboardInterrupt, SystemExit, ValueError):
        with pytest.raises(kept), calling_library():
            raise kept


def test_document_on_which_an_engine_panics_is_a_dead_letter(
    tokenizer_directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = open_tokenizer(TokenizerOptions(tokenizer=tokenizer_directory, engine="tokenizers"))

    class Panicking:
        def encode_batch_fast(self, texts: list[str], **_: object) -> list:
            if "poison" in texts:
                raise _Panic("called `Option::unwrap()` on a `None` value")
            return [SimpleNamespace(ids=[1]) for _ in texts]

    monkeypatch.setattr(tokenizer.engine.active, "_tokenizer", Panicking())
    texts = pa.array(["a", "poison", "b"], pa.large_string())
    found = encode_around(tokenizer, texts, None)
    assert found.keep.tolist() == [True, False, True]
    assert "unwrap" in str(found.errors[1])
