"""Shares side by side: the rows of a host's batches, and a journal of where to resume each step."""

import dataclasses
import threading
from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np
from shardstream.loaders.hub.share import START, Position, SharePlan, Steps, join_rows
from shardstream.loaders.shards.rows import Rows


class Journal:
    """Positions of shares at steps, from the caller's step on; written by the prefetching thread.

    Args:
        positions: of each share at the first step.
    """

    def __init__(self, positions: Mapping[int, Position]) -> None:
        self._lock = threading.Lock()
        self._entries: deque[tuple[int, Mapping[int, Position]]] = deque()
        self.reset(positions)

    def reset(self, positions: Mapping[int, Position]) -> None:
        """Forgets everything else."""
        first = min((position.step for position in positions.values()), default=0)
        with self._lock:
            self._entries = deque([(first, dict(positions))])

    def add(self, step: int, positions: Mapping[int, Position]) -> None:
        """Notes where shares stand at a step, later than those before."""
        with self._lock:
            self._entries.append((step, positions))

    def at(self, step: int) -> Mapping[int, Position]:
        """Returns the last positions noted up to a step, and forgets those before them."""
        with self._lock:
            while len(self._entries) > 1 and self._entries[1][0] <= step:
                self._entries.popleft()
            return self._entries[0][1]

    def restart(self, step: int) -> Mapping[int, Position]:
        """Returns the positions to start from, and forgets what was noted ahead of them."""
        positions = self.at(step)
        self.reset(positions)
        return positions


def host_chunks(
    plans: Mapping[int, SharePlan],
    shares: Mapping[int, Iterator[Steps]],
    columns: np.ndarray | None,
    step: int,
    journal: Journal,
) -> Iterator[tuple[int, Rows]]:
    """Yields (number of steps, this host's rows of them) from a step on.

    Args:
        plans: by share, in order.
        shares: their steps, from a position up to `step` on.
        columns: which of the shares' rows of a step the host holds; None for all.
        step: the first one wanted.
        journal: is told where each share stands.
    """
    pulled = {share: _Pull(steps, step) for share, steps in shares.items()}
    while True:
        ready = [count for pull in pulled.values() if (count := pull.num_ready())]
        if not ready:
            return
        count = min(ready)
        journal.add(step, {share: pull.position for share, pull in pulled.items()})
        parts = []
        for share, pull in pulled.items():
            rows = pull.take(count)
            size = plans[share].rows_per_step
            parts.append(plans[share].empty_rows(count * size) if rows is None else rows)
        yield count, _side_by_side(parts, count, columns)
        step += count


class _Pull:
    """One share's steps, taken as many at a time as asked for.

    Attributes:
        position: of the next step, of the last one read once the share has ended.
    """

    def __init__(self, steps: Iterator[Steps], step: int) -> None:
        self._steps = steps
        self._current: Steps | None = None
        self.position = START
        while self.num_ready():
            assert self._current is not None
            ahead = step - self._current.position.step
            if ahead < self._current.num_steps:
                if ahead > 0:
                    self.take(ahead)
                return
            self._current = None

    def num_ready(self) -> int:
        """Returns how many steps are there, 0 at the end of the share."""
        if self._current is None:
            self._current = next(self._steps, None)
            if self._current is not None:
                self.position = self._current.position
        return self._current.num_steps if self._current else 0

    def take(self, count: int) -> Rows | None:
        """Returns the rows of the next steps, None where the share has ended."""
        if self._current is None:
            return None
        position, num_steps, rows = self._current
        size = len(rows.tokens) // num_steps
        taken, left = rows.part(0, count * size), rows.part(count * size, num_steps * size)
        self._current = None
        if count < num_steps:
            # The same checkpoint serves the later steps of one draw.
            self.position = dataclasses.replace(position, step=position.step + count)
            self._current = Steps(self.position, num_steps - count, left)
        return taken


def _side_by_side(parts: list[Rows], count: int, columns: np.ndarray | None) -> Rows:
    """Returns the rows of count steps, each step's from all shares in turn."""
    if len(parts) == 1 and columns is None:
        return parts[0]
    joined = join_rows(parts)
    # Row (share, step, row) to (step, share, row).
    order = np.arange(len(joined.tokens)).reshape(len(parts), count, -1).swapaxes(0, 1)
    order = order.reshape(count, -1)
    if columns is not None:
        order = order[:, columns]
    order = order.ravel()
    return Rows(joined.tokens[order], joined.lengths[order])
