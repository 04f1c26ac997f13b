import random

import pyarrow as pa
import pytest

from shardstream.tokens.literals import LiteralSearch

TOKENS = ["<|endoftext|>", "<s>", "<", "日本", "aa"]


@pytest.mark.parametrize("literals", [TOKENS, TOKENS[:1], TOKENS[1:2], ["日本"], ["aa"], [], [""]])
def test_rows_with_agrees_with_python(literals: list[str]) -> None:
    rng = random.Random(0)
    parts = [*TOKENS, "<|endof", "text|>", "a", "", "日", "本", " ", "x" * 30]
    texts = ["".join(rng.choices(parts, k=rng.randrange(6))) for _ in range(2000)]
    column = pa.array(texts, pa.large_string())
    expected = [any(literal and literal in text for literal in literals) for text in texts]
    assert LiteralSearch(literals).rows_with(column).tolist() == expected
    part = column.slice(700, 500)
    assert LiteralSearch(literals).rows_with(part).tolist() == expected[700:1200]


def test_rows_with_does_not_match_across_documents() -> None:
    column = pa.array(["<|endof", "text|>", "", "<s", ">"], pa.large_string())
    assert not LiteralSearch(TOKENS[:2]).rows_with(column).any()


def test_rows_with_of_nothing() -> None:
    assert LiteralSearch(TOKENS).rows_with(pa.array([], pa.large_string())).tolist() == []
    assert LiteralSearch(TOKENS).rows_with(pa.array(["", ""], pa.large_string())).tolist() == [
        False,
        False,
    ]
