"""The scan for uncertified code points is exact, whatever the text, the set or the slice."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from shardstream.tokens.engines.code_points import NUM_CODE_POINTS, CodePointSet


def _random_texts(rng: np.random.Generator, count: int) -> list[str]:
    """Texts of 0 to 12 characters of one to four bytes each."""
    texts = []
    for _ in range(count):
        limit = int(rng.choice([0x80, 0x800, 0x10000, NUM_CODE_POINTS]))
        points = rng.integers(0, limit, rng.integers(0, 12)).tolist()
        texts.append("".join(chr(c) for c in points if not 0xD800 <= c < 0xE000))
    return texts


@pytest.mark.parametrize("share_outside", (0.3, 0.01, 0.0001, 0.0))
@pytest.mark.parametrize("seed", range(3))
def test_rows_outside_random_sets_equals_python(share_outside, seed):
    rng = np.random.default_rng((seed, int(share_outside * 1e6)))
    members = rng.random(NUM_CODE_POINTS) >= share_outside
    texts = _random_texts(rng, 600)
    expected = [any(not members[ord(c)] for c in text) for text in texts]
    column = pa.array(texts, pa.large_string())
    found = CodePointSet(members).rows_outside(column)
    assert found.tolist() == expected
    assert CodePointSet(members).rows_outside(column[7:-5]).tolist() == expected[7:-5]


@pytest.mark.parametrize("width_pad", range(4))
def test_rows_outside_character_across_window_edge_found(width_pad):
    outside = CodePointSet.of(np.setdiff1d(np.arange(NUM_CODE_POINTS), [0x1F600]))
    for pad in range((1 << 17) - 4, (1 << 17) + 1):
        texts = ["b" * width_pad, "a" * pad + "\U0001f600" + "é", "é"]
        assert outside.rows_outside(pa.array(texts, pa.large_string())).tolist() == [0, 1, 0]


def test_rows_outside_uncertified_ascii_found():
    members = np.ones(NUM_CODE_POINTS, bool)
    members[0] = members[0x7F] = False
    texts = ["", "a", "a\0", "\x7f", "\u00ff\u0100", "\0é"]
    found = CodePointSet(members).rows_outside(pa.array(texts, pa.large_string()))
    assert found.tolist() == [False, False, True, True, False, True]


def test_rows_outside_no_rows_or_empty_rows_finds_nothing():
    points = CodePointSet.of(np.arange(0))
    assert len(points) == 0
    assert points.rows_outside(pa.array([], pa.large_string())).tolist() == []
    assert points.rows_outside(pa.array(["", ""], pa.large_string())).tolist() == [False, False]


def test_code_point_set_wrong_shape_says_expected_and_found():
    with pytest.raises(ValueError, match=r"expected bool\[1114112\], found bool\[3\]"):
        CodePointSet(np.ones(3, bool))
