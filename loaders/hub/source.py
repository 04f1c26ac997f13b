"""The rows of a stream from the Hub, as `loaders.iterator` asks for them."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from shardstream.loaders.hub.chunks import host_chunks, progress_of
from shardstream.loaders.hub.fetch import Counts
from shardstream.loaders.hub.opened import Opened
from shardstream.loaders.hub.share import START, Position, share_steps
from shardstream.loaders.row_source import HostBatches, Padding, Reading
from shardstream.loaders.shards.bad_records import BadRecords

_log = logging.getLogger("shardstream.loaders")


class HubSource:
    """The rows of a stream; see RowSource. Steps are found by reading what comes before them.

    Args:
        opened: what batches are made of.
        own_shares: numbers of the shares that this host's rows belong to, ascending.

    Attributes:
        opened: as given.
        counts: of what was read so far.
    """

    def __init__(self, opened: Opened, own_shares: list[int]) -> None:
        self.opened = opened
        self.counts = Counts()
        self._own_shares = own_shares
        self._reading: dict[int, str] = {}
        self._num_steps: int | None = None

    @property
    def padding(self) -> Padding:
        """See RowSource."""
        return Padding(self.opened.tokenizer.fill_id, self.opened.options.packing.pad_side)

    @property
    def has_empty_rows(self) -> bool:
        """Whether a last batch may be padded, or one share may end before another."""
        order = self.opened.options.order
        return not order.drop_remainder or (self.opened.shares > 1 and order.epochs is not None)

    @property
    def num_steps(self) -> int | None:
        """Batches from the first to the last, None before the end was read."""
        return self._num_steps

    @property
    def bad(self) -> tuple[BadRecords, ...]:
        """Returns none: there are no records here, and documents that fail are counted."""
        return ()

    def batches(self, reading: Reading) -> Iterator[HostBatches]:
        """See RowSource."""
        reader = self.opened.reader(
            counts=self.counts, stopping=reading.closing, reading=self._reading
        )
        plans = {share: self.opened.share_plan(share, reader) for share in self._own_shares}
        most = self.opened.options.fetch.prefetch
        shares = {
            share: share_steps(plans[share], position, reading.executor, most)
            for share, position in self._positions_in(reading.progress).items()
        }
        size = self.opened.rows_per_share
        held = np.concatenate([np.arange(s * size, (s + 1) * size) for s in self._own_shares])
        columns = np.searchsorted(held, reading.rows)
        is_all = len(columns) == len(held)
        self._num_steps = yield from host_chunks(
            plans, shares, None if is_all else columns, reading.step
        )

    def identity(self, step: int) -> dict[str, Any]:
        """See RowSource; the same for every step."""
        order = self.opened.options.order
        return {
            "fingerprint": self.opened.fingerprint,
            "seed": order.seed,
            "batch_size": order.batch_size,
            "shuffle_buffer": order.buffer_size,
            "lanes": order.lanes,
            "shares": self.opened.shares,
            "drop_remainder": order.drop_remainder,
        }

    def check_identity(self, state: Mapping[str, Any]) -> None:
        """See RowSource."""
        for name, mine in self.identity(0).items():
            if state.get(name) == mine:
                continue
            if name == "fingerprint":
                raise ValueError(
                    f"the state is of a stream with fingerprint {state.get(name)}, this one's is "
                    f"{mine}: its documents, tokenizer or packing are others. The source's commit "
                    f"is {self.opened.catalog.source.commit} here; give the revision that the run "
                    "began with."
                )
            option = "buffer_size" if name == "shuffle_buffer" else name
            raise ValueError(
                f"the state has {option}={state.get(name)!r}, this stream {mine!r}: its batches "
                f"would be others. Open the stream with {option}={state.get(name)!r} to go on."
            )

    def progress_in(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the positions of this host's shares; the beginning for those that it misses."""
        positions = self._positions_in(state)
        missing = [share for share, position in positions.items() if position is START]
        if missing and state.get("step"):
            _log.warning(
                "the state has no position of share %s: reading from the beginning up to step %d",
                missing,
                state["step"],
            )
        return progress_of(positions)

    def epoch_in(self, progress: Mapping[str, Any]) -> int:
        """Returns the epoch of the share that is least far."""
        return min(position.epoch for position in self._positions_in(progress).values())

    def _positions_in(self, progress: Mapping[str, Any]) -> dict[int, Position]:
        kept = progress.get("positions", {})
        return {
            share: Position.from_json(kept[str(share)]) if str(share) in kept else START
            for share in self._own_shares
        }

    def waiting_for(self) -> list[str]:
        """See RowSource."""
        return [f"reading {text}" for text in sorted(self._reading.copy().values())]

    def close(self) -> None:
        """See RowSource; nothing is open between readings."""
