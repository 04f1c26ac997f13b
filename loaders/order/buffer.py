"""The order of a shuffle buffer, computed instead of simulated.

The split is read in blocks of contiguous records, drawn in a permutation of its own each epoch from
all shards. As a record enters the buffer it is given a random delay, and records leave in the order
of arrival + delay. That is a rolling buffer: it never fills and drains, the first batch needs a few
blocks only, and since a record's delay is a hash, the place of any record follows from those of the
few thousand around it. Nothing is replayed on resume.

Delays have a falling, triangular density: for a given mean (and so a given memory) it spreads
records the widest, wider than the exponential delays of the classic fill-and-draw buffer, and is
bounded.

**Lanes.** So that several hosts read disjoint bytes and yet produce one order, the order consists
of lanes: lane k fills rows k * e to (k + 1) * e - 1 of every global batch from records of its own.
A host owns the lanes of its rows. In each round one block is read, of which each lane gets a
contiguous part: one host reads it in one call, several hosts their parts of it. Neighbours of a
part never meet in a batch (e is 1 unless batches are huge); neighbours across parts are dealt to
lanes two rows apart.

    T records a lane = n rounds of r + one short round of l < r, put in at a random place
    block = K lanes x r records
"""

import dataclasses

import numpy as np
from shardstream.loaders.order.epochs import PADDING, Permutation, chain
from shardstream.shard_format.keys import mix64

FRACTION_BITS = np.uint64(10)  # of a record, in the keys that delays are compared by
_LOW_32 = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
# A block is one position in a file: on disks and stores larger ones cost less. They also mix less,
# so they stay under a twelfth of the buffer.
_BLOCK_BYTES = 2**22
_BLOCKS_PER_BUFFER = 12
_LEAST_BUFFER_PER_LANE = 8
_READ_AHEAD_ROUNDS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a split is divided; a function of sizes alone, the same on every host.

    Attributes:
        num_records: N, in the split.
        batch_size: G, sequences of the global batch.
        buffer_size: W, sequences mixed at a time, over all hosts together.
        lanes: K, a divisor of G.
        interleave: lanes this far apart get neighbouring parts of a block; a divisor of K.
        lane_block: r, records of a lane in a round.
        max_delay: c, records of a lane.
    """

    num_records: int
    batch_size: int
    buffer_size: int
    lanes: int
    interleave: int
    lane_block: int
    max_delay: int

    @property
    def rows_per_lane(self) -> int:
        """Rows of a global batch that a lane fills, e."""
        return self.batch_size // self.lanes

    @property
    def block(self) -> int:
        """Records in a block."""
        return self.lanes * self.lane_block

    def part_of(self, lanes: np.ndarray) -> np.ndarray:
        """Returns int64: which part of a block each lane gets."""
        place, turn = np.divmod(lanes, self.interleave)
        return turn * (self.lanes // self.interleave) + place

    @property
    def lane_records(self) -> int:
        """Records of every lane, T; fewer than K records of the split are left over."""
        return self.num_records // self.lanes

    @property
    def capacity(self) -> int:
        """Sequences in memory, over all hosts together: the buffer and what is read ahead."""
        return self.buffer_size + _READ_AHEAD_ROUNDS * self.block

    @property
    def full_rounds(self) -> int:
        """Rounds of r records a lane, n."""
        return self.lane_records // self.lane_block

    @property
    def short_round(self) -> int:
        """Records a lane in the one short round, 0 where there is none."""
        return self.lane_records % self.lane_block


def geometry_for(
    num_records: int, batch_size: int, buffer_size: int, record_bytes: int
) -> Geometry:
    """Returns the geometry for a split.

    Args:
        num_records: in the split, more than buffer_size (else nothing needs a buffer).
        batch_size: global batch.
        buffer_size: sequences in memory.
        record_bytes: of a record, to size blocks by.
    """
    lanes = _divisor(batch_size, buffer_size // _LEAST_BUFFER_PER_LANE)
    block = min(_BLOCK_BYTES // record_bytes, buffer_size // _BLOCKS_PER_BUFFER)
    lane_block = max(1, round(block / lanes))
    per_lane = buffer_size / lanes - lane_block / 2  # half a round is loaded and not yet drawn from
    # Lanes load in step, so all wait for the one that happens to be furthest ahead: 3 deviations
    # of a lane's occupancy, which are 1.9 * sqrt(mean) for these delays.
    mean = max(1.0, (np.sqrt(0.9025 + max(0.0, per_lane)) - 0.95) ** 2)
    return Geometry(
        num_records=num_records,
        batch_size=batch_size,
        buffer_size=buffer_size,
        lanes=lanes,
        interleave=next((d for d in (2, 3, 5, 7) if lanes % d == 0), 1),
        lane_block=min(lane_block, num_records // lanes),
        max_delay=int(3 * mean),
    )


def _divisor(number: int, at_most: int) -> int:
    """Returns the largest divisor of number that is no larger than at_most (or 1)."""
    return max(d for d in range(1, min(number, max(1, at_most)) + 1) if number % d == 0)


def delays(hashed: np.ndarray, max_delay: np.ndarray | np.uint64) -> np.ndarray:
    """Returns uint64: triangular delays under max_delay, in 1 / 2**FRACTION_BITS of a record.

    Args:
        hashed: uint64, a hash of each record.
        max_delay: uint64 of one record or all, below 2**32; delays are a third of it on average.
    """
    smaller = np.minimum(hashed >> _32, hashed & _LOW_32)  # of two: the triangular density
    return smaller * max_delay >> (_32 - FRACTION_BITS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RangeRead:
    """Contiguous records that fill one round of some lanes: lane-major, equal parts.

    Attributes:
        begin: first record in the split; the range goes on at record 0 past the end.
        lanes: int64, the lane of each part.
        arrival: place in its lane of each part's first record.
        per_lane: records of each part.
    """

    begin: int
    lanes: np.ndarray
    arrival: int
    per_lane: int

    @property
    def count(self) -> int:
        """Records of the range."""
        return len(self.lanes) * self.per_lane


class EpochOrder:
    """One epoch of a buffer order.

    Arguments called `arrival` count the records of a lane in the order they are read, those called
    `rank` in the order they leave.
    """

    def __init__(self, geometry: Geometry, key: int) -> None:
        g = self.geometry = geometry
        self._blocks = Permutation(max(1, g.full_rounds), chain(key, 1))
        self._rotation = chain(key, 2) % g.num_records  # no two epochs cut the same blocks
        self._short_at = chain(key, 3) % (g.full_rounds + 1) * g.lane_block
        lanes = np.arange(g.lanes, dtype=np.uint64)
        self._lane_keys = mix64(mix64(lanes ^ np.uint64(chain(key, 4))))

    @property
    def num_rounds(self) -> int:
        """Rounds of the epoch, the short one included."""
        return self.geometry.full_rounds + bool(self.geometry.short_round)

    def arrivals(self, begin: int, end: int, lanes: np.ndarray) -> np.ndarray:
        """Returns int64[len(lanes), end - begin]: the arrivals that leave at those ranks.

        Cost: a sort of end - begin + 2 * max_delay keys a lane, wherever begin is.
        """
        g = self.geometry
        # Every record leaves within max_delay of its arrival, so outside this range none matters.
        first = max(0, begin - g.max_delay - 1)
        last = min(g.lane_records, end + g.max_delay + 1)
        arrival = np.arange(first, last, dtype=np.uint64)
        hashed = mix64(arrival ^ self._lane_keys[lanes][:, None])
        leave = (arrival << FRACTION_BITS) + delays(hashed, np.uint64(g.max_delay))
        order = np.argsort(leave, axis=1, kind="stable")
        return order[:, begin - first : end - first] + first

    def records_of(self, lanes: np.ndarray, arrival: np.ndarray) -> np.ndarray:
        """Returns int64: the record of the split at each (lane, arrival), arrays that broadcast."""
        g = self.geometry
        after = arrival - self._short_at
        short = (after >= 0) & (after < g.short_round)
        place = arrival - np.where(after >= g.short_round, g.short_round, 0)
        turn, offset = np.divmod(place, g.lane_block)
        part = g.part_of(lanes)
        block = self._blocks(np.minimum(turn, g.full_rounds - 1))  # the short round's is replaced
        full = block * g.block + part * g.lane_block + offset
        tail = g.full_rounds * g.block + part * g.short_round + after
        return (np.where(short, tail, full) + self._rotation) % g.num_records

    def spare_record(self, lanes: np.ndarray) -> np.ndarray:
        """Returns int64: the record past a lane's last, PADDING in lanes that have none."""
        g = self.geometry
        spare = g.num_records % g.lanes
        record = (g.num_records - spare + lanes + self._rotation) % g.num_records
        return np.where(lanes < spare, record, PADDING)

    def round_of(self, arrival: np.ndarray) -> np.ndarray:
        """Returns int64: the round that reads each arrival."""
        g = self.geometry
        after = arrival - self._short_at
        place = arrival - np.where(after >= g.short_round, g.short_round, 0)
        is_late = (after >= 0) & bool(g.short_round)
        is_past = (after >= g.short_round) & bool(g.short_round)
        return np.where(
            is_late & ~is_past, self._short_at // g.lane_block, place // g.lane_block + is_past
        )

    def lane_runs(self, lanes: np.ndarray) -> list[np.ndarray]:
        """Returns the runs of a host's lanes (sorted) whose parts of a block are contiguous."""
        parts = self.geometry.part_of(lanes)
        order = np.argsort(parts)
        return np.split(lanes[order], np.flatnonzero(np.diff(parts[order]) != 1) + 1)

    def reads_of(self, turn: int, runs: list[np.ndarray]) -> list[RangeRead]:
        """Returns what a host reads in a round, for the runs of its lanes (see lane_runs)."""
        g = self.geometry
        short_turn = self._short_at // g.lane_block if g.short_round else g.full_rounds
        if turn == short_turn:
            per_lane, arrival = g.short_round, self._short_at
        else:
            per_lane = g.lane_block
            arrival = turn * per_lane - (turn > short_turn) * (per_lane - g.short_round)
        starts = np.array([run[0] for run in runs])
        begins = self.records_of(starts, np.full(len(starts), arrival)).tolist()
        return [
            RangeRead(begin=begin, lanes=run, arrival=arrival, per_lane=per_lane)
            for begin, run in zip(begins, runs, strict=True)
        ]


class BufferOrder:
    """The order of `shuffle="buffer"`.

    Args:
        geometry: see geometry_for.
        key: hash of dataset and seed.

    Guarantees: each record once an epoch; a function of the arguments alone.
    """

    def __init__(self, geometry: Geometry, key: int) -> None:
        self.geometry = geometry
        self.num_records = geometry.num_records
        self.batch_size = geometry.batch_size
        self._key = key

    def epoch(self, epoch: int) -> EpochOrder:
        """Returns the order of one epoch."""
        return EpochOrder(self.geometry, chain(self._key, epoch))

    def records(self, epoch: int, begin: int, end: int, rows: np.ndarray) -> np.ndarray:
        """See Order."""
        g = self.geometry
        e = g.rows_per_lane
        order = self.epoch(epoch)
        lanes, inverse = np.unique(rows // e, return_inverse=True)
        ranks = (np.arange(begin, end)[:, None] * e + rows % e).astype(np.int64)
        first = min(begin * e, g.lane_records - 1)  # at least one, though a last batch may be spare
        arrivals = order.arrivals(first, min(end * e, g.lane_records), lanes)
        inside = ranks < g.lane_records
        taken = arrivals[inverse, np.where(inside, ranks - first, 0)]
        records = order.records_of(rows // e, taken)
        spare = np.where(ranks == g.lane_records, order.spare_record(rows // e), PADDING)
        return np.where(inside, records, spare)
