"""Batches from a rolling buffer that is fed by whole blocks: the reading side of `order.buffer`.

One array of `capacity` rows holds what was read and has not left; blocks go into free rows, a batch
is one gather, and its rows are free again. Memory is that array in every order: a block that finds
no room is left out, and its records are read one by one when they are wanted.

Resuming is the same thing: what would stand in the buffer at that step is read record by record as
it is wanted, blocks from then on. So a resume reads nothing twice and starts as quickly as a fresh
run.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future

import numpy as np

from shardstream.loaders.order.buffer import BufferEpoch, BufferOrder
from shardstream.loaders.shards.read_plan import Chunk, ReadPlan
from shardstream.loaders.shards.reader import ShardSet
from shardstream.loaders.shards.rows import Rows

_ROUNDS_AHEAD = 8  # at most; free rows of the buffer are the tighter bound
_ROUNDS_FETCHED_AHEAD = 12  # from a store: about what a quick one has under way
_FIRST_STEPS = 2
_GROWTH = 4


class Buffer:
    """Rows in memory and which of them are free.

    Args:
        shards: gives the rows' shape.
        capacity: rows.
        lengths: hold document lengths too.
    """

    def __init__(self, shards: ShardSet, capacity: int, *, lengths: bool) -> None:
        self.rows = shards.make_rows(capacity, lengths=lengths)
        self._free = np.arange(capacity)[::-1].copy()
        self._num_free = capacity

    def take(self, count: int) -> np.ndarray | None:
        """Returns count free rows, or None where there are fewer."""
        if count > self._num_free:
            return None
        self._num_free -= count
        return self._free[self._num_free : self._num_free + count].copy()

    def give(self, rows: np.ndarray) -> None:
        """Makes rows free again."""
        self._free[self._num_free : self._num_free + len(rows)] = rows
        self._num_free += len(rows)


def buffer_chunks(plan: ReadPlan, epoch: int, step: int) -> Iterator[Chunk]:
    """Yields the chunks from (epoch, step) on; plan.order is a BufferOrder."""
    order = plan.order
    assert isinstance(order, BufferOrder)
    geometry = order.geometry
    tracks = np.unique(plan.rows // geometry.rows_per_track)
    capacity = -(-geometry.capacity * len(tracks) // geometry.tracks)
    buffer = Buffer(plan.shards, capacity, lengths=plan.lengths)
    following: _EpochRows | None = None
    for current in plan.epochs_from(epoch):
        rows = following or _EpochRows(plan, buffer, order.epoch(current), current, step)
        is_last = plan.epochs is not None and current + 1 >= plan.epochs
        following = (
            None if is_last else _EpochRows(plan, buffer, order.epoch(current + 1), current + 1, 0)
        )
        for chunk in rows.chunks():
            yield chunk
            if following is not None and rows.is_loaded:
                following.load()  # the next epoch's blocks move in while this one's records leave


class _Draws:
    """The arrivals of consecutive steps, and the reads of those that no block brings."""

    def __init__(self, step: int, arrivals: np.ndarray, wanted: np.ndarray) -> None:
        self.step = step
        self.arrivals = arrivals  # int64[steps, tracks, e]
        self.wanted = wanted  # int64[steps], last round each step draws from
        self.early: Rows | None = None
        self.early_row = np.empty(0, np.int64)  # int64[steps, B], -1 where a block brings it
        self.reads: list[Future] = []


class _EpochRows:
    """One epoch's way through the buffer."""

    def __init__(
        self, plan: ReadPlan, buffer: Buffer, order: BufferEpoch, epoch: int, step: int
    ) -> None:
        g = order.geometry
        self._plan, self._buffer, self._order = plan, buffer, order
        self._epoch, self._step = epoch, step
        self._tracks, self._track_of_row = np.unique(
            plan.rows // g.rows_per_track, return_inverse=True
        )
        self._runs = order.track_runs(self._tracks)
        self._slot_of_row = plan.rows % g.rows_per_track
        span = 2 * g.max_delay + (_ROUNDS_AHEAD + 4) * g.track_block + 64
        self._ring = 2 ** int(span).bit_length()
        self._row_of = np.full((len(self._tracks), self._ring), -1, np.int64)
        self._reads: deque[tuple[int, Future]] = deque()  # (round, its read)
        self._wanted = -1  # no round yet, while the epoch before this one is being drawn from
        self._first_block = self._next_round = self._first_untouched_round()
        self._expected = self._next_round
        self._steps = min(plan.steps_per_epoch, g.num_records // g.batch_size)

    @property
    def is_loaded(self) -> bool:
        """Every block of the epoch was asked for."""
        return self._next_round >= self._order.num_rounds

    def _first_untouched_round(self) -> int:
        """Returns the first round of which no record has left before the first step."""
        if self._step == 0:
            return 0
        g = self._order.geometry
        rank = self._step * g.rows_per_track
        left = self._order.arrivals(max(0, rank - g.max_delay - 1), rank, self._tracks)
        return int(self._order.round_of(left).max()) + 1

    def chunks(self) -> Iterator[Chunk]:
        """Yields the epoch's chunks."""
        draws_to_come = self._all_draws()
        draws = next(draws_to_come, None)
        while draws is not None:
            following = next(draws_to_come, None)  # its early records are read meanwhile
            for future in draws.reads:
                future.result()
            edges = np.flatnonzero(np.diff(draws.wanted)) + 1
            starts = np.concatenate([[0], edges]).tolist()
            ends = np.concatenate([edges, [len(draws.wanted)]]).tolist()
            for begin, end in zip(starts, ends, strict=True):
                for at in range(begin, end, self._plan.chunk_steps):
                    yield self._chunk(draws, at, min(end, at + self._plan.chunk_steps))
            draws = following
        self._leave()
        if self._steps < self._plan.steps_per_epoch and self._step <= self._steps:
            yield self._partial_batch()

    def _all_draws(self) -> Iterator[_Draws]:
        g = self._order.geometry
        step, count, wanted = self._step, _FIRST_STEPS, self._first_block - 1
        longest = max(16, g.max_delay // g.rows_per_track)
        while step < self._steps:
            count = min(count, self._steps - step)
            ranks = step * g.rows_per_track, (step + count) * g.rows_per_track
            arrivals = self._order.arrivals(*ranks, self._tracks)
            arrivals = arrivals.reshape(len(self._tracks), count, -1).transpose(1, 0, 2)
            rounds = self._order.round_of(arrivals)
            reached = np.maximum.accumulate(rounds.max(axis=(1, 2)))
            reached = np.maximum(reached, wanted)
            wanted = int(reached[-1])
            draws = _Draws(step, arrivals, reached)
            self._read_early(draws, rounds)
            yield draws
            step += count
            count = min(count * _GROWTH, longest)

    def _read_early(self, draws: _Draws, rounds: np.ndarray) -> None:
        """Starts the reads of records whose blocks were read before this run began."""
        mine = (slice(None), self._track_of_row, self._slot_of_row)
        early = rounds[mine] < self._first_block
        draws.early_row = np.where(early, np.cumsum(early).reshape(early.shape) - 1, -1)
        if not early.any():
            return
        tracks = np.broadcast_to(self._tracks[self._track_of_row], early.shape)[early]
        records = self._order.records_of(tracks, draws.arrivals[mine][early])
        draws.early = self._plan.shards.make_rows(len(records), lengths=self._plan.lengths)
        draws.reads = self._plan.submit(records, draws.early, np.arange(len(records)))

    def _expect(self) -> None:
        """Tells a store's cache of blocks further ahead than there is room for in the buffer."""
        if self._plan.shards.is_local:
            return
        end = min(self._next_round + _ROUNDS_FETCHED_AHEAD, self._order.num_rounds)
        for coming in range(self._expected, end):
            for read in self._order.reads_of(coming, self._runs):
                self._plan.shards.expect_range(read.begin, read.count)
        self._expected = max(self._expected, end)

    def load(self) -> None:
        """Asks for blocks as far ahead as there is room, and for those that are wanted now."""
        self._expect()
        last = min(self._wanted + _ROUNDS_AHEAD, self._order.num_rounds - 1)
        while self._next_round <= last:
            reads = self._order.reads_of(self._next_round, self._runs)
            rows = self._buffer.take(sum(read.count for read in reads))
            if rows is not None:
                for read in reads:
                    count = read.count
                    mine, rows = rows[:count], rows[count:]
                    track = np.searchsorted(self._tracks, read.tracks)[:, None]
                    places = np.arange(read.arrival, read.arrival + read.per_track) % self._ring
                    self._row_of[track, places] = mine.reshape(-1, read.per_track)
                    future = self._plan.executor.submit(
                        self._plan.shards.read_range, read.begin, count, self._buffer.rows, mine
                    )
                    self._reads.append((self._next_round, future))
            elif self._next_round > self._wanted:
                return
            self._next_round += 1

    def _chunk(self, draws: _Draws, begin: int, end: int) -> Chunk:
        """Returns steps begin to end - 1 of the draws, all of which draw from the same rounds."""
        self._wanted = int(draws.wanted[begin])
        self.load()
        while self._reads and self._reads[0][0] <= self._wanted:
            self._reads.popleft()[1].result()
        arrivals = draws.arrivals[begin:end]
        track = np.arange(len(self._tracks))[:, None]
        held = self._row_of[track, arrivals % self._ring]
        early = draws.early_row[begin:end]
        mine = held[:, self._track_of_row, self._slot_of_row]
        mine = np.where(early >= 0, -1, mine).ravel()
        rows = self._gather(np.maximum(mine, 0))
        if (mine < 0).any():
            self._fill(draws, mine, early.ravel(), arrivals, rows)
        is_held = held >= 0
        self._buffer.give(held[is_held])
        tracks = np.broadcast_to(track, arrivals.shape)[is_held]
        self._row_of[tracks, arrivals[is_held] % self._ring] = -1
        self.load()  # there is room again, and the caller may be long
        return Chunk(self._epoch, draws.step + begin, end - begin, rows)

    def _gather(self, index: np.ndarray) -> Rows:
        """Returns copies of rows of the buffer."""
        held = self._buffer.rows
        rows = self._plan.shards.make_rows(len(index), lengths=held.lengths is not None)
        # mode="clip" writes to `out` at once; the default makes a copy first.
        held.tokens.take(index, axis=0, out=rows.tokens, mode="clip")
        if held.lengths is not None:
            held.lengths.take(index, axis=0, out=rows.lengths, mode="clip")
        return rows

    def _fill(
        self,
        draws: _Draws,
        mine: np.ndarray,
        early: np.ndarray,
        arrivals: np.ndarray,
        rows: Rows,
    ) -> None:
        """Puts the records that are not in the buffer into their rows."""
        at = np.flatnonzero(early >= 0)
        if draws.early is not None and len(at):
            rows.tokens[at] = draws.early.tokens[early[at]]
            if rows.lengths is not None and draws.early.lengths is not None:
                rows.lengths[at] = draws.early.lengths[early[at]]
        at = np.flatnonzero((mine < 0) & (early < 0))
        if len(at):
            tracks = np.broadcast_to(
                self._tracks[self._track_of_row], (len(arrivals), len(self._track_of_row))
            ).ravel()[at]
            arrived = arrivals[:, self._track_of_row, self._slot_of_row].ravel()[at]
            records = self._order.records_of(tracks, arrived)
            for future in self._plan.submit(records, rows, at):
                future.result()

    def _leave(self) -> None:
        """Frees the rows of records that no batch took: the remainder that is left out."""
        while self._reads:
            self._reads.popleft()[1].result()
        self._buffer.give(self._row_of[self._row_of >= 0])
        self._row_of[:] = -1

    def _partial_batch(self) -> Chunk:
        plan = self._plan
        records = plan.order.records(self._epoch, self._steps, self._steps + 1, plan.rows)
        rows = plan.shards.make_rows(records.size, lengths=plan.lengths)
        for future in plan.submit(records.ravel(), rows, np.arange(records.size)):
            future.result()
        return Chunk(self._epoch, self._steps, 1, rows)
