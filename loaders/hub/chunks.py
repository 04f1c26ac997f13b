"""Shares side by side: the rows of a host's batches, and where to resume each of them."""

import dataclasses
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import numpy as np

from shardstream.loaders.hub.share import START, Position, SharePlan, Steps, join_rows
from shardstream.loaders.row_source import HostBatches
from shardstream.loaders.shards.rows import Rows


def host_chunks(
    plans: Mapping[int, SharePlan],
    shares: Mapping[int, Iterator[Steps]],
    columns: np.ndarray | None,
    step: int,
) -> Generator[HostBatches, None, int]:
    """Yields this host's rows from a step on, with the positions of its shares.

    Args:
        plans: by share, in order.
        shares: their steps, from a position up to `step` on.
        columns: which of the shares' rows of a step the host holds; None for all.
        step: the first one wanted.

    Returns:
        The number of steps of the stream, counted from its beginning.
    """
    pulled = {share: _Pull(steps, step) for share, steps in shares.items()}
    while True:
        ready = [count for pull in pulled.values() if (count := pull.num_ready())]
        if not ready:
            return max(pull.end for pull in pulled.values())
        count = min(ready)
        progress = progress_of({share: pull.position for share, pull in pulled.items()})
        pieces = []
        for share, pull in pulled.items():
            rows = pull.take(count)
            size = plans[share].rows_per_step
            pieces.append(plans[share].empty_rows(count * size) if rows is None else rows)
        yield HostBatches(count, _side_by_side(pieces, count, columns), progress)


def progress_of(positions: Mapping[int, Position]) -> dict[str, Any]:
    """Returns positions of shares as a state keeps them."""
    return {"positions": {str(share): position.to_json() for share, position in positions.items()}}


class _Pull:
    """One share's steps, taken as many at a time as asked for.

    Attributes:
        position: of the next step, of the last one read once the share has ended.
        end: the number of steps up to the last one read.
    """

    def __init__(self, steps: Iterator[Steps], step: int) -> None:
        self._steps = steps
        self._current: Steps | None = None
        self.position = START
        self.end = 0
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
                self.end = self.position.step + self._current.num_steps
        return self._current.num_steps if self._current else 0

    def take(self, count: int) -> Rows | None:
        """Returns the rows of the next steps, None where the share has ended."""
        if self._current is None:
            return None
        position, num_steps, rows = self._current
        size = len(rows.tokens) // num_steps
        taken, left = rows.slice(0, count * size), rows.slice(count * size, num_steps * size)
        self._current = None
        if count < num_steps:
            # The same checkpoint serves the later steps of one draw.
            self.position = dataclasses.replace(position, step=position.step + count)
            self._current = Steps(self.position, num_steps - count, left)
        return taken


def _side_by_side(pieces: list[Rows], count: int, columns: np.ndarray | None) -> Rows:
    """Returns the rows of count steps, each step's from all shares in turn."""
    if len(pieces) == 1 and columns is None:
        return pieces[0]
    joined = join_rows(pieces)
    # Row (share, step, row) to (step, share, row).
    order = np.arange(len(joined.tokens)).reshape(len(pieces), count, -1).swapaxes(0, 1)
    order = order.reshape(count, -1)
    if columns is not None:
        order = order[:, columns]
    return joined.take(order.ravel())
