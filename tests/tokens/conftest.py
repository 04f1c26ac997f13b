"""Tokenizers of every kind, real texts, and certificates small enough to make in a test.

The certificates of these tests cover a sample of the code points, which changes how many documents
go fast, never what their ids are. `test_certify.py` makes a whole one behind the `slow` mark.
"""

from __future__ import annotations

import inspect
import pydoc_data.topics
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from shardstream.tokens.engines import probes
from tests import real_tokenizers
from tests.tokens import trained_tokenizers

TOKENIZERS = ("gpt2", "deepseek", "minilm", "sentencepiece_bpe", "unigram", "spaced_bpe", "slow")

whole_range = probes.certified_range


def sampled_range() -> np.ndarray:
    """5,400 of the 160,000 code points a certificate covers; 0x1ACF, new to some, among them."""
    parts = [(0, 0x370, 1), (0x370, 0x3100, 3), (0x3400, 0xD800, 101), (0x1F300, 0x1FA00, 7)]
    return np.concatenate([[0x1ACF], *(np.arange(*part) for part in parts)])


@pytest.fixture(scope="session", autouse=True)
def small_certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps this session's certificates apart, and small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "certified_range", sampled_range)
        patch.setenv("SHARDSTREAM_CACHE", str(tmp_path_factory.mktemp("shardstream-cache")))
        yield


@pytest.fixture(scope="session")
def directory_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the directory of a tokenizer named in TOKENIZERS, made on first use."""
    made: dict[str, Path] = {}
    trained = {
        "sentencepiece_bpe": trained_tokenizers.write_sentencepiece_bpe,
        "unigram": trained_tokenizers.write_unigram,
        "spaced_bpe": trained_tokenizers.write_spaced_bpe,
        "slow": trained_tokenizers.write_slow_bytes,
    }

    def directory(name: str) -> Path:
        if name in trained and name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            trained[name](made[name])
        return made[name] if name in made else getattr(real_tokenizers, f"{name}_directory")()

    return directory


@pytest.fixture(scope="session")
def real_texts() -> list[str]:
    """Python's language reference by topic, and some of the library's docstrings and sources."""
    import argparse
    import collections
    import decimal
    import unicodedata

    modules = (argparse, collections, decimal, unicodedata, inspect)
    objects = [value for module in modules for value in vars(module).values()]
    docstrings = [
        doc for value in objects if isinstance(doc := getattr(value, "__doc__", None), str)
    ]
    sources = [inspect.getsource(collections), inspect.getsource(argparse)]
    return [*list(pydoc_data.topics.topics.values())[::2], *docstrings, *sources]
