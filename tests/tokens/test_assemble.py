"""Arithmetic on flat ids: literal cases, and laws against plain lists."""

from __future__ import annotations

import numpy as np
import pytest

from shardstream.tokens.assemble import (
    add_special_ids,
    differing_rows,
    from_lists,
    merge_rows,
    take_rows,
)
from shardstream.tokens.engines.engine import Encoded


def _lists(encoded: Encoded) -> list[list[int]]:
    return [encoded.row(i).tolist() for i in range(encoded.num_rows)]


def _random_rows(seed: int, count: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 9, rng.integers(0, 5)).tolist() for _ in range(count)]


@pytest.mark.parametrize(
    ("bos_id", "eos_id", "expected"),
    (
        (None, None, [[5, 6], [], [7]]),
        (None, 9, [[5, 6, 9], [9], [7, 9]]),
        (8, None, [[8, 5, 6], [8], [8, 7]]),
        (8, 9, [[8, 5, 6, 9], [8, 9], [8, 7, 9]]),
        (0, 0, [[0, 5, 6, 0], [0, 0], [0, 7, 0]]),
    ),
)
def test_add_special_ids_around_rows(bos_id, eos_id, expected):
    encoded = add_special_ids(from_lists([[5, 6], [], [7]]), bos_id=bos_id, eos_id=eos_id)
    assert _lists(encoded) == expected
    assert encoded.ids.dtype == np.uint32
    assert encoded.offsets.dtype == np.int64


def test_add_special_ids_no_rows_stays_empty():
    encoded = add_special_ids(from_lists([]), bos_id=1, eos_id=2)
    assert (len(encoded.ids), encoded.offsets.tolist()) == (0, [0])


@pytest.mark.parametrize("seed", range(5))
def test_merge_rows_inverts_take_rows(seed):
    rows = _random_rows(seed, 40)
    encoded = from_lists(rows)
    is_second = np.random.default_rng(seed).random(40) < 0.3
    first = take_rows(encoded, np.flatnonzero(~is_second))
    second = take_rows(encoded, np.flatnonzero(is_second))
    assert _lists(first) == [row for row, other in zip(rows, is_second, strict=True) if not other]
    assert _lists(merge_rows(first, second, is_second)) == rows


@pytest.mark.parametrize("seed", range(5))
def test_differing_rows_equals_list_comparison(seed):
    left, right = _random_rows(seed, 60), _random_rows(seed, 60)
    for row in (3, 17, 59):
        right[row] = [*right[row], 1]
    if right[20]:
        right[20][-1] += 1
    expected = [i for i, (a, b) in enumerate(zip(left, right, strict=True)) if a != b]
    assert differing_rows(from_lists(left), from_lists(right)).tolist() == expected
    assert differing_rows(from_lists(left), from_lists(left)).tolist() == []
