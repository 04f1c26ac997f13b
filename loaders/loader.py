"""`Loader`: a dataset directory as an iterator of fixed-size batches."""

import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from shardstream.loaders.delivery import Delivery
from shardstream.loaders.iterator import Batches
from shardstream.loaders.options import split_options
from shardstream.loaders.order.epochs import PADDING
from shardstream.loaders.shards.follow import FollowedPart
from shardstream.loaders.shards.part import Part
from shardstream.loaders.shards.rows import Rows


class Loader(Batches):
    """Iterates over the batches of a dataset, each a dictionary of arrays of a fixed shape.

        loader = Loader("out/", batch_size=64, seed=7)
        for batch in loader:
            batch["tokens"]  # int32[64, L]

    Args:
        path: dataset directory, as `pipelines.preprocess` writes it: a path, gs://bucket/prefix or
            s3://bucket/prefix. Shards of a store are fetched ahead of need into a cache on this
            host's disk, which all its processes share; later epochs read it alone.
        sharding: of global arrays [batch_size, L], for example NamedSharding(mesh, P("data")). Each
            process then reads the rows its devices hold, and batches are global jax.Arrays.
        process_index: this host among process_count, both JAX's own by default; without a sharding
            a host gets rows process_index * B to (process_index + 1) * B of the global batch.
        process_count: see process_index.
        **options: batch_size, shuffle, buffer_size, seed, epochs, drop_remainder, follow
            (OrderOptions); split, fields, output, token_dtype (BatchOptions); prefetch,
            read_threads, max_open_shards, verify, on_bad_record, bad_record_budget, stall_secs,
            follow_timeout_secs, cache_dir, cache_bytes, store_requests (ReadOptions).

    Guarantees: the global batch of a step depends on the dataset, shuffle, buffer_size, seed and
        batch_size only, never on hosts, threads, restarts or what was read before. Each sequence
        comes once an epoch, up to the remainder. Token ids are int32 (see token_dtype), `loss_mask`
        bool, all other fields int32. With drop_remainder=False the last batch of an epoch is filled
        with empty rows (segment 0), and `loss_mask` is added if no field asked for would show them.

    With follow=True the dataset may still be growing (`--mode stream`): batches come as shards are
    committed, the loader waits where it is ahead, and ends with the stream. The order then depends
    on the commit log instead of the whole dataset (see loaders.order.follow), so the guarantees
    hold whoever saw which shard when. A later pass is another Loader's, on the complete dataset.

    Raises:
        FileNotFoundError: there is no dataset.
        ValueError: an option is wrong, the dataset is incomplete or has no such split.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sharding: jax.sharding.Sharding | None = None,
        process_index: int | None = None,
        process_count: int | None = None,
        **options: Any,
    ) -> None:
        order, read, batch = split_options(options)
        kind = FollowedPart if order.follow else Part
        part = self._part = kind(path, batch.split, order, read)
        delivery = Delivery(
            batch_size=order.batch_size,
            sequence_length=part.manifest.sequence_length,
            sharding=sharding,
            process_index=process_index,
            process_count=process_count,
            output=batch.output,
            token_dtype=batch.token_dtype,
        )
        super().__init__([part], read, batch, delivery)

    @property
    def num_steps(self) -> int | None:
        """Batches from the very first to the last, None where there is no end (known yet)."""
        return self._part.num_steps

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch; ValueError while a stream that is followed still grows."""
        return self._part.steps_per_epoch

    @property
    def epoch(self) -> int:
        """Epoch of the next batch, from 0; a stream that is followed has one."""
        return 0 if self._part.options.follow else self._step // self.steps_per_epoch

    @property
    def sequence_length(self) -> int:
        """L, tokens of a row."""
        return self._part.manifest.sequence_length

    @property
    def buffer_bytes(self) -> int:
        """Memory of this host's part of the shuffle buffer; 0 where the order needs none."""
        geometry = getattr(self._part.order, "geometry", None)
        if geometry is None:
            return 0
        lanes = len(np.unique(self._delivery.rows // geometry.rows_per_lane))
        sequences = -(-geometry.capacity * lanes // geometry.lanes)
        layout = self._part.shards.layout
        return sequences * (layout.record_bytes if self._lengths else layout.tokens_bytes)

    def provenance(self, step: int) -> Any:
        """Returns where the rows of a batch come from: a pyarrow table, a row a document.

            row int64 (of the global batch) · shard string · record int64 · segment int32 ·
            partition int32 · source_row int64 · start int64 · tokens int32

        Sorted by row and segment; this process's rows only, empty rows left out. `partition` and
        `source_row` name the document in the source, `start` and `tokens` the part of it.

        Args:
            step: counted from 0 over all epochs.
        """
        from shardstream.loaders.shards.batch_provenance import provenance_table

        self._check_step(step)
        rows = self._delivery.rows
        records = self._part.records_at(step, rows)
        inside = records != PADDING
        return provenance_table(self._part.shards, rows=rows[inside], records=records[inside])

    def _rows_from(
        self, step: int, executor: ThreadPoolExecutor, closing: threading.Event
    ) -> Iterator[tuple[int, Rows]]:
        chunks = self._part.chunks(
            step,
            self._delivery.rows,
            epochs=self._part.options.epochs,
            lengths=self._lengths,
            executor=executor,
            closing=closing,
        )
        return ((chunk.num_steps, chunk.rows) for chunk in chunks)

    def _rows_at(self, step: int) -> Rows:
        records = self._part.records_at(step, self._delivery.rows)
        return self._part.read(records, lengths=self._lengths)

    def _identity(self) -> dict[str, Any]:
        return self._part.identity(self._step)

    def _check_identity(self, state: Mapping[str, Any]) -> None:
        self._part.check_identity(state)
