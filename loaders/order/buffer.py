"""The order of a shuffle buffer, computed instead of simulated.

The split is read in blocks of contiguous records, drawn in a permutation of its own each epoch from
all shards. As a record enters the buffer it is given a random delay, and records leave in the order
of arrival + delay. That is a rolling buffer: it never fills and drains, the first batch needs a few
blocks only, and since a record's delay is a hash, the place of any record follows from those of the
few thousand around it. Nothing is replayed on resume.

Delays have a falling, triangular density: for a given mean (and so a given memory) it spreads
records the widest, wider than the exponential delays of the classic fill-and-draw buffer, and is
bounded.

**Tracks.** So that several hosts read disjoint bytes and yet produce one order, the order consists
of tracks. Track k fills rows k * e to (k + 1) * e - 1 of every global batch from records of its
own, and a host owns the tracks of its rows. In each round one block is read, of which each track
gets a contiguous slice: one host reads it in one call, several hosts their slices of it. Neighbours
of a slice never meet in a batch (e is 1 unless batches are huge); neighbours across slices are
dealt to tracks two rows apart.

    T records of a track = n rounds of r + one short round of l < r, put in at a random place
    block = K tracks x r records
"""

import dataclasses

import numpy as np

from shardstream.loaders.order.epochs import PADDING, Permutation
from shardstream.shard_format.keys import chain, mix64

FRACTION_BITS = np.uint64(10)  # of a record, in the keys that delays are compared by
_LOW_32 = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
# A block is one position in a file: on disks and stores larger ones cost less. They also mix less,
# so they stay under a twelfth of the buffer.
_BLOCK_BYTES = 2**22
_BLOCKS_PER_BUFFER = 12
_LEAST_BUFFER_PER_TRACK = 8
_READ_AHEAD_ROUNDS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a split is divided; a function of sizes alone, the same on every host.

    Attributes:
        num_records: N, in the split.
        batch_size: G, sequences of the global batch.
        buffer_size: W, sequences mixed at a time, over all hosts together.
        tracks: K, a divisor of G.
        interleave: tracks this far apart get neighbouring slices of a block; a divisor of K.
        track_block: r, records of a track in a round.
        max_delay: c, records of a track.
    """

    num_records: int
    batch_size: int
    buffer_size: int
    tracks: int
    interleave: int
    track_block: int
    max_delay: int

    @property
    def rows_per_track(self) -> int:
        """Rows of a global batch that a track fills, e."""
        return self.batch_size // self.tracks

    @property
    def block(self) -> int:
        """Records in a block."""
        return self.tracks * self.track_block

    def slice_of(self, tracks: np.ndarray) -> np.ndarray:
        """Returns int64: which slice of a block each track gets."""
        place, turn = np.divmod(tracks, self.interleave)
        return turn * (self.tracks // self.interleave) + place

    @property
    def track_records(self) -> int:
        """Records of every track, T; fewer than K records of the split are left over."""
        return self.num_records // self.tracks

    @property
    def capacity(self) -> int:
        """Sequences in memory, over all hosts together: the buffer and what is read ahead."""
        return self.buffer_size + _READ_AHEAD_ROUNDS * self.block

    @property
    def full_rounds(self) -> int:
        """Number of rounds of r records for each track, n."""
        return self.track_records // self.track_block

    @property
    def short_round(self) -> int:
        """Records of each track in the one short round, 0 where there is none."""
        return self.track_records % self.track_block


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
    tracks = _divisor(batch_size, buffer_size // _LEAST_BUFFER_PER_TRACK)
    block = min(_BLOCK_BYTES // record_bytes, buffer_size // _BLOCKS_PER_BUFFER)
    track_block = max(1, round(block / tracks))
    # Half a round is loaded and not yet drawn from.
    per_track = buffer_size / tracks - track_block / 2
    # Tracks load in step, so all wait for the one that happens to be furthest ahead: 3 deviations
    # of a track's occupancy, which are 1.9 * sqrt(mean) for these delays.
    mean = max(1.0, (np.sqrt(0.9025 + max(0.0, per_track)) - 0.95) ** 2)
    return Geometry(
        num_records=num_records,
        batch_size=batch_size,
        buffer_size=buffer_size,
        tracks=tracks,
        interleave=next((d for d in (2, 3, 5, 7) if tracks % d == 0), 1),
        track_block=min(track_block, num_records // tracks),
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
    """Contiguous records that fill one round of some tracks: track-major, equal slices.

    Attributes:
        begin: first record in the split; the range goes on at record 0 past the end.
        tracks: int64, the track of each slice.
        arrival: place in its track of each slice's first record.
        per_track: records of each slice.
    """

    begin: int
    tracks: np.ndarray
    arrival: int
    per_track: int

    @property
    def count(self) -> int:
        """Records of the range."""
        return len(self.tracks) * self.per_track


class BufferEpoch:
    """One epoch of a buffer order.

    Arguments called `arrival` count the records of a track in the order they are read, those called
    `rank` in the order they leave.
    """

    def __init__(self, geometry: Geometry, key: int) -> None:
        g = self.geometry = geometry
        self._blocks = Permutation(max(1, g.full_rounds), chain(key, 1))
        self._rotation = chain(key, 2) % g.num_records  # no two epochs cut the same blocks
        self._short_at = chain(key, 3) % (g.full_rounds + 1) * g.track_block
        tracks = np.arange(g.tracks, dtype=np.uint64)
        self._track_keys = mix64(mix64(tracks ^ np.uint64(chain(key, 4))))

    @property
    def num_rounds(self) -> int:
        """Rounds of the epoch, the short one included."""
        return self.geometry.full_rounds + bool(self.geometry.short_round)

    def arrivals(self, begin: int, end: int, tracks: np.ndarray) -> np.ndarray:
        """Returns int64[len(tracks), end - begin]: the arrivals that leave at those ranks.

        Cost: a sort of end - begin + 2 * max_delay keys a track, wherever begin is.
        """
        g = self.geometry
        # Every record leaves within max_delay of its arrival, so outside this range none matters.
        first = max(0, begin - g.max_delay - 1)
        last = min(g.track_records, end + g.max_delay + 1)
        arrival = np.arange(first, last, dtype=np.uint64)
        hashed = mix64(arrival ^ self._track_keys[tracks][:, None])
        leave = (arrival << FRACTION_BITS) + delays(hashed, np.uint64(g.max_delay))
        order = np.argsort(leave, axis=1, kind="stable")
        return order[:, begin - first : end - first] + first

    def records_of(self, tracks: np.ndarray, arrival: np.ndarray) -> np.ndarray:
        """Returns int64: the record of the split at each (track, arrival); arrays broadcast."""
        g = self.geometry
        after = arrival - self._short_at
        short = (after >= 0) & (after < g.short_round)
        place = arrival - np.where(after >= g.short_round, g.short_round, 0)
        turn, offset = np.divmod(place, g.track_block)
        piece = g.slice_of(tracks)
        block = self._blocks(np.minimum(turn, g.full_rounds - 1))  # the short round's is replaced
        full = block * g.block + piece * g.track_block + offset
        tail = g.full_rounds * g.block + piece * g.short_round + after
        return (np.where(short, tail, full) + self._rotation) % g.num_records

    def spare_record(self, tracks: np.ndarray) -> np.ndarray:
        """Returns int64: the record past a track's last, PADDING in tracks that have none."""
        g = self.geometry
        spare = g.num_records % g.tracks
        record = (g.num_records - spare + tracks + self._rotation) % g.num_records
        return np.where(tracks < spare, record, PADDING)

    def round_of(self, arrival: np.ndarray) -> np.ndarray:
        """Returns int64: the round that reads each arrival."""
        g = self.geometry
        after = arrival - self._short_at
        place = arrival - np.where(after >= g.short_round, g.short_round, 0)
        is_late = (after >= 0) & bool(g.short_round)
        is_past = (after >= g.short_round) & bool(g.short_round)
        return np.where(
            is_late & ~is_past, self._short_at // g.track_block, place // g.track_block + is_past
        )

    def track_runs(self, tracks: np.ndarray) -> list[np.ndarray]:
        """Returns the runs of a host's tracks (sorted) whose slices of a block are contiguous."""
        slices = self.geometry.slice_of(tracks)
        order = np.argsort(slices)
        return np.split(tracks[order], np.flatnonzero(np.diff(slices[order]) != 1) + 1)

    def reads_of(self, turn: int, runs: list[np.ndarray]) -> list[RangeRead]:
        """Returns what a host reads in a round, for the runs of its tracks (see track_runs)."""
        g = self.geometry
        short_turn = self._short_at // g.track_block if g.short_round else g.full_rounds
        if turn == short_turn:
            per_track, arrival = g.short_round, self._short_at
        else:
            per_track = g.track_block
            arrival = turn * per_track - (turn > short_turn) * (per_track - g.short_round)
        starts = np.array([run[0] for run in runs])
        begins = self.records_of(starts, np.full(len(starts), arrival)).tolist()
        return [
            RangeRead(begin=begin, tracks=run, arrival=arrival, per_track=per_track)
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

    def epoch(self, epoch: int) -> BufferEpoch:
        """Returns the order of one epoch."""
        return BufferEpoch(self.geometry, chain(self._key, epoch))

    def records(self, epoch: int, begin: int, end: int, rows: np.ndarray) -> np.ndarray:
        """See Order."""
        g = self.geometry
        e = g.rows_per_track
        order = self.epoch(epoch)
        tracks, inverse = np.unique(rows // e, return_inverse=True)
        ranks = (np.arange(begin, end)[:, None] * e + rows % e).astype(np.int64)
        first = min(begin * e, g.track_records - 1)  # at least one: a last batch may be spare
        arrivals = order.arrivals(first, min(end * e, g.track_records), tracks)
        inside = ranks < g.track_records
        taken = arrivals[inverse, np.where(inside, ranks - first, 0)]
        records = order.records_of(rows // e, taken)
        spare = np.where(ranks == g.track_records, order.spare_record(rows // e), PADDING)
        return np.where(inside, records, spare)
