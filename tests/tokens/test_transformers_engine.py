"""The reference engine keeps nothing of what it is asked, however many words it meets."""

from __future__ import annotations

import ctypes

import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from shardstream.tokens.engines.transformers import TransformersEngine
from tests.real_tokenizers import gpt2_directory


class _MallocTotals(ctypes.Structure):
    """glibc's struct mallinfo2, of all its heaps."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def test_words_are_not_remembered() -> None:
    try:
        totals = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        pytest.skip("needs glibc 2.33, which tells what is allocated")
    totals.restype = _MallocTotals
    engine = TransformersEngine(
        AutoTokenizer.from_pretrained(gpt2_directory()), split_special_tokens=True
    )

    def encode_new_words(first: int) -> None:
        words = [f"w{(first + i) * 2654435761 % 2**40:x}q" for i in range(10_000)]
        engine.encode(pa.array([" ".join(words)], pa.large_string()))

    encode_new_words(0)  # what threads, regular expressions and buffers keep
    before = totals().uordblks
    encode_new_words(10_000)
    assert totals().uordblks - before < 500_000  # it was 4 MB a thread
