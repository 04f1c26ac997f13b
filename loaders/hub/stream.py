"""`stream`: a dataset of the Hub as batches, while it arrives."""

import dataclasses
import itertools
import logging
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from shardstream.loaders.delivery import Delivery
from shardstream.loaders.hub.chunks import Journal, host_chunks
from shardstream.loaders.hub.fetch import Counts
from shardstream.loaders.hub.opened import open_stream
from shardstream.loaders.hub.options import StreamOptions, stream_options
from shardstream.loaders.hub.share import START, Position, share_steps
from shardstream.loaders.iterator import Batches
from shardstream.loaders.options import ReadOptions
from shardstream.loaders.shards.bad_records import BadRecords
from shardstream.loaders.shards.rows import Rows

_log = logging.getLogger("shardstream.loaders")

_EXTRA = "pip install 'shardstream[hub]'"


def stream(
    dataset: str,
    *,
    tokenizer: str,
    sharding: jax.sharding.Sharding | None = None,
    process_index: int | None = None,
    process_count: int | None = None,
    **options: Any,
) -> "HubStream":
    """Streams a Hugging Face dataset into batches, without a pipeline and without shards.

        batches = loaders.stream("HuggingFaceFW/fineweb-edu", tokenizer="openai-community/gpt2",
                                 batch_size=64, sequence_length=2048)
        for batch in batches:
            batch["tokens"]  # int32[64, 2048]

    Args:
        dataset: hub name, local directory, or "parquet", "json", "csv", "text" with data_files.
        tokenizer: hub name or directory.
        sharding: as in `Loader`.
        process_index: as in `Loader`.
        process_count: as in `Loader`.
        **options: config, split, data_files, revision, text_column, text_template, skip_documents,
            max_documents (SourceOptions); tokenizer_revision, engine, add_bos, add_eos,
            special_tokens_in_text, audit_every (TokenizerOptions); packing, sequence_length,
            truncation, pad_side, keep_eos (PackingOptions); batch_size, shuffle_buffer, seed,
            epochs, drop_remainder, lanes, shares (StreamOrderOptions); prefetch, threads, retries,
            retry_secs, cache_dir, cache_bytes, stall_secs (FetchOptions); fields, output
            (BatchOptions).

    Guarantees: as of HubStream.

    Raises:
        ImportError: datasets or transformers is missing.
        TypeError: an unknown option.
        ValueError: an option is wrong, or the dataset or tokenizer can't be opened.
    """
    try:
        import datasets  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise ImportError(f"loaders.stream needs {error.name}: {_EXTRA}") from error
    parsed = stream_options(dataset, tokenizer, options)
    return HubStream(
        parsed, sharding=sharding, process_index=process_index, process_count=process_count
    )


class HubStream(Batches):
    """Iterates over batches of a stream; made by `stream`.

    Guarantees: the global batch of a step depends on the source's commit, the tokenizer, packing,
        seed, batch_size, shuffle_buffer, lanes and shares only, never on threads, faults, the
        cache or restarts; nor on the number of hosts where `shares` is given. Every document comes
        once an epoch, dead ones counted in `stats()`, up to the remainder. A state is a position in
        a few numbers; going back to it reads at most `shuffle_buffer` sequences and a unit a lane
        again. Arrays are as those of `Loader`.

    `skip` reads what it passes over: only the documents say where a batch ends. With several shares
    and finite epochs, a share that has ended gives empty rows (segment 0, `loss_mask` False) until
    the others have, too.
    """

    def __init__(
        self,
        options: StreamOptions,
        *,
        sharding: jax.sharding.Sharding | None,
        process_index: int | None,
        process_count: int | None,
    ) -> None:
        order = options.order
        shares = _num_shares(options, process_count)
        delivery = Delivery(
            batch_size=order.batch_size,
            sequence_length=options.packing.sequence_length,
            sharding=sharding,
            process_index=process_index,
            process_count=process_count,
            output=options.batch.output,
            token_dtype=options.batch.token_dtype,
        )
        own = np.unique(delivery.rows // (order.batch_size // shares)).tolist()
        if order.epochs is not None and len(own) < shares:
            raise ValueError(
                f"epochs is {order.epochs}, expected None where each host reads a share of its "
                "own: none knows when the others' documents end. Leave by a number of steps, or "
                "take shares=1, with which every host reads everything."
            )
        self._options, self._own_shares = options, own
        self._opened = open_stream(options, shares)
        self._counts = Counts()
        self._journal = Journal(dict.fromkeys(self._own_shares, START))
        self._part = _Part(
            options, self._opened.tokenizer.fill_id, may_pad=shares > 1 and order.epochs is not None
        )
        self._num_steps: int | None = None
        read = ReadOptions(
            prefetch=options.fetch.prefetch,
            stall_secs=options.fetch.stall_secs,
            read_threads=(self._opened.lanes_per_share + 2) * len(own),
        )
        super().__init__([self._part], read, options.batch, delivery)

    # What users ask.

    @property
    def sequence_length(self) -> int:
        """L, tokens of a row."""
        return self._options.packing.sequence_length

    @property
    def epoch(self) -> int:
        """Epoch of the next batch, from 0, where it was read; of the share furthest behind."""
        return min(position.epoch for position in self._journal.at(self._step).values())

    @property
    def commit(self) -> str:
        """The pinned commit of the source, or a hash of its files."""
        return self._opened.catalog.source.commit

    @property
    def num_steps(self) -> int | None:
        """Batches from the very first to the last, None before the end was met."""
        return self._num_steps

    def stats(self) -> dict[str, int]:
        """Returns counts of what was read so far, ahead of the caller and after set_state again.

        Names: documents, tokens, failed_reads, and dead_letters/REASON of what became no tokens.
        """
        return self._counts.as_dict()

    def take(self, count: int) -> Iterator[dict[str, Any]]:
        """Yields the next batches, at most count of them."""
        return itertools.islice(self, count)

    def batch_at(self, step: int) -> dict[str, Any]:
        """Not possible: what a step holds depends on all documents before it."""
        raise NotImplementedError(
            f"batch_at({step}): a stream has no random access; set_state() goes back to a state, "
            "skip() goes on, and a dataset directory (pipelines.preprocess) has it"
        )

    # State.

    def get_state(self) -> dict[str, Any]:
        """Returns the position after the last batch received, as plain JSON values."""
        positions = self._journal.at(self._step)
        shares = {str(share): position.to_json() for share, position in positions.items()}
        return super().get_state() | {"positions": shares}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes to the position of a state.

        Cost: reads at most shuffle_buffer sequences and a unit a lane again; for shares that the
        state has no position of (it was taken by another host), everything up to its step.

        Raises:
            ValueError: the state is of another source, order or version.
        """
        super().set_state(state)
        self._stop()
        found = {
            share: Position.from_json(state["positions"][str(share)])
            for share in self._own_shares
            if str(share) in state["positions"]
        }
        missing = [share for share in self._own_shares if share not in found]
        if missing and state["step"]:
            _log.warning(
                "the state has no position of share %s: reading from the beginning up to step %d",
                missing,
                state["step"],
            )
        self._journal.reset({share: found.get(share, START) for share in self._own_shares})

    # What Batches asks.

    def __next__(self) -> dict[str, Any]:
        try:
            batch = super().__next__()
        except StopIteration:
            self._num_steps = self._step
            raise
        self._journal.at(self._step)  # forgets what lies behind
        return batch

    def _rows_from(
        self, step: int, executor: ThreadPoolExecutor, closing: threading.Event
    ) -> Iterator[tuple[int, Rows]]:
        positions = self._journal.restart(step)
        reader = self._opened.reader(
            counts=self._counts, stopping=closing, reading=self._part.shards.reading
        )
        plans = {share: self._opened.share_plan(share, reader) for share in self._own_shares}
        most = self._options.fetch.prefetch
        shares = {
            share: share_steps(plans[share], position, executor, most)
            for share, position in positions.items()
        }
        size = self._opened.rows_per_share
        held = np.concatenate([np.arange(s * size, (s + 1) * size) for s in self._own_shares])
        columns = np.searchsorted(held, self._delivery.rows)
        is_all = len(columns) == len(held)
        return host_chunks(plans, shares, None if is_all else columns, step, self._journal)

    def _identity(self) -> dict[str, Any]:
        order = self._options.order
        return {
            "fingerprint": self._opened.fingerprint,
            "seed": order.seed,
            "batch_size": order.batch_size,
            "shuffle_buffer": order.shuffle_buffer,
            "lanes": order.lanes,
            "shares": self._opened.shares,
            "drop_remainder": order.drop_remainder,
        }

    def _check_identity(self, state: Mapping[str, Any]) -> None:
        for name, mine in self._identity().items():
            if state.get(name) == mine:
                continue
            if name == "fingerprint":
                raise ValueError(
                    f"the state is of a stream with fingerprint {state.get(name)}, this one's is "
                    f"{mine}: its documents, tokenizer or packing are others. The source's commit "
                    f"is {self.commit} here; give the revision that the run began with."
                )
            raise ValueError(
                f"the state has {name}={state.get(name)!r}, this stream {mine!r}: its batches "
                f"would be others. Open the stream with {name}={state.get(name)!r} to go on."
            )


class _Part:
    """What Batches asks of the parts of a dataset directory."""

    def __init__(self, options: StreamOptions, pad_id: int, *, may_pad: bool) -> None:
        drop_remainder = options.order.drop_remainder and not may_pad
        self.options = dataclasses.replace(options.order, drop_remainder=drop_remainder)
        self.pad_id = pad_id
        self.pad_side = options.packing.pad_side
        self.shards = _Reads()

    def waiting_for(self) -> list[str]:
        """Returns what a stalled reader waits for: the reads under way."""
        return [f"reading {text}" for text in sorted(self.shards.reading.copy().values())]


class _Reads:
    """What is being read; there are no records here that could be bad."""

    def __init__(self) -> None:
        self.bad = BadRecords("raise", 0)
        self.reading: dict[int, str] = {}

    def close(self) -> None:
        """Nothing is open."""


def _num_shares(options: StreamOptions, process_count: int | None) -> int:
    count = jax.process_count() if process_count is None else process_count
    shares = count if options.order.shares is None else options.order.shares
    if options.order.batch_size % shares:
        raise ValueError(
            f"batch_size is {options.order.batch_size}, expected a multiple of {shares} (shares, "
            "process_count by default): every share gives a batch as many rows as the others"
        )
    return shares
