"""Small tokenizers of kinds no package ships, trained on Python's own documentation in a second."""

from __future__ import annotations

import json
import pydoc_data.topics
from pathlib import Path

from tokenizers import (
    Regex,
    SentencePieceBPETokenizer,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from tests.real_tokenizers import write_config

VOCABULARY_SIZE = 1200
_TOPICS = list(pydoc_data.topics.topics.values())
_SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def write_sentencepiece_bpe(directory: Path) -> None:
    """Llama's kind: BPE over the whole text with `▁` for spaces and bytes for unknown characters."""
    trained = SentencePieceBPETokenizer()
    trained.train_from_iterator(_TOPICS, VOCABULARY_SIZE, special_tokens=[*_SPECIAL.values()][:0])
    model = json.loads(trained.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(dict.fromkeys(tokens))},
            merges=[tuple(pair) for pair in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    _save(tokenizer, directory)


def write_unigram(directory: Path) -> None:
    """T5's kind: Unigram with an NFKC normalizer, words split by Metaspace."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(_SPECIAL.values()),
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TOPICS[:40], trainer)
    _save(tokenizer, directory)


def write_spaced_bpe(directory: Path) -> None:
    """Byte-level BPE with added tokens that eat spaces and that are not special."""
    from tokenizers import AddedToken

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(_SPECIAL.values()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TOPICS[:40], trainer)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("import")])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=True, special=True)])
    _save(tokenizer, directory)


def write_slow_bytes(directory: Path) -> None:
    """A tokenizer in Python, without tokenizer.json: ByT5's bytes."""
    from transformers import ByT5Tokenizer

    ByT5Tokenizer().save_pretrained(directory)


def _save(tokenizer: Tokenizer, directory: Path) -> None:
    tokenizer.add_special_tokens(list(_SPECIAL.values()))
    tokenizer.save(str(directory / "tokenizer.json"))
    write_config(directory, tokenizer_class="PreTrainedTokenizerFast", **_SPECIAL)
