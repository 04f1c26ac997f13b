"""Where rows come from, as `loaders.iterator` sees it: two small protocols and their arguments.

An iterator knows positions, prefetch and delivery and nothing about shards, mixtures or the Hub; a
source knows rows and nothing about trainers. Every `RowSource` is iterated, saved and resumed like
a dataset directory; with `RandomAccess` it offers `batch_at` as well.
"""

import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from shardstream.loaders.shards.bad_records import BadRecords
from shardstream.loaders.shards.rows import Rows

NO_PROGRESS: Mapping[str, Any] = MappingProxyType({})


class Padding(NamedTuple):
    """The token id that sequences are filled up with, and the side ("left" or "right")."""

    pad_id: int
    pad_side: str = "right"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """One run through the rows of a source, from a step to its end.

    Attributes:
        step: the first step wanted, counted from 0 over all epochs.
        progress: the source's progress at that step or before it; see `RowSource.progress_in`.
        rows: int64[B], sorted: the rows of each global batch that this host holds.
        lengths: whether document lengths are wanted besides tokens.
        executor: runs the reads.
        closing: is set as soon as the rows aren't wanted any more.
    """

    step: int
    progress: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rows: np.ndarray
    lengths: bool
    executor: Executor
    closing: threading.Event


class HostBatches(NamedTuple):
    """This host's rows of consecutive steps.

    Attributes:
        num_steps: number of steps, n.
        rows: n * B rows, those of the first step first.
        progress: what a state of these steps holds besides the step, as JSON values.
    """

    num_steps: int
    rows: Rows
    progress: Mapping[str, Any] = NO_PROGRESS


class RowSource(Protocol):
    """Rows of global batches, in one order.

    Guarantees asked for: the rows of a step depend on the source's identity only, never on the host
    that reads them or on the step that a reading began with.
    """

    @property
    def padding(self) -> Padding:
        """How rows are filled up."""
        ...

    @property
    def has_empty_rows(self) -> bool:
        """Whether batches may hold empty rows, which a mask must show."""
        ...

    @property
    def num_steps(self) -> int | None:
        """Batches from the first to the last; None where there is no end, or none known yet."""
        ...

    @property
    def bad(self) -> Sequence[BadRecords]:
        """Counts of the records that could not be read, one for each dataset."""
        ...

    def batches(self, reading: Reading) -> Iterator[HostBatches]:
        """Yields the host's rows from `reading.step` on; called in the prefetching thread."""
        ...

    def identity(self, step: int) -> dict[str, Any]:
        """Returns what a state of that step must agree with, as JSON values."""
        ...

    def check_identity(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError where a state belongs to another source."""
        ...

    def progress_in(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns what a state says, besides its step, about where to go on.

        Sources that find any step at once need nothing. An empty state stands for the beginning.
        """
        ...

    def waiting_for(self) -> list[str]:
        """Returns descriptions of the reads and commits that a stalled reader waits for."""
        ...

    def close(self) -> None:
        """Closes files; a later read opens them again."""
        ...


@runtime_checkable
class RandomAccess(Protocol):
    """A source that reads the rows of any step at once."""

    def rows_at(self, step: int, rows: np.ndarray, *, lengths: bool) -> Rows:
        """Returns those rows of a step, counted from 0 over all epochs.

        Raises:
            IndexError: the source doesn't have that step (yet).
        """
        ...
