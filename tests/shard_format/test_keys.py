import numpy as np
import pytest

from shardstream.shard_format import keys


def test_document_keys_golden_values_never_change() -> None:
    # python -c "from shard_format.keys import *; print(document_keys(0, 3, range(5)))", 2026-11-23
    assert keys.document_keys(0, 3, np.arange(5)).tolist() == [
        1249831129777560745,
        3645021287433237793,
        17805896974842740462,
        13395971681593648239,
        631179763792444043,
    ]
    assert keys.permutation(8, 1, 2).tolist() == [2, 0, 7, 3, 6, 4, 1, 5]


def test_document_keys_differ_by_seed_partition_and_row() -> None:
    rows = np.arange(100_000)
    found = [keys.document_keys(seed, part, rows) for seed in (0, 1, -1) for part in (0, 1)]
    assert len(np.unique(np.concatenate(found))) == 600_000


def test_document_keys_take_one_partition_or_one_a_row() -> None:
    rows = np.arange(10)
    whole = keys.document_keys(7, np.full(10, 5, np.int32), rows)
    assert np.array_equal(whole, keys.document_keys(7, 5, rows))


def test_document_keys_bits_are_uniform() -> None:
    found = keys.document_keys(3, 0, np.arange(1 << 18))
    for shift in range(64):
        ones = int((found >> np.uint64(shift) & np.uint64(1)).sum())
        assert abs(ones - (1 << 17)) < 5 * 256  # 5 standard deviations


@pytest.mark.parametrize("num_buckets", [1, 2, 7, 64, 99_999, 2**31 - 1])
def test_bucket_of_is_exact_range_partition(num_buckets: int) -> None:
    edge = [0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1]
    found = np.concatenate([np.array(edge, np.uint64), keys.document_keys(0, 0, np.arange(1000))])
    expected = [int(key) * num_buckets >> 64 for key in found]
    assert keys.bucket_of(found, num_buckets).tolist() == expected


def test_assign_buckets_validation_set_is_the_same_for_every_seed() -> None:
    rows = np.arange(20_000)
    options = {"num_shards": 8, "num_validation_shards": 2, "validation_fraction": 0.1}
    held_out = [
        set(rows[keys.assign_buckets(0, rows, seed=seed, **options) >= 8].tolist())
        for seed in (0, 1)
    ]
    assert held_out[0] == held_out[1]
    assert 1_800 < len(held_out[0]) < 2_200


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_permutation_is_a_bijection_fixed_by_its_stream(n: int) -> None:
    found = keys.permutation(n, 5, 6)
    assert sorted(found.tolist()) == list(range(n))
    assert np.array_equal(found, keys.permutation(n, 5, 6))
    if n == 1000:
        assert not np.array_equal(found, keys.permutation(n, 5, 7))
        assert not np.array_equal(found, keys.permutation(n, 6, 5))


def test_chain_depends_on_every_value_and_on_their_order() -> None:
    found = [
        keys.chain(*values)
        for values in ((), (0,), (1,), (-1,), (0, 0), (0, 1), (1, 0), (0, 0, 1), (2**63,))
    ]
    assert len(set(found)) == len(found)
    assert all(0 <= key < 2**64 for key in found)
    assert keys.chain(-1, 3) == keys.chain(2**64 - 1, 3 + 2**64)
    assert keys.chain(7, 2) == 5090977316425868581
