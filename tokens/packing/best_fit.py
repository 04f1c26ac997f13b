"""Best-fit-decreasing: whole documents placed where they leave least space.

Documents longer than L are first brought to runs of L tokens and a remainder (or cut, or dropped).
A run of L is a sequence; everything shorter, longest first, goes into the fullest sequence that
still has room, or opens one. Ding et al., "Fewer Truncations Improve Language Modeling", 2024,
reach near-zero padding this way, with no document of up to L tokens cut.

They place one document at a time with a segment tree. Lengths are integers below L, so we place all
documents of one length together, by count, with exactly the result of one at a time: among bins
with room for w tokens the fullest has r left; it takes r // w documents in a row, since after
each it is fuller than every other candidate; then so does the next bin with r left. Bins are kept
by space left, and the smallest space of at least w is the lowest set bit of an integer with one
bit a space. A step of plain Python serves a whole group: time grows with the number of distinct
(length, space) pairs met, not with documents.

Best fit leaves short documents to the end, and they pile up in a few sequences, hundreds in one
where their lengths spread as those of web text do. Every record of a shard has room for the lengths
of the fullest one, which would cost far more of the file than the padding that it saves. So the few
crowded sequences are divided, with the limit on documents that makes padding and lengths together
smallest.
"""

from __future__ import annotations

import numpy as np

from shardstream.shard_format.record import slots_for
from shardstream.tokens.packing.pieces import (
    Pieces,
    expand,
    kept_lengths,
    split_every,
    truncation_counts,
)


def best_fit(lengths: np.ndarray, sequence_length: int, truncation_rule: str = "split") -> Pieces:
    """Packs whole documents by best-fit-decreasing.

    Args:
        lengths: int64[n], tokens of each document.
        sequence_length: L.
        truncation_rule: cut, split or drop, for documents longer than L.

    Guarantees: sequences are numbered by their first document and documents inside a sequence are
    in the order given, so that neither betrays a document's length by its slot. Which documents
    share a sequence, and how many, does depend on lengths: permute sequences before they are
    written.
    """
    kept = kept_lengths(lengths, sequence_length, truncation_rule)
    runs = split_every(kept, sequence_length)
    bins = np.empty(len(runs.tokens), np.int64)
    is_full = runs.tokens == sequence_length
    bins[~is_full], num_bins = place(runs.tokens[~is_full], sequence_length)
    bins[is_full] = np.arange(num_bins, num_bins + np.count_nonzero(is_full))
    sequence, rows = _number_by_first_run(bins)
    sequence = _divide_crowded(sequence, sequence_length)
    return Pieces(
        sequence=sequence,
        document=runs.document[rows],
        start=runs.start[rows],
        tokens=runs.tokens[rows],
        num_sequences=int(sequence[-1]) + 1 if len(sequence) else 0,
        **truncation_counts(lengths, kept, sequence_length),
    )


def place(sizes: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """Assigns items to bins by best-fit-decreasing.

    Args:
        sizes: int64[m], each 1 to capacity.
        capacity: of every bin.

    Returns:
        int64[m], the bin of each item, and the number of bins.
    """
    distinct, counts = np.unique(sizes, return_counts=True)
    bins_with_space: dict[int, list[int]] = {}
    spaces = 0  # bit r is set where bins_with_space[r] is not empty
    filled_bins: list[int] = []  # in the order of items sorted by size, largest first
    items_placed: list[int] = []
    num_bins = 0
    for size, count in zip(distinct[::-1].tolist(), counts[::-1].tolist(), strict=True):
        while count:
            fitting = spaces >> size
            space = size + (fitting & -fitting).bit_length() - 1 if fitting else capacity
            each = min(space // size, count)
            if fitting:
                candidates = bins_with_space[space]
                chosen = candidates[-(count // each) :]
                del candidates[-len(chosen) :]
                spaces ^= (not candidates) << space
            else:
                chosen = list(range(num_bins, num_bins + count // each))
                num_bins += len(chosen)
            count -= each * len(chosen)
            filled_bins += chosen
            items_placed += [each] * len(chosen)
            space -= each * size
            if space:
                bins_with_space.setdefault(space, []).extend(chosen)
                spaces |= 1 << space
    bins = np.empty(len(sizes), np.int64)
    bins[np.argsort(-sizes, kind="stable")] = np.repeat(
        np.array(filled_bins, np.int64), np.array(items_placed, np.int64)
    )
    return bins, num_bins


def _number_by_first_run(bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Renumbers bins by first appearance; returns the sorted numbers and the runs in that order."""
    _, first, inverse = np.unique(bins, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first, kind="stable")] = np.arange(len(first))
    sequence = number[inverse]
    rows = np.argsort(sequence, kind="stable")
    return sequence[rows], rows


def _divide_crowded(sequence: np.ndarray, sequence_length: int) -> np.ndarray:
    """Divides sequences of more than k runs, with the k that makes all records smallest together.

    Args:
        sequence: int64[R], of each run; non-decreasing, from 0.
        sequence_length: L.

    Returns:
        int64[R], the sequence of each run after division; still non-decreasing, from 0.
    """
    if not len(sequence):
        return sequence
    runs_of_sequence = np.bincount(sequence)
    _, slot = expand(runs_of_sequence)
    division = slot // _best_limit(runs_of_sequence, sequence_length)
    is_next = np.ones(len(sequence), bool)
    is_next[1:] = (np.diff(sequence) > 0) | (np.diff(division) > 0)
    return np.cumsum(is_next) - 1


def _best_limit(runs_of_sequence: np.ndarray, sequence_length: int) -> int:
    """Returns the even k that minimises records x (L tokens + k length slots)."""
    runs, counts = np.unique(runs_of_sequence, return_counts=True)
    limits = np.arange(2, slots_for(int(runs[-1])) + 1, 2)
    num_records = -(-runs // limits[:, None]) @ counts
    return int(limits[np.argmin(num_records * (sequence_length + limits))])
