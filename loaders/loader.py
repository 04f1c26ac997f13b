"""`Loader`: a dataset directory as an iterator of fixed-size batches."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax

from shardstream.loaders.delivery import HostDelivery
from shardstream.loaders.fields import FieldName, FieldSet
from shardstream.loaders.iterator import BatchIterator
from shardstream.loaders.keywords import check_keywords
from shardstream.loaders.options import (
    BadRecordPolicy,
    BatchOptions,
    OrderOptions,
    Output,
    ReadOptions,
    Shuffle,
    Split,
    TokenDtype,
    Verification,
    pick,
)
from shardstream.loaders.order.epochs import PADDING
from shardstream.loaders.shards.follow import FollowedSource
from shardstream.loaders.shards.split import SplitSource

if TYPE_CHECKING:
    import pyarrow as pa


class Loader(BatchIterator[SplitSource | FollowedSource]):
    """Iterates over the batches of a dataset, each a dictionary of arrays of a fixed shape.

        loader = Loader("out/", batch_size=64, seed=7)
        for batch in loader:
            batch["tokens"]  # int32[64, L]

    Args:
        path: dataset directory, as `pipelines.preprocess` writes it: a path, gs://bucket/prefix or
            s3://bucket/prefix. Shards of a store are fetched ahead of need into a cache on this
            host's disk, which all its processes share; later epochs read it alone.
        batch_size: see OrderOptions, as for shuffle, buffer_size, seed, epochs, drop_remainder and
            follow.
        shuffle: see OrderOptions.
        buffer_size: see OrderOptions.
        seed: see OrderOptions.
        epochs: see OrderOptions.
        drop_remainder: see OrderOptions.
        follow: see OrderOptions.
        split: see BatchOptions, as for fields, output and token_dtype.
        fields: see BatchOptions.
        output: see BatchOptions.
        token_dtype: see BatchOptions.
        sharding: of global arrays [batch_size, L], for example NamedSharding(mesh, P("data")). Each
            process then reads the rows its devices hold, and batches are global jax.Arrays.
        process_index: this host among process_count, both JAX's own by default; without a sharding
            a host gets rows process_index * B to (process_index + 1) * B of the global batch.
        process_count: see process_index.
        read_threads: see ReadOptions, as for all that follow.
        prefetch: see ReadOptions.
        max_open_shards: see ReadOptions.
        verify: see ReadOptions.
        on_bad_record: see ReadOptions.
        bad_record_budget: see ReadOptions.
        stall_secs: see ReadOptions.
        cache_dir: see ReadOptions.
        cache_bytes: see ReadOptions.
        store_requests: see ReadOptions.
        follow_timeout_secs: see ReadOptions.

    Guarantees: the global batch of a step depends on the dataset, shuffle, buffer_size, seed and
        batch_size only, never on hosts, threads, restarts or what was read before. Each sequence
        comes once an epoch, up to the remainder. Token ids are int32 (see token_dtype), `loss_mask`
        bool, all other fields int32. With drop_remainder=False the last batch of an epoch is filled
        with empty rows (segment 0), and `loss_mask` is added if no field asked for would show them.

    With follow=True the dataset may still be growing (`--mode stream`): batches come as shards are
    committed, the loader waits where it is ahead, and ends with the stream. The order then depends
    on the commit log instead of the whole dataset (see loaders.order.follow), so the guarantees
    hold on every host, whenever it saw a shard. A later pass needs another Loader, on the complete
    dataset.

    Raises:
        FileNotFoundError: there is no dataset.
        TypeError: an option doesn't exist; the message names the nearest.
        ValueError: an option is wrong, the dataset is incomplete or has no such split.
    """

    @check_keywords("Loader")
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        batch_size: int,
        shuffle: Shuffle = "buffer",
        buffer_size: int | None = None,
        seed: int = 0,
        epochs: int | None = 1,
        drop_remainder: bool = True,
        follow: bool = False,
        split: Split = "train",
        fields: Sequence[FieldName] | FieldName | FieldSet = ("tokens",),
        output: Output = "jax",
        token_dtype: TokenDtype = "int32",
        sharding: jax.sharding.Sharding | None = None,
        process_index: int | None = None,
        process_count: int | None = None,
        read_threads: int = 2,
        prefetch: int = 16,
        max_open_shards: int = 4096,
        verify: Verification = "size",
        on_bad_record: BadRecordPolicy = "raise",
        bad_record_budget: int = 100,
        stall_secs: float = 5.0,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_bytes: int | None = None,
        store_requests: int = 16,
        follow_timeout_secs: float = 600.0,
    ) -> None:
        given = locals()  # a test holds these names and defaults to those of the dataclasses
        order = pick(OrderOptions, given)
        read = pick(ReadOptions, given)
        batch = pick(BatchOptions, given)
        kind = FollowedSource if order.follow else SplitSource
        source = kind(path, batch.split, order, read)
        delivery = HostDelivery(
            batch_size=order.batch_size,
            sequence_length=source.split.manifest.sequence_length,
            sharding=sharding,
            process_index=process_index,
            process_count=process_count,
            output=batch.output,
            token_dtype=batch.token_dtype,
        )
        super().__init__(
            source,
            delivery,
            fields=batch.fields,
            read_threads=read.read_threads,
            prefetch=read.prefetch,
            stall_secs=read.stall_secs,
        )

    def __repr__(self) -> str:
        split = self.source.split
        order = split.options
        return (
            f"Loader({str(split.directory)!r}, split={split.name!r}, "
            f"batch_size={order.batch_size}, shuffle={order.shuffle!r}, seed={order.seed}, "
            f"fields={self.fields}): {self.describe_position()}"
        )

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch; ValueError while a stream that is followed still grows."""
        return self.source.steps_per_epoch

    @property
    def epoch(self) -> int:
        """Epoch of the next batch, from 0; a stream that is followed has one."""
        return self.source.epoch_of(self.step)

    @property
    def sequence_length(self) -> int:
        """L, tokens of a row."""
        return self.source.split.manifest.sequence_length

    @property
    def buffer_bytes(self) -> int:
        """Memory of this host's share of the shuffle buffer; 0 where the order needs none."""
        return self.source.buffer_bytes(self.rows, lengths=self.needs_lengths)

    def provenance(self, step: int) -> "pa.Table":
        """Returns where the rows of a batch come from, one row for each document.

            row int64 (of the global batch) · shard string · record int64 · segment int32 ·
            partition int32 · source_row int64 · start int64 · tokens int32

        Sorted by row and segment; this process's rows only, empty rows left out. `partition` and
        `source_row` name the document in the source, `start` and `tokens` the range of its tokens.

        Args:
            step: counted from 0 over all epochs.
        """
        from shardstream.loaders.shards.batch_provenance import provenance_table

        records = self.source.records_at(self.checked_step(step), self.rows)
        inside = records != PADDING
        shards = self.source.split.shards
        return provenance_table(shards, rows=self.rows[inside], records=records[inside])
