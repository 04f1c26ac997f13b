"""`stream`: a dataset of the Hub as batches, while it arrives."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import threading
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from loaders.bad_records import BadRecords
from loaders.batches import Batches
from loaders.device import Delivery
from loaders.hub.cache import TokenCache
from loaders.hub.catalog import Catalog, RowGroups, open_catalog
from loaders.hub.chunks import Journal, host_chunks
from loaders.hub.documents import Counts, DocumentReader
from loaders.hub.options import StreamOptions, stream_options
from loaders.hub.order import EpochOrder
from loaders.hub.share import START, Position, SharePlan, share_steps
from loaders.hub.units import UNIT_SEQUENCES, Packer, Unit
from loaders.options import ReadOptions
from loaders.reader import Rows
from shard_format.record import token_dtype_for

if TYPE_CHECKING:
    from tokens.tokenizer import Tokenizer

_log = logging.getLogger("shardstream.loaders")

_ORDER_VERSION = 1  # of everything that decides which token comes when
_TEXT_BYTES_PER_TOKEN = 4
_BLOCK_BYTES = (256 << 10, 2 << 20)
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

    With several shares and finite epochs, a share that has ended gives empty rows (segment 0,
    `loss_mask` False) until the others have, too.
    """

    def __init__(
        self,
        options: StreamOptions,
        *,
        sharding: jax.sharding.Sharding | None,
        process_index: int | None,
        process_count: int | None,
    ) -> None:
        from tokens.tokenizer import open_tokenizer

        order, fetch = options.order, options.fetch
        self._options = options
        self._shares = _num_shares(options, process_count)
        delivery = Delivery(
            batch_size=order.batch_size,
            sequence_length=options.packing.sequence_length,
            sharding=sharding,
            process_index=process_index,
            process_count=process_count,
            output=options.batch.output,
        )
        rows_per_share = order.batch_size // self._shares
        self._own_shares = np.unique(delivery.rows // rows_per_share).tolist()
        if order.epochs is not None and len(self._own_shares) < self._shares:
            raise ValueError(
                f"epochs is {order.epochs}, expected None where each host reads a share of its "
                "own: none knows when the others' documents end. Leave by a number of steps, or "
                "take shares=1, with which every host reads everything."
            )
        cache_dir = None if fetch.cache_dir is None else Path(fetch.cache_dir)
        self._tokenizer = open_tokenizer(kept_tokenizer(options.tokenizer, cache_dir))
        self._catalog = open_catalog(options.source, lanes=order.lanes, cache_dir=cache_dir)
        self._cache = _open_cache(options, self._catalog, self._tokenizer)
        self._row_groups = RowGroups(self._cache)
        self._fingerprint = _hash(_text_identity(options, self._catalog, self._tokenizer))
        self._counts = Counts()
        self._journal = Journal(dict.fromkeys(self._own_shares, START))
        self._part = _Part(options, self._tokenizer.fill_id, may_pad=self._shares > 1)
        self._stopping = threading.Event()
        read = ReadOptions(
            prefetch=fetch.prefetch,
            stall_secs=fetch.stall_secs,
            read_threads=(self._lanes_per_share + 2) * len(self._own_shares),
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
        positions = self._journal.at(self._step)
        return (
            next(iter(positions.values())).epoch if positions else self._options.order.epochs or 0
        )

    @property
    def commit(self) -> str:
        """The pinned commit of the source, or a hash of its files."""
        return self._catalog.source.commit

    def stats(self) -> dict[str, int]:
        """Returns counts of what was read so far, ahead of the caller and after set_state again.

        Names: documents, tokens, retries, and dead_letters/REASON of what became no tokens.
        """
        return self._counts.as_dict()

    def take(self, count: int) -> Iterator[dict[str, Any]]:
        """Yields the next batches, at most count of them."""
        return itertools.islice(self, count)

    def skip(self, count: int) -> None:
        """Passes over the next count batches. They are read: only documents say where they end."""
        super().skip(count)

    def batch_at(self, step: int) -> dict[str, Any]:
        """Not possible: what a step holds depends on all documents before it."""
        raise NotImplementedError(
            f"batch_at({step}): a stream has no random access; set_state() goes back to a state, "
            "skip() goes on, and a dataset directory (pipelines.preprocess) has it"
        )

    def __len__(self) -> int:
        raise TypeError("a stream doesn't know its number of batches before its end")

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
        batch = super().__next__()
        self._journal.at(self._step)  # forgets what lies behind
        return batch

    def _rows_from(self, step: int, executor: ThreadPoolExecutor) -> Iterator[tuple[int, Rows]]:
        self._stopping = threading.Event()
        weakref.finalize(self, self._stopping.set)
        positions = self._journal.restart(step)
        plans = {share: self._share_plan(share) for share in self._own_shares}
        shares = {
            share: share_steps(
                plans[share], positions[share], executor, self._options.fetch.prefetch
            )
            for share in positions
        }
        size = self._options.order.batch_size // self._shares
        held = np.concatenate([np.arange(s * size, (s + 1) * size) for s in self._own_shares])
        columns = np.searchsorted(held, self._delivery.rows)
        is_all = len(columns) == len(held)
        return host_chunks(plans, shares, None if is_all else columns, step, self._journal)

    def _identity(self) -> dict[str, Any]:
        order = self._options.order
        return {
            "fingerprint": self._fingerprint,
            "seed": order.seed,
            "batch_size": order.batch_size,
            "shuffle_buffer": order.shuffle_buffer,
            "lanes": order.lanes,
            "shares": self._shares,
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

    def _stop(self) -> None:
        self._stopping.set()
        super()._stop()

    @property
    def _lanes_per_share(self) -> int:
        order = self._options.order
        return 1 if order.shuffle_buffer == 0 else max(1, order.lanes // self._shares)

    def _share_plan(self, share: int) -> SharePlan:
        options, order = self._options, self._options.order
        window = order.shuffle_buffer and max(1, order.shuffle_buffer // self._shares)
        length = options.packing.sequence_length
        dtype = token_dtype_for(self._tokenizer.vocab_size)
        packer = Packer(
            options.packing,
            token_dtype=dtype,
            pad_id=self._tokenizer.fill_id,
            eos_id=self._tokenizer.eos_id,
        )
        reader = self._reader()
        partitions = self._catalog.partitions

        def units_of(partition: int, passed: int) -> Iterator[Unit]:
            return packer.units(reader.documents(partitions[partition], passed))

        return SharePlan(
            order_of=functools.partial(
                _epoch_order,
                key=int(_hash([self._fingerprint, order.seed])[:16], 16),
                share=share,
                shares=self._shares,
                num_partitions=len(partitions),
                window=window,
            ),
            units_of=units_of,
            lanes=self._lanes_per_share,
            rows_per_step=order.batch_size // self._shares,
            epochs=order.epochs,
            drop_remainder=order.drop_remainder,
            sequence_length=length,
            token_dtype=np.dtype(dtype),
            lengths_dtype=np.dtype(np.uint16 if length <= 0xFFFF else np.uint32),
            pad_id=self._tokenizer.fill_id,
        )

    def _reader(self) -> DocumentReader:
        options = self._options
        text_bytes = UNIT_SEQUENCES * options.packing.sequence_length * _TEXT_BYTES_PER_TOKEN
        return DocumentReader(
            spec=self._catalog.source.read_spec,
            tokenizer=self._tokenizer,
            seed=options.order.seed,
            block_bytes=min(max(text_bytes, _BLOCK_BYTES[0]), _BLOCK_BYTES[1]),
            fetch=options.fetch,
            cache=self._cache,
            row_groups=self._row_groups,
            counts=self._counts,
            encoding=threading.Semaphore(options.fetch.num_threads),
            stopping=self._stopping,
            reading=self._part.shards.reading,
        )


class _Part:
    """What Batches asks of the parts of a dataset directory."""

    def __init__(self, options: StreamOptions, pad_id: int, *, may_pad: bool) -> None:
        drop_remainder = options.order.drop_remainder and not may_pad
        self.options = dataclasses.replace(options.order, drop_remainder=drop_remainder)
        self.pad_id = pad_id
        self.pad_side = options.packing.pad_side
        self.shards = _Reads()


class _Reads:
    """What is being read; documents that can't be read are counted elsewhere."""

    def __init__(self) -> None:
        self.bad = BadRecords("raise", 0)
        self.reading: dict[int, str] = {}

    def reading_now(self) -> list[str]:
        """Returns what threads wait for."""
        return sorted(self.reading.copy().values())

    def close(self) -> None:
        """Nothing is open."""


def _epoch_order(epoch: int, **order: int) -> EpochOrder:
    return EpochOrder(epoch=epoch, **order)


def _num_shares(options: StreamOptions, process_count: int | None) -> int:
    count = jax.process_count() if process_count is None else process_count
    shares = count if options.order.shares is None else options.order.shares
    if options.order.batch_size % shares:
        raise ValueError(
            f"batch_size is {options.order.batch_size}, expected a multiple of {shares} (shares, "
            "process_count by default): every share gives a batch as many rows as the others"
        )
    return shares


def kept_tokenizer(options: Any, cache_dir: Path | None) -> Any:
    """Returns the options of the same tokenizer in the cache; puts it there the first time."""
    from tokens.load import load_reference

    if cache_dir is None or Path(options.tokenizer).expanduser().is_dir():
        return options
    name = _hash([options.tokenizer, options.revision])
    kept = cache_dir / "shardstream-tokens" / "tokenizers" / name
    if not kept.is_dir():
        incoming = kept.with_name(f".{name}.{threading.get_ident()}.incoming")
        load_reference(options).save_pretrained(incoming)
        with contextlib.suppress(OSError):  # another process was quicker
            incoming.rename(kept)
    return dataclasses.replace(options, tokenizer=str(kept), revision=None)


def _open_cache(
    options: StreamOptions, catalog: Catalog, tokenizer: "Tokenizer"
) -> TokenCache | None:
    fetch = options.fetch
    if fetch.cache_dir is None:
        return None
    identity = _token_identity(options, catalog, tokenizer)
    for name in ("skip_documents", "max_documents"):  # the rows wanted change no row's tokens
        identity["source"].pop(name)
    return TokenCache(fetch.cache_dir, _hash(identity), fetch.cache_bytes)


def _token_identity(
    options: StreamOptions, catalog: Catalog, tokenizer: "Tokenizer"
) -> dict[str, Any]:
    """Returns what determines the tokens of each document."""
    return {
        "version": _ORDER_VERSION,
        "source": catalog.identity(),
        "tokenizer": tokenizer.fingerprint,
        "bos_id": tokenizer.bos_id if options.tokenizer.add_bos else None,
        "eos_id": tokenizer.eos_id if options.tokenizer.add_eos else None,
        "special_tokens_in_text": options.tokenizer.special_tokens_in_text,
    }


def _text_identity(
    options: StreamOptions, catalog: Catalog, tokenizer: "Tokenizer"
) -> dict[str, Any]:
    """Returns what determines the sequences."""
    identity = _token_identity(options, catalog, tokenizer)
    identity["packing"] = dataclasses.asdict(options.packing)
    identity["unit_sequences"] = UNIT_SEQUENCES
    return identity


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
