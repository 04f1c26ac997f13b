"""A split of a dataset directory, opened; and the source of its rows once it is complete."""

import contextlib
import dataclasses
import gc
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from shardstream.loaders.options import OrderOptions, ReadOptions
from shardstream.loaders.order.buffer import BufferOrder, geometry_for
from shardstream.loaders.order.epochs import GlobalOrder, Order, SequentialOrder, num_steps
from shardstream.loaders.row_source import NO_PROGRESS, HostBatches, Padding, Reading
from shardstream.loaders.shards.bad_records import BadRecords
from shardstream.loaders.shards.buffer_rows import buffer_chunks
from shardstream.loaders.shards.direct_rows import direct_chunks
from shardstream.loaders.shards.read_plan import ReadPlan
from shardstream.loaders.shards.reader import ShardSet
from shardstream.loaders.shards.rows import Rows
from shardstream.shard_format.keys import chain
from shardstream.shard_format.manifest import Manifest, read_manifest
from shardstream.shard_format.storage import Directory, open_directory


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenSplit:
    """A split whose shards can be read, and the order that is asked for.

    Attributes:
        directory: of the dataset.
        manifest: of the dataset.
        name: of the split.
        fingerprint: names the content, in states and orders.
        options: see OrderOptions.
        shards: of the split.
    """

    directory: Directory
    manifest: Manifest
    name: str
    fingerprint: str
    options: OrderOptions
    shards: ShardSet

    @property
    def padding(self) -> Padding:
        """How records are filled up."""
        return Padding(self.manifest.pad_id, self.manifest.packing.get("pad_side", "right"))

    @property
    def has_empty_rows(self) -> bool:
        """Whether batches may hold empty rows: in the last batch, or in place of bad records."""
        return not self.options.drop_remainder or self.shards.bad.policy == "skip"

    def waiting_for(self) -> list[str]:
        """Returns descriptions of the reads under way."""
        return [f"reading {text}" for text in self.shards.reading_now()]

    def read(self, records: np.ndarray, *, lengths: bool) -> Rows:
        """Returns records one by one, read at once."""
        rows = self.shards.make_rows(len(records), lengths=lengths)
        self.shards.read_records(records, rows, np.arange(len(records)))
        return rows

    def identity(self) -> dict[str, Any]:
        """Returns what determines the order of batches."""
        return {
            "fingerprint": self.fingerprint,
            "split": self.name,
            "shuffle": self.options.shuffle,
            "buffer_size": self.options.buffer_sequences,
            "seed": self.options.seed,
            "batch_size": self.options.batch_size,
            "drop_remainder": self.options.drop_remainder,
        }

    def check_identity(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError where a state belongs to another dataset or order."""
        follow = bool(state.get("follow"))
        if follow != self.options.follow:
            raise ValueError(
                f"the state has follow={follow}, this loader {self.options.follow}: its batches "
                f"would be others. Build the loader with follow={follow} to go on, also where the "
                "stream is complete now."
            )
        for name, mine in self.identity().items():
            if state.get(name) == mine:
                continue
            if name == "fingerprint":
                raise ValueError(
                    f"{self.directory}: the state is of a dataset with fingerprint "
                    f"{state.get(name)}, this one's is {mine}. Its batches would be others: give "
                    "the path of the dataset that the run began with."
                )
            raise ValueError(
                f"the state has {name}={state.get(name)!r}, this loader {mine!r}: its batches "
                f"would be others. Build the loader with {name}={state.get(name)!r} to go on."
            )

    def check_steps(self, num_steps: int) -> None:
        """Raises ValueError where the split doesn't fill one batch."""
        if num_steps == 0:
            raise ValueError(
                f"{self.directory}: split {self.name!r} has {self.shards.num_records} sequences, "
                f"expected at least one batch of {self.options.batch_size}. Use a smaller "
                "batch_size, or drop_remainder=False, which pads the batch."
            )


class SplitSource:
    """The rows of a complete split, in the order that the options ask for; see RowSource.

    Args:
        path: dataset directory.
        split: "train" or "validation".
        order: see OrderOptions.
        read: see ReadOptions.

    Raises:
        FileNotFoundError: no dataset there.
        ValueError: it is incomplete, has no such split, or not one whole batch.
    """

    def __init__(
        self, path: str | os.PathLike[str], split: str, order: OrderOptions, read: ReadOptions
    ) -> None:
        directory = open_directory(path)
        with _no_collection():
            manifest = read_manifest(directory)
        self.split = OpenSplit(
            directory=directory,
            manifest=manifest,
            name=split,
            fingerprint=manifest.fingerprint,
            options=order,
            shards=ShardSet(directory, manifest, manifest.shards_of(split), read),
        )
        self.order = _order_of(self.split)
        self.split.check_steps(self.steps_per_epoch)

    @property
    def padding(self) -> Padding:
        """See RowSource."""
        return self.split.padding

    @property
    def has_empty_rows(self) -> bool:
        """See RowSource."""
        return self.split.has_empty_rows

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch."""
        return num_steps(self.order, drop_remainder=self.split.options.drop_remainder)

    @property
    def num_steps(self) -> int | None:
        """Batches of all epochs; None where there is no end."""
        epochs = self.split.options.epochs
        return None if epochs is None else epochs * self.steps_per_epoch

    @property
    def bad(self) -> tuple[BadRecords, ...]:
        """See RowSource."""
        return (self.split.shards.bad,)

    def epoch_of(self, step: int) -> int:
        """Returns the epoch that a step belongs to, from 0."""
        return step // self.steps_per_epoch

    def buffer_bytes(self, rows: np.ndarray, *, lengths: bool) -> int:
        """Returns the memory that a host with those rows needs for the shuffle buffer."""
        if not isinstance(self.order, BufferOrder):
            return 0
        geometry, layout = self.order.geometry, self.split.shards.layout
        tracks = len(np.unique(rows // geometry.rows_per_track))
        sequences = -(-geometry.capacity * tracks // geometry.tracks)
        return sequences * (layout.record_bytes if lengths else layout.tokens_bytes)

    def batches(self, reading: Reading) -> Iterator[HostBatches]:
        """See RowSource."""
        plan = ReadPlan(
            order=self.order,
            shards=self.split.shards,
            rows=reading.rows,
            epochs=self.split.options.epochs,
            drop_remainder=self.split.options.drop_remainder,
            lengths=reading.lengths,
            executor=reading.executor,
        )
        chunks = buffer_chunks if isinstance(self.order, BufferOrder) else direct_chunks
        begin = divmod(reading.step, self.steps_per_epoch)
        return (HostBatches(chunk.num_steps, chunk.rows) for chunk in chunks(plan, *begin))

    def records_at(self, step: int, rows: np.ndarray) -> np.ndarray:
        """Returns int64[B], the records in those rows of a step counted over all epochs."""
        epoch, inside = divmod(step, self.steps_per_epoch)
        return self.order.records(epoch, inside, inside + 1, rows)[0]

    def rows_at(self, step: int, rows: np.ndarray, *, lengths: bool) -> Rows:
        """See RandomAccess."""
        return self.split.read(self.records_at(step, rows), lengths=lengths)

    def identity(self, step: int) -> dict[str, Any]:
        """See RowSource; the same for every step."""
        return self.split.identity()

    def check_identity(self, state: Mapping[str, Any]) -> None:
        """See RowSource."""
        self.split.check_identity(state)

    def progress_in(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """See RowSource; the step says everything."""
        return NO_PROGRESS

    def waiting_for(self) -> list[str]:
        """See RowSource."""
        return self.split.waiting_for()

    def close(self) -> None:
        """See RowSource."""
        self.split.shards.close()


def _order_of(split: OpenSplit) -> Order:
    options, num_records = split.options, split.shards.num_records
    key = chain(int(split.fingerprint[:16], 16), options.seed)
    if options.shuffle == "none":
        return SequentialOrder(num_records, options.batch_size)
    # A buffer that holds everything (or that is too small to divide) is a permutation.
    if options.shuffle == "global" or options.buffer_sequences >= num_records:
        return GlobalOrder(num_records, options.batch_size, key)
    geometry = geometry_for(
        num_records,
        options.batch_size,
        options.buffer_sequences,
        split.shards.layout.record_bytes,
    )
    return BufferOrder(geometry, key)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Holds the garbage collector off: it would walk a large manifest's objects again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
