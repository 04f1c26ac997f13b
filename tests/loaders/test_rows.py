"""Records put into rows of arrays, whatever shard they come from."""

import numpy as np
import pytest

from shardstream.loaders.shards.rows import Rows

# Three tokens, then lengths: two slots in one shard, four in the other.
SHORT = np.array([7, 8, 9, 2, 1], "<u2").tobytes()
LONG = np.array([4, 5, 6, 1, 1, 1, 0], "<u2").tobytes()


def test_records_of_shards_with_other_slots_stand_in_one_array() -> None:
    rows = Rows(np.full((3, 3), 99, np.uint16), np.full((3, 4), 99, np.uint16))
    rows.put_records(np.array([2, 0]), [SHORT, LONG])
    assert rows.tokens.tolist() == [[4, 5, 6], [99, 99, 99], [7, 8, 9]]
    assert rows.lengths.tolist() == [[1, 1, 1, 0], [99, 99, 99, 99], [2, 1, 0, 0]]


def test_wide_tokens_and_lengths_that_nobody_asks_for() -> None:
    rows = Rows(np.zeros((2, 2), np.uint32), None)
    rows.put_records(np.array([1]), [np.array([70_000, 3], "<u4").tobytes() + b"\1\0\1\0"])
    assert rows.tokens.tolist() == [[0, 0], [70_000, 3]]


def test_slices_share_memory_with_the_rows() -> None:
    rows = Rows(np.zeros((3, 3), np.uint16), np.zeros((3, 2), np.uint16))
    part = rows.slice(1, 3)
    part.put_records(np.array([0]), [SHORT])
    assert rows.tokens.tolist() == [[0, 0, 0], [7, 8, 9], [0, 0, 0]]
    assert rows.lengths.tolist() == [[0, 0], [2, 1], [0, 0]]


def test_as_many_records_as_rows_are_expected() -> None:
    rows = Rows(np.zeros((3, 3), np.uint16), None)
    with pytest.raises(ValueError, match="zip"):
        rows.put_records(np.array([0, 1]), [SHORT])
