"""The order in which a stream is followed: a function of its commit log, never of when it was seen.

Records of the split are counted over its shards in log order. Record a waits for a random delay
d(a), a hash of (key, a), and records leave in the order of

    leave(a) = a + d(a)        0 <= d(a) < spread(a) = min(3 W, 3 a + 1)

so each waits for W = `buffer_size` others on average (delays have the triangular density of
buffer.py). Nothing is held in memory for it: the shards are on disk, and a record is read when its
turn comes.

**What is sure.** Records that are yet to be committed have numbers M and up, so they leave at M or
later: the records that leave before M are final with M records known. A loader delivers those and
waits for more. Tests hold this file to the laws that follow:

    the order of M records starts with the same ranks as the order of N > M, as far as M makes sure
    a complete stream gives each record once
    any ranks can be computed without those before them: resume, `batch_at`, any number of hosts

The spread grows with a, as the pipeline's own buffer fills up, so that a first shard of M records
gives 0.57 M of them at once (the mean of 1 / (1 + 3 u) over triangular u) instead of none; once a
is past W, the loader trails the log by W records.
"""

import numpy as np

from shardstream.loaders.order.buffer import FRACTION_BITS, delays
from shardstream.loaders.order.epochs import PADDING
from shardstream.shard_format.keys import mix64

_DELAYS_PER_MEAN = 3  # the largest delay, in means of the triangular density


class FollowOrder:
    """The order of the first num_records of a stream; see loaders.order.epochs.Order.

    Args:
        num_records: M, committed records of the split.
        batch_size: global batch.
        buffer_size: W; 0 keeps the log's order.
        key: hash of the stream and the seed.
        complete: no more records will come.

    Guarantees: steps below `num_steps` have the same records for every larger num_records.
    """

    def __init__(
        self, num_records: int, batch_size: int, buffer_size: int, key: int, *, complete: bool
    ) -> None:
        self.num_records = num_records
        self.batch_size = batch_size
        self._most = _DELAYS_PER_MEAN * buffer_size
        self._key = np.uint64(key)
        self._complete = complete

    def num_steps(self, *, drop_remainder: bool) -> int:
        """Returns how many global batches are sure; with the stream complete, all there are."""
        if not self._complete:
            return self.sure_ranks() // self.batch_size
        whole, rest = divmod(self.num_records, self.batch_size)
        return whole + bool(rest and not drop_remainder)

    def sure_ranks(self) -> int:
        """Returns the number of records that leave before any record to come can."""
        first = max(0, self.num_records - self._most)  # all before leave in time
        leave = self._leave(first, self.num_records)
        return first + int(np.count_nonzero(leave < (self.num_records << int(FRACTION_BITS))))

    def records(self, epoch: int, begin: int, end: int, rows: np.ndarray) -> np.ndarray:
        """See loaders.order.epochs.Order; a followed stream has one epoch, 0."""
        assert epoch == 0
        rank = np.arange(begin, end)[:, None] * self.batch_size + rows
        first_rank = begin * self.batch_size
        last_rank = min(end * self.batch_size, self.num_records)
        order, _ = self._ranked(first_rank, last_rank)
        inside = rank < self.num_records
        return np.where(inside, order[np.where(inside, rank - first_rank, 0)], PADDING)

    def needed(self, step: int) -> int:
        """Returns how many records make every batch before a step sure, at most num_records."""
        last = min(step * self.batch_size, self.num_records)
        if last == 0:
            return 0
        _, leave = self._ranked(last - 1, last)
        return min(self.num_records, (int(leave[0]) >> int(FRACTION_BITS)) + 1)

    def _ranked(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns int64[end - begin]: the records of those ranks, and when they leave.

        Cost: a sort of end - begin + 6 W keys, wherever begin is.
        """
        # A record's rank and number differ by less than the largest delay.
        first = max(0, begin - self._most - 1)
        leave = self._leave(first, min(self.num_records, end + self._most + 1))
        order = np.argsort(leave, kind="stable")[begin - first : end - first]
        return order + first, leave[order]

    def _leave(self, begin: int, end: int) -> np.ndarray:
        number = np.arange(begin, end, dtype=np.uint64)
        growing = np.uint64(_DELAYS_PER_MEAN) * number + np.uint64(1)
        spread = np.minimum(growing, np.uint64(self._most))
        return (number << FRACTION_BITS) + delays(mix64(mix64(number ^ self._key)), spread)
