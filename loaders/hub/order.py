"""The order of a stream as arithmetic: which partition is read when, which sequence waits how long.

Hashes are SplitMix64 chains over (source, tokenizer, seed, epoch), integer arithmetic throughout,
so neither threads nor a NumPy release can change the order.
"""

import numpy as np

from shardstream.shard_format.keys import chain, mix64, permutation

_PARTITIONS, _DELAYS = 1, 2  # independent hashes for the two purposes
_FRACTION_BITS = 20
_32 = np.uint64(32)


class ShareOrder:
    """The order of one share in one epoch.

    Args:
        epoch: from 0.
        key: hash of everything the documents and the options determine, and the seed.
        share: of `shares`.
        shares: that batches are made of.
        num_partitions: of the source.
        window: sequences that the share shuffles together; 0 keeps the order of the source.
    """

    def __init__(
        self, epoch: int, *, key: int, share: int, shares: int, num_partitions: int, window: int
    ) -> None:
        self.window = window
        places = np.arange(num_partitions)
        if window:
            places = permutation(num_partitions, key, _PARTITIONS, epoch)
        self.partitions: list[int] = places[share::shares].tolist()
        self._key = np.uint64(chain(key, _DELAYS, epoch, share))

    def turn(self, number: np.ndarray) -> np.ndarray:
        """Returns uint64[n]: sequences come out in the order of these, ties by number.

        Args:
            number: int64[n], sequences counted as they are read, from 0; below 2**43.

        Guarantees: turn(n) is at least `first_turn(n)` and below first_turn(n + window).
        """
        number = number.astype(np.uint64)
        hashes = mix64(mix64(number ^ self._key)) >> _32
        delay = (hashes * np.uint64(self.window)) >> np.uint64(32 - _FRACTION_BITS)
        return (number << np.uint64(_FRACTION_BITS)) + delay

    @staticmethod
    def first_turn(number: int) -> np.uint64:
        """Returns the earliest turn that a sequence with this or a later number can have."""
        return np.uint64(number << _FRACTION_BITS)
