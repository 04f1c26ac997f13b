"""`Mixture`: several datasets in given proportions, with one exact, resumable order."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Literal

import jax

from shardstream.loaders.delivery import HostDelivery
from shardstream.loaders.fields import FieldName, FieldSet
from shardstream.loaders.integers import whole
from shardstream.loaders.iterator import BatchIterator
from shardstream.loaders.keywords import check_keywords
from shardstream.loaders.mixture_source import MixtureSource
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
    check_choice,
    pick,
)
from shardstream.loaders.order.mixing import Schedule
from shardstream.loaders.shards.split import SplitSource

Stop = Literal["never", "first", "all"]

_REPEATS = "a mixture has no {}, since its components repeat: give stop= instead"
_NOT_HERE = {
    "epochs": _REPEATS.format("epochs"),
    "drop_remainder": _REPEATS.format("drop_remainder"),
    "follow": (
        "a mixture can't follow a stream that grows: its components repeat, which takes their "
        "ends. Follow one with Loader(path, follow=True), or mix them once complete."
    ),
}


class Mixture(BatchIterator[MixtureSource]):
    """Iterates over batches whose rows come from several datasets.

    Args:
        paths: dataset directories of one sequence length and tokenizer.
        weights: of each, in rows; their ratio counts.
        stop: "never" repeats every component; "first" ends before a component would repeat; "all"
            ends when every component was seen whole.
        batch_size: as of Loader.
        shuffle: as of Loader.
        buffer_size: as of Loader; it is divided among the components by weight.
        seed: as of Loader.
        split: as of Loader.
        fields: as of Loader.
        output: as of Loader.
        token_dtype: as of Loader.
        sharding: as of Loader.
        process_index: as of Loader.
        process_count: as of Loader.
        read_threads: as of Loader.
        prefetch: as of Loader.
        max_open_shards: as of Loader.
        verify: as of Loader.
        on_bad_record: as of Loader.
        bad_record_budget: as of Loader.
        stall_secs: as of Loader.
        cache_dir: as of Loader.
        cache_bytes: as of Loader.
        store_requests: as of Loader.

    Guarantees: those of Loader. In each batch, each component's rows are within one (two for more
        than two components) of its share; every row draws from a component within one of its share
        of any stretch of steps.

    Raises:
        TypeError: an option doesn't exist; `epochs` and `drop_remainder` don't, since components
            repeat and batches are whole.
        ValueError: components don't fit together, or an option is wrong.
    """

    @check_keywords("Mixture", gone=_NOT_HERE)
    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        weights: Sequence[float],
        stop: Stop = "never",
        batch_size: int,
        shuffle: Shuffle = "buffer",
        buffer_size: int | None = None,
        seed: int = 0,
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
    ) -> None:
        given = locals()  # a test holds these names and defaults to those of the dataclasses
        order = pick(OrderOptions, given)
        read = pick(ReadOptions, given)
        batch = pick(BatchOptions, given)
        check_choice("stop", stop, Stop)
        if len(paths) != len(weights):
            raise ValueError(
                f"{len(paths)} paths and {len(weights)} weights, expected as many of each"
            )
        schedule = Schedule(weights)
        components = [
            SplitSource(path, batch.split, _with_share(order, count / schedule.period), read)
            for path, count in zip(paths, schedule.counts, strict=True)
        ]
        delivery = HostDelivery(
            batch_size=order.batch_size,
            sequence_length=components[0].split.manifest.sequence_length,
            sharding=sharding,
            process_index=process_index,
            process_count=process_count,
            output=batch.output,
            token_dtype=batch.token_dtype,
        )
        super().__init__(
            MixtureSource(components, schedule, order.batch_size, stop),
            delivery,
            fields=batch.fields,
            read_threads=read.read_threads,
            prefetch=read.prefetch,
            stall_secs=read.stall_secs,
        )

    def __repr__(self) -> str:
        splits = [component.split for component in self.source.components]
        order = splits[0].options
        return (
            f"Mixture({[str(split.directory) for split in splits]}, "
            f"weights={tuple(self.source.schedule.counts)}, split={splits[0].name!r}, "
            f"batch_size={order.batch_size}, shuffle={order.shuffle!r}, seed={order.seed}, "
            f"fields={self.fields}): {self.describe_position()}"
        )

    def epochs_at(self, step: int) -> list[float]:
        """Returns how many epochs of each component the batches before a step drew."""
        return self.source.epochs_at(whole("step", step, least=0))


def _with_share(order: OrderOptions, share: float) -> OrderOptions:
    buffer_size = max(order.batch_size, round(order.buffer_sequences * share))
    return dataclasses.replace(order, buffer_size=buffer_size, epochs=None)
