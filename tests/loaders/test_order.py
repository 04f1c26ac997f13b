"""The permutation network: a bijection whose statistics are those of uniform permutations."""

import numpy as np
import pytest

from shardstream.loaders.order.epochs import (
    PADDING,
    GlobalOrder,
    Permutation,
    SequentialOrder,
    chain,
    num_steps,
)

LARGE = 70_001  # just above what a table serves, where a network has the fewest bits


@pytest.mark.parametrize("n", [1, 2, 3, 5, 64, 1000, 65_536, 65_537, LARGE, 131_072, 200_003])
def test_permutation_of_any_size_is_a_bijection(n: int) -> None:
    items = Permutation(n, chain(1, n))(np.arange(n))
    assert np.array_equal(np.sort(items), np.arange(n))


def test_permutation_by_random_access_equals_the_whole() -> None:
    permutation = Permutation(LARGE, chain(5))
    whole = permutation(np.arange(LARGE))
    some = np.array([[0, LARGE - 1], [123, 45_678]])
    assert np.array_equal(permutation(some), whole[some])


def test_permutation_golden_items() -> None:
    # Changing these breaks every saved run: python -c "...Permutation(n, 12345)(np.arange(8))".
    assert Permutation(1000, 12345)(np.arange(8)).tolist() == GOLDEN_TABLE
    assert Permutation(10**9, 12345)(np.arange(4)).tolist() == GOLDEN_NETWORK


GOLDEN_TABLE = [227, 456, 277, 23, 490, 157, 525, 790]
GOLDEN_NETWORK = [549007858, 320897111, 185941762, 491397250]


def test_network_statistics_over_keys_are_those_of_uniform_permutations() -> None:
    keys = 60
    orders = [Permutation(LARGE, chain(9, key))(np.arange(LARGE)) for key in range(keys)]
    # Neighbours that stay neighbours: Poisson with mean 2 each (4 rounds of Grain's give 2.75).
    kept = sum(int((np.abs(np.diff(order)) == 1).sum()) for order in orders)
    assert abs(kept - 2 * keys) < 5 * np.sqrt(2 * keys)
    # Fixed points: Poisson with mean 1.
    fixed = sum(int((order == np.arange(LARGE)).sum()) for order in orders)
    assert abs(fixed - keys) < 5 * np.sqrt(keys)
    # Where the first 64 items go: uniform over 50 bins.
    bins = np.concatenate([order[:64] for order in orders]) * 50 // LARGE
    counts = np.bincount(bins, minlength=50)
    chi2 = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert chi2 < 49 + 5 * np.sqrt(2 * 49)
    # Differences of neighbours modulo n: uniform over 64 bins, in each permutation.
    for order in orders[:10]:
        counts = np.bincount((np.diff(order) % LARGE) * 64 // LARGE, minlength=64)
        chi2 = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
        assert chi2 < 63 + 5 * np.sqrt(2 * 63)
    # Rank correlation of place and item.
    for order in orders[:10]:
        assert abs(np.corrcoef(order, np.arange(LARGE))[0, 1]) < 5 / np.sqrt(LARGE)


def test_small_permutations_over_keys_are_uniform() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for key in range(6000):
        order = tuple(Permutation(4, chain(3, key))(np.arange(4)).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert max(abs(count - 250) for count in counts.values()) < 5 * np.sqrt(250)


def test_chain_of_seed_and_epoch_is_not_their_sum() -> None:
    assert chain(0, 1) != chain(1, 0)
    assert len({chain(seed, epoch) for seed in range(30) for epoch in range(30)}) == 900


@pytest.mark.parametrize("make", [SequentialOrder, lambda n, b: GlobalOrder(n, b, 3)])
@pytest.mark.parametrize(
    ("num_records", "batch_size"), [(100, 10), (103, 10), (5, 8), (70_003, 64)]
)
def test_order_covers_each_record_once_and_pads_the_last_batch(
    make, num_records, batch_size
) -> None:
    order = make(num_records, batch_size)
    steps = num_steps(order, drop_remainder=False)
    records = order.records(0, 0, steps, np.arange(batch_size)).ravel()
    inside = records[records != PADDING]
    assert np.array_equal(np.sort(inside), np.arange(num_records))
    assert len(records) == steps * batch_size
    assert num_steps(order, drop_remainder=True) == num_records // batch_size


def test_global_order_of_two_epochs_differs() -> None:
    order = GlobalOrder(1000, 10, 3)
    first, second = (order.records(epoch, 0, 100, np.arange(10)).ravel() for epoch in (0, 1))
    assert (first == second).mean() < 0.02
