"""Which component of a mixture each row of each batch comes from: exact weights, by arithmetic.

The components follow one periodic sequence in which, after any n places, each one's count is within
one of its share of n. Row j of batch t takes place t + j: both the rows of a batch and the batches
of a row are then runs of that sequence, so every batch, and every row over any stretch of steps, is
as close to the weights as whole numbers can be. How often a row drew from a component before a step
is a closed formula.

Source: Tijdeman, "The chairman assignment problem", 1980.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

_LARGEST_PERIOD = 10_000


class Schedule:
    """The order in which components are drawn from.

    Args:
        weights: positive numbers, one for each component; their ratio counts. Weights whose common
            period is over 10,000 places are rounded to 1/10,000.

    Raises:
        ValueError: a weight is not positive, or too small to come up.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        if not len(weights) or any(not weight > 0 for weight in weights):
            raise ValueError(
                f"weights are {list(weights)}, expected a positive number for each component"
            )
        self.counts = _whole_numbers(weights)
        if min(self.counts) == 0:
            raise ValueError(
                f"weights are {list(weights)}: the smallest is under 1/{_LARGEST_PERIOD} of their "
                "sum and would never come up; leave that component out"
            )
        self.period = sum(self.counts)
        self._sequence = _chairman_sequence(self.counts)
        # before[i, n]: how often component i stands among the first n places.
        is_component = self._sequence == np.arange(len(self.counts))[:, None]
        self._before = np.concatenate(
            [np.zeros((len(self.counts), 1), np.int64), np.cumsum(is_component, axis=1)], axis=1
        )

    def components(self, steps: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Returns int64[len(steps), len(rows)], the component each row takes."""
        return self._sequence[(steps[:, None] + rows) % self.period]

    def drawn(self, component: int, steps: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Returns int64[len(steps), len(rows)]: how often a row drew it before a step."""
        return self._count(component, steps[:, None] + rows) - self._count(component, rows)

    def _count(self, component: int, place: np.ndarray) -> np.ndarray:
        periods, rest = np.divmod(place, self.period)
        return periods * self.counts[component] + self._before[component][rest]


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
    """Returns int64[sum(counts)] in which component i stands counts[i] times, evenly spread."""
    period, num_components = sum(counts), len(counts)
    if num_components == 1:
        return np.zeros(period, np.int64)
    scale = 2 * num_components - 2
    used = [0] * num_components
    sequence = np.empty(period, np.int64)
    for place in range(period):
        best, best_due = -1, Fraction(0)
        for component, count in enumerate(counts):
            overdue = scale * (count * (place + 1) - used[component] * period)
            if overdue < period:
                continue  # it came up early enough
            due = ((scale - 1) * period - overdue) / count
            if best < 0 or due < best_due:
                best, best_due = component, due
        sequence[place] = best
        used[best] += 1
    return sequence
