"""One split of one dataset, opened for reading in one order: what Loader and Mixture stand on."""

import contextlib
import gc
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np
from shardstream.loaders.options import OrderOptions, ReadOptions
from shardstream.loaders.order.buffer import BufferOrder, geometry_for
from shardstream.loaders.order.epochs import GlobalOrder, Order, SequentialOrder, chain, num_steps
from shardstream.loaders.shards.buffer_rows import buffer_chunks
from shardstream.loaders.shards.direct_rows import direct_chunks
from shardstream.loaders.shards.reader import ShardSet
from shardstream.loaders.shards.rows import Rows
from shardstream.loaders.shards.source import Chunk, Source
from shardstream.shard_format.manifest import read_manifest
from shardstream.shard_format.storage import open_directory


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


class Part:
    """A split and the order of its batches.

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
        self.directory = open_directory(path)
        with _no_collection():
            self.manifest = read_manifest(self.directory)
        self.fingerprint = self.manifest.fingerprint
        self.split = split
        self.options = order
        self.shards = ShardSet(self.directory, self.manifest, self.manifest.shards_of(split), read)
        self.order = self._make_order()
        if self.steps_per_epoch == 0:
            raise ValueError(self._too_few())

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch."""
        return num_steps(self.order, drop_remainder=self.options.drop_remainder)

    @property
    def num_steps(self) -> int | None:
        """Batches of all epochs; None where there is no end."""
        epochs = self.options.epochs
        return None if epochs is None else epochs * self.steps_per_epoch

    @property
    def pad_id(self) -> int:
        """What padding is filled with."""
        return self.manifest.pad_id

    @property
    def pad_side(self) -> str:
        """Where padding stands in a record."""
        return self.manifest.packing.get("pad_side", "right")

    def waiting_for(self) -> list[str]:
        """Returns what a stalled reader waits for: the reads under way."""
        return [f"reading {text}" for text in self.shards.reading_now()]

    def _too_few(self) -> str:
        return (
            f"{self.directory}: split {self.split!r} has {self.shards.num_records} sequences, "
            f"expected at least one batch of {self.options.batch_size}. Use a smaller batch_size, "
            "or drop_remainder=False, which pads the batch."
        )

    def _make_order(self) -> Order:
        options, num_records = self.options, self.shards.num_records
        key = chain(int(self.fingerprint[:16], 16), options.seed)
        if options.shuffle == "none":
            return SequentialOrder(num_records, options.batch_size)
        # A buffer that holds everything (or that is too small to divide) is a permutation.
        if options.shuffle == "global" or options.buffer_sequences >= num_records:
            return GlobalOrder(num_records, options.batch_size, key)
        geometry = geometry_for(
            num_records,
            options.batch_size,
            options.buffer_sequences,
            self.shards.layout.record_bytes,
        )
        return BufferOrder(geometry, key)

    def chunks(
        self,
        step: int,
        rows: np.ndarray,
        *,
        epochs: int | None,
        lengths: bool,
        executor: Executor,
        closing: threading.Event,
    ) -> Iterator[Chunk]:
        """Yields host batches from a step on, counted over all epochs.

        Args:
            step: the first.
            rows: of this host.
            epochs: None for no end.
            lengths: read document lengths too.
            executor: for reads.
            closing: set when nobody wants the chunks any more, for parts that wait for data.
        """
        del closing
        source = Source(
            order=self.order,
            shards=self.shards,
            rows=rows,
            epochs=epochs,
            drop_remainder=self.options.drop_remainder,
            lengths=lengths,
            executor=executor,
        )
        read = buffer_chunks if isinstance(self.order, BufferOrder) else direct_chunks
        return read(source, *divmod(step, self.steps_per_epoch))

    def records_at(self, step: int, rows: np.ndarray) -> np.ndarray:
        """Returns int64[B], the records in those rows of a step counted over all epochs."""
        epoch, inside = divmod(step, self.steps_per_epoch)
        return self.order.records(epoch, inside, inside + 1, rows)[0]

    def read(self, records: np.ndarray, *, lengths: bool) -> Rows:
        """Returns records one by one, read at once."""
        rows = self.shards.make_rows(len(records), lengths=lengths)
        self.shards.read_records(records, rows, np.arange(len(records)))
        return rows

    def identity(self, step: int) -> dict[str, Any]:
        """Returns what a state of that step must agree in: dataset and order."""
        del step
        return self._order_identity()

    def _order_identity(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "split": self.split,
            "shuffle": self.options.shuffle,
            "buffer_size": self.options.buffer_sequences,
            "seed": self.options.seed,
            "batch_size": self.options.batch_size,
            "drop_remainder": self.options.drop_remainder,
        }

    def check_identity(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError where a state belongs to another dataset or order."""
        if bool(state.get("follow")) != self.options.follow:
            raise ValueError(
                f"the state has follow={bool(state.get('follow'))}, this loader "
                f"{self.options.follow}: its batches would be others. Build the loader with "
                f"follow={bool(state.get('follow'))} to go on, also where the stream is complete "
                "now."
            )
        for name, mine in self._order_identity().items():
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
