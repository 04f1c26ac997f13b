"""The order of sequences as index arithmetic, on which every host, thread and restart agrees.

An order maps (epoch, step, row of the global batch) to a record of the split, counted over its
shards in manifest order. It holds no state and reads nothing, so any stretch of it can be computed
at any time: resume, `batch_at` and a change of the number of hosts cost nothing. Hashes are
SplitMix64 chains over (dataset, seed, epoch), never `seed + epoch`, and integer arithmetic
throughout: the order can't change with a NumPy release.

This file has the plain orders: "none" and "global". The shuffle buffer is in `buffer.py`.

Source: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002 (Feistel, cycle walking).
"""

from typing import Protocol

import numpy as np

from shardstream.shard_format.keys import chain, mix64

PADDING = -1  # in place of a record: this row of the last batch is empty

# Enough for the statistics of permutations of 65,537 items and more to be those of uniform ones
# (tests/loaders/test_order.py); 4, as in Grain, are not.
_ROUNDS = 10
# Up to here a table (0.5 MB) gives a permutation that is uniform for every n; a network on a few
# bits has too few keys for that.
_TABLE_ITEMS = 2**16
_MULTIPLIER_1 = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_2 = np.uint64(0xD6E8FEB86659FD93)
_32 = np.uint64(32)


class Permutation:
    """A pseudo-random permutation of range(n), by random access and in bounded memory.

    Args:
        n: number of items, at least 1.
        key: 64-bit key; keys from `chain` give independent permutations.
    """

    def __init__(self, n: int, key: int) -> None:
        self._n = np.uint64(n)
        self._table: np.ndarray | None = None
        if n <= _TABLE_ITEMS:
            hashes = mix64(mix64(np.arange(n, dtype=np.uint64) ^ np.uint64(key)))
            self._table = np.argsort(hashes, kind="stable")
            return
        bits = (n - 1).bit_length()
        self._low_bits = np.uint64(bits // 2)
        self._low_mask = np.uint64(2 ** (bits // 2) - 1)
        self._high_mask = np.uint64(2 ** (bits - bits // 2) - 1)
        counters = np.arange(_ROUNDS, dtype=np.uint64)
        self._round_keys = mix64(mix64(counters ^ np.uint64(key)))

    def __call__(self, index: np.ndarray) -> np.ndarray:
        """Returns int64 of index's shape: the item at each index, each in 0 to n - 1."""
        if self._table is not None:
            return self._table[index]
        shape = np.shape(index)
        item = self._network(np.asarray(index, np.uint64).ravel())
        # The network permutes the next power of two, under 2n: walk on from what falls outside.
        outside = np.flatnonzero(item >= self._n)
        while len(outside):
            item[outside] = self._network(item[outside])
            outside = outside[item[outside] >= self._n]
        return item.astype(np.int64).reshape(shape)

    def _network(self, value: np.ndarray) -> np.ndarray:
        low, high = value & self._low_mask, value >> self._low_bits
        for i in range(0, _ROUNDS, 2):
            low = low ^ (_scramble(high, self._round_keys[i]) & self._low_mask)
            high = high ^ (_scramble(low, self._round_keys[i + 1]) & self._high_mask)
        return (high << self._low_bits) | low


def _scramble(half: np.ndarray, key: np.uint64) -> np.ndarray:
    mixed = (half + key) * _MULTIPLIER_1
    mixed = (mixed ^ (mixed >> _32)) * _MULTIPLIER_2
    return mixed >> _32


class Order(Protocol):
    """What the loader asks of an order."""

    num_records: int
    batch_size: int

    def records(self, epoch: int, begin: int, end: int, rows: np.ndarray) -> np.ndarray:
        """Returns int64[end - begin, len(rows)]: the records in those rows of those steps.

        PADDING stands in the rows that the last batch has no record for.
        """
        ...


def num_steps(order: Order, *, drop_remainder: bool) -> int:
    """Returns the number of global batches in an epoch."""
    whole, rest = divmod(order.num_records, order.batch_size)
    return whole + bool(rest and not drop_remainder)


class SequentialOrder:
    """Manifest order, in every epoch."""

    def __init__(self, num_records: int, batch_size: int) -> None:
        self.num_records = num_records
        self.batch_size = batch_size

    def records(self, epoch: int, begin: int, end: int, rows: np.ndarray) -> np.ndarray:
        """See Order."""
        del epoch
        place = np.arange(begin, end)[:, None] * self.batch_size + rows
        return np.where(place < self.num_records, place, PADDING)


class GlobalOrder:
    """A permutation of the whole split, a new one each epoch.

    Args:
        num_records: in the split.
        batch_size: global batch.
        key: hash of dataset and seed.

    Guarantees: memory under 1 MB for any size; each record once an epoch.
    """

    def __init__(self, num_records: int, batch_size: int, key: int) -> None:
        self.num_records = num_records
        self.batch_size = batch_size
        self._key = key
        self._epoch = (-1, Permutation(1, 0))

    def records(self, epoch: int, begin: int, end: int, rows: np.ndarray) -> np.ndarray:
        """See Order."""
        cached, permutation = self._epoch
        if cached != epoch:
            permutation = Permutation(self.num_records, chain(self._key, epoch))
            self._epoch = (epoch, permutation)
        place = np.arange(begin, end)[:, None] * self.batch_size + rows
        inside = place < self.num_records
        return np.where(inside, permutation(np.where(inside, place, 0)), PADDING)
