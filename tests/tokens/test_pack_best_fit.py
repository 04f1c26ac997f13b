"""Best fit: exactly best-fit-decreasing, little waste, few documents cut, no order betrayed."""

import bisect

import numpy as np
import pytest

from shardstream.tokens.packing.best_fit import place
from shardstream.tokens.packing.pack import PackingOptions, PackingReport, pack, report


def best_fit_decreasing(sizes: list[int], capacity: int) -> list[int]:
    """The textbook, one item at a time; returns the space left in each bin, sorted."""
    spaces = []
    for size in sorted(sizes, reverse=True):
        index = bisect.bisect_left(spaces, size)
        space = spaces.pop(index) if index < len(spaces) else capacity
        bisect.insort(spaces, space - size)
    return spaces


def first_fit_bins(sizes: list[int], capacity: int) -> int:
    """The number of bins that first-fit opens for items in the order given."""
    spaces = []
    for size in sizes:
        for index, space in enumerate(spaces):
            if space >= size:
                spaces[index] -= size
                break
        else:
            spaces.append(capacity - size)
    return len(spaces)


def web_like(num_documents: int, seed: int = 0, sigma: float = 1.2) -> np.ndarray:
    """Document lengths with the median and the long tail of web text, int64."""
    return np.random.default_rng(seed).lognormal(6, sigma, num_documents).astype(np.int64) + 1


def reported(lengths: np.ndarray, **options: object) -> PackingReport:
    options = PackingOptions(**options)
    return report(pack(lengths, options), lengths, options)


def test_place_is_exactly_best_fit_decreasing():
    rng = np.random.default_rng(0)
    for _ in range(400):
        capacity = int(rng.integers(1, 50))
        sizes = rng.integers(1, capacity + 1, rng.integers(0, 80))
        bins, num_bins = place(sizes, capacity)
        expected = best_fit_decreasing(sizes.tolist(), capacity)
        space = capacity - np.bincount(bins, weights=sizes, minlength=num_bins)
        assert num_bins == len(expected)
        assert sorted(space.astype(int).tolist()) == expected


@pytest.mark.parametrize("sigma", [0.8, 1.2, 1.6])
def test_place_needs_no_more_bins_than_first_fit(sigma: float):
    sizes = web_like(2000, sigma=sigma)
    sizes = sizes[sizes <= 2048]
    _, num_bins = place(sizes, 2048)
    assert num_bins <= first_fit_bins(sizes.tolist(), 2048)


@pytest.mark.parametrize("sigma", [0.8, 1.2, 1.6])
@pytest.mark.parametrize("length", [512, 2048, 8192])
def test_padding_of_a_shard_is_below_one_percent_and_fewer_documents_cut(length: int, sigma: float):
    lengths = web_like(10_000, sigma=sigma)
    best = reported(lengths, packing="best_fit", sequence_length=length)
    concat = reported(lengths, packing="concat", sequence_length=length)
    assert best.padding_percent <= 1
    assert best.written_tokens == concat.written_tokens == lengths.sum()
    assert best.cut_documents == np.count_nonzero(lengths > length) < concat.cut_documents


def test_padding_is_not_worse_than_first_fit_on_a_shard():
    lengths = web_like(3000)
    best = reported(lengths, packing="best_fit", sequence_length=2048)
    whole, rest = lengths // 2048, lengths % 2048
    first_fit = int(whole.sum()) + first_fit_bins(rest[rest > 0].tolist(), 2048)
    assert best.sequences <= first_fit


def test_many_short_documents_do_not_inflate_every_record():
    lengths = web_like(20_000, sigma=1.6)
    pieces = pack(lengths, PackingOptions(packing="best_fit", sequence_length=2048))
    # Undivided best fit has sequences of over 100 documents here; each record would have the slots.
    assert np.bincount(pieces.sequence).max() <= 32


def test_short_documents_that_fill_every_sequence_stay_together():
    lengths = np.full(4096, 8, np.int64)
    pieces = pack(lengths, PackingOptions(packing="best_fit", sequence_length=64))
    assert np.bincount(pieces.sequence).tolist() == [8] * 512


def test_slots_inside_a_sequence_are_in_the_order_given():
    pieces = pack(web_like(5000), PackingOptions(packing="best_fit", sequence_length=2048))
    same_sequence = np.diff(pieces.sequence) == 0
    assert (np.diff(pieces.document)[same_sequence] > 0).all()
    first_in_sequence = pieces.document[np.diff(pieces.sequence, prepend=-1) > 0]
    assert np.corrcoef(np.arange(len(first_in_sequence)), first_in_sequence)[0, 1] > 0.9


def test_a_huge_document_beside_a_short_one():
    lengths = np.array([10, 25_000_000])
    pieces = pack(lengths, PackingOptions(packing="best_fit", sequence_length=2048))
    assert pieces.num_sequences == -(-25_000_010 // 2048) == 12_208
    assert pieces.tokens.sum() == 25_000_010


def test_one_more_sequence_where_every_record_gets_smaller():
    # 64 + 20 + 10 tokens fit one sequence, but a third slot in 12,208 records costs more.
    pieces = pack(np.array([10, 25_000_000, 20]), PackingOptions(packing="best_fit"))
    assert np.bincount(pieces.sequence).max() == 2
    assert pieces.num_sequences == 12_209
