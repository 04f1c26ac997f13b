"""How well an order mixes, in figures that can be compared with a uniform permutation's.

Records that follow each other in the dataset are the ones worth separating: they may come from one
file, one site, one day. The figures are of one epoch, whatever loader produced it.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixing:
    """Figures of an order.

    Attributes:
        displacement: mean distance between a record's place in the dataset and in the epoch, as a
            share of the epoch; 1/3 for a uniform permutation.
        neighbours_adjacent: share of neighbours of the dataset that are neighbours in the epoch.
        neighbours_together: share of neighbours of the dataset that meet in one batch.
        near_together: as above, for records 1 to 64 places apart.
        shard_entropy: mean over batches, in bits, of which shards a batch draws from.
        batch_drift: standard deviation over batches of the mean place in the dataset, in units of
            what uniform draws give; 1 is ideal, more means that batches are alike inside.
    """

    displacement: float
    neighbours_adjacent: float
    neighbours_together: float
    near_together: float
    shard_entropy: float
    batch_drift: float


def measure(records: np.ndarray, shard_of: np.ndarray) -> Mixing:
    """Returns the figures of an epoch.

    Args:
        records: int64[steps, G], the record in each row of each global batch, each at most once.
        shard_of: int64[N], the shard of each record of the dataset.
    """
    _steps, batch_size = records.shape
    flat = records.ravel()
    num_records = len(shard_of)
    place = np.full(num_records, -(10**12))  # left out: near nothing, in no batch
    place[flat] = np.arange(len(flat))
    batch = np.where(place >= 0, place // batch_size, -np.arange(1, num_records + 1))

    def together(apart: int) -> float:
        return float((batch[apart:] == batch[:-apart]).mean())

    share = (records + 0.5) / num_records
    uniform_deviation = np.sqrt(1 / 12 / batch_size)
    return Mixing(
        displacement=float(np.abs(flat - np.arange(len(flat))).mean() / num_records),
        neighbours_adjacent=float((np.abs(np.diff(place)) == 1).mean()),
        neighbours_together=together(1),
        near_together=float(np.mean([together(apart) for apart in range(1, 65)])),
        shard_entropy=_mean_entropy(shard_of[records]),
        batch_drift=float(np.sqrt(((share.mean(axis=1) - 0.5) ** 2).mean()) / uniform_deviation),
    )


def _mean_entropy(shards: np.ndarray) -> float:
    """Returns the mean entropy, in bits, of the shards in each row of shards[steps, G]."""
    ranked = np.sort(shards, axis=1)
    is_first = np.ones(ranked.shape, bool)
    is_first[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    starts = np.flatnonzero(is_first.ravel())
    counts = np.diff(np.concatenate([starts, [ranked.size]]))
    share = counts / shards.shape[1]
    return float(-(share * np.log2(share)).sum() / len(shards))
