"""Which part of a mixture each row of each batch comes from: exact weights, by arithmetic.

The parts follow one periodic sequence in which, after any n places, each part's count is within one
of its share of n. Row j of batch t takes place t + j: both the rows of a batch and the batches of a
row are then runs of that sequence, so every batch, and every row over any stretch of steps, is as
close to the weights as whole numbers can be. How often a row drew from a part before a step is a
closed formula.

Source: Tijdeman, "The chairman assignment problem", 1980.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

_LARGEST_PERIOD = 10_000


class Schedule:
    """The order in which parts are drawn from.

    Args:
        weights: positive numbers, one a part; their ratio counts. Weights whose common period is
            over 10,000 places are rounded to 1/10,000.

    Raises:
        ValueError: a weight is not positive, or too small to come up.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        if not weights or any(not weight > 0 for weight in weights):
            raise ValueError(
                f"weights are {list(weights)}, expected a positive number for each part"
            )
        self.counts = _whole_numbers(weights)
        if min(self.counts) == 0:
            raise ValueError(
                f"weights are {list(weights)}: the smallest is under 1/{_LARGEST_PERIOD} of their "
                "sum and would never come up; leave that part out"
            )
        self.period = sum(self.counts)
        self._sequence = _chairman_sequence(self.counts)
        # before[i, n]: how often part i stands among the first n places.
        is_part = self._sequence == np.arange(len(self.counts))[:, None]
        self._before = np.concatenate(
            [np.zeros((len(self.counts), 1), np.int64), np.cumsum(is_part, axis=1)], axis=1
        )

    def parts(self, steps: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Returns int64[len(steps), len(rows)], the part each row takes."""
        return self._sequence[(steps[:, None] + rows) % self.period]

    def drawn(self, part: int, steps: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Returns int64[len(steps), len(rows)]: how often a row drew it before a step."""
        return self._count(part, steps[:, None] + rows) - self._count(part, rows)

    def _count(self, part: int, place: np.ndarray) -> np.ndarray:
        periods, rest = np.divmod(place, self.period)
        return periods * self.counts[part] + self._before[part][rest]


def _whole_numbers(weights: Sequence[float]) -> list[int]:
    """Returns the smallest whole numbers in the ratio of the weights, their sum bounded."""
    exact = [Fraction(str(weight)) for weight in weights]
    shares = [weight / sum(exact) for weight in exact]
    period = int(np.lcm.reduce([share.denominator for share in shares], dtype=object))
    if period <= _LARGEST_PERIOD:
        return [int(share * period) for share in shares]
    counts = [int(share * _LARGEST_PERIOD) for share in shares]
    rests = [share * _LARGEST_PERIOD - count for share, count in zip(shares, counts, strict=True)]
    largest = sorted(range(len(rests)), key=lambda i: -rests[i])
    for i in largest[: _LARGEST_PERIOD - sum(counts)]:
        counts[i] += 1
    return counts


def _chairman_sequence(counts: list[int]) -> np.ndarray:
    """Returns int64[sum(counts)] in which part i stands counts[i] times, evenly spread."""
    period, num_parts = sum(counts), len(counts)
    if num_parts == 1:
        return np.zeros(period, np.int64)
    scale = 2 * num_parts - 2
    used = [0] * num_parts
    sequence = np.empty(period, np.int64)
    for place in range(period):
        best, best_due = -1, Fraction(0)
        for part, count in enumerate(counts):
            behind = scale * (count * (place + 1) - used[part] * period)
            if behind < period:
                continue  # it came up early enough
            due = ((scale - 1) * period - behind) / count
            if best < 0 or due < best_due:
                best, best_due = part, due
        sequence[place] = best
        used[best] += 1
    return sequence
