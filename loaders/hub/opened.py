"""An open stream: tokenizer, source, cache, the fingerprint of all three, and each share's plan."""

import dataclasses
import functools
import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shardstream.loaders.hub.cache import TokenCache
from shardstream.loaders.hub.catalog import Catalog, RowGroups, open_catalog
from shardstream.loaders.hub.documents import DocumentReader
from shardstream.loaders.hub.fetch import Counts, Fetcher
from shardstream.loaders.hub.options import HubStreamOptions
from shardstream.loaders.hub.order import ShareOrder
from shardstream.loaders.hub.share import SharePlan
from shardstream.loaders.hub.units import UNIT_SEQUENCES, Packer, Unit
from shardstream.shard_format.record import token_dtype_for
from shardstream.shard_format.storage.local_publish import publishing_folder
from shardstream.tokens.options import TokenizerOptions

if TYPE_CHECKING:
    from shardstream.tokens.tokenizer import Tokenizer

_ORDER_VERSION = 1  # of everything that decides which token comes when
_TEXT_BYTES_PER_TOKEN = 4
_BLOCK_BYTES = (256 << 10, 2 << 20)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """What batches are made of.

    Attributes:
        options: as given.
        shares: that batches are made of.
        tokenizer: open.
        catalog: of the source.
        cache: of tokens, if there is one.
        row_groups: of the source's files.
        fingerprint: of everything that determines the sequences.
    """

    options: HubStreamOptions
    shares: int
    tokenizer: "Tokenizer"
    catalog: Catalog
    cache: TokenCache | None
    row_groups: RowGroups
    fingerprint: str

    @property
    def lanes_per_share(self) -> int:
        """Partitions that a share reads side by side."""
        order = self.options.order
        return 1 if order.buffer_size == 0 else max(1, order.lanes // self.shares)

    @property
    def rows_per_share(self) -> int:
        """Rows that a share gives to each batch."""
        return self.options.order.batch_size // self.shares

    def reader(
        self, *, counts: Counts, stopping: threading.Event, reading: dict[int, str]
    ) -> DocumentReader:
        """Returns what reads documents, for one run of threads.

        Args:
            counts: are kept here.
            stopping: set to end waits.
            reading: is told what each thread waits for.
        """
        options = self.options
        text_bytes = UNIT_SEQUENCES * options.packing.sequence_length * _TEXT_BYTES_PER_TOKEN
        fetcher = Fetcher(
            spec=self.catalog.source.read_spec,
            tokenizer=self.tokenizer,
            seed=options.order.seed,
            block_bytes=min(max(text_bytes, _BLOCK_BYTES[0]), _BLOCK_BYTES[1]),
            options=options.fetch,
            row_groups=self.row_groups,
            counts=counts,
            encoding=threading.Semaphore(options.fetch.num_threads),
            stopping=stopping,
            reading=reading,
        )
        return DocumentReader(fetcher, self.cache)

    def share_plan(self, share: int, reader: DocumentReader) -> SharePlan:
        """Returns how a share's rows are made."""
        options, order = self.options, self.options.order
        length = options.packing.sequence_length
        dtype = token_dtype_for(self.tokenizer.vocab_size)
        packer = Packer(
            options.packing,
            token_dtype=dtype,
            pad_id=self.tokenizer.fill_id,
            eos_id=self.tokenizer.eos_id,
        )
        partitions = self.catalog.partitions

        def units_of(partition: int, passed: int) -> Iterator[Unit]:
            return packer.units(reader.documents(partitions[partition], passed))

        return SharePlan(
            order_of=functools.partial(
                ShareOrder,
                key=int(hash_of([self.fingerprint, order.seed])[:16], 16),
                share=share,
                shares=self.shares,
                num_partitions=len(partitions),
                window=order.buffer_size and max(1, order.buffer_size // self.shares),
            ),
            units_of=units_of,
            lanes=self.lanes_per_share,
            rows_per_step=self.rows_per_share,
            epochs=order.epochs,
            drop_remainder=order.drop_remainder,
            sequence_length=length,
            token_dtype=np.dtype(dtype),
            lengths_dtype=np.dtype(np.uint16 if length <= 0xFFFF else np.uint32),
            pad_id=self.tokenizer.fill_id,
        )


def open_stream(options: HubStreamOptions, shares: int) -> Opened:
    """Opens tokenizer, source and cache.

    Raises:
        ValueError: one of them can't be opened; the message says what there is.
    """
    from shardstream.tokens.tokenizer import open_tokenizer

    fetch = options.fetch
    cache_dir = None if fetch.cache_dir is None else Path(fetch.cache_dir).expanduser()
    tokenizer = open_tokenizer(_kept_tokenizer(options.tokenizer, cache_dir))
    catalog = open_catalog(
        options.source, lanes=options.order.lanes, cache_dir=cache_dir, fetch=fetch
    )
    identity = _token_identity(options, catalog, tokenizer)
    cache = None
    if cache_dir is not None:
        # The rows wanted change no row's tokens.
        rows = ("skip_documents", "max_documents")
        source = {name: v for name, v in identity["source"].items() if name not in rows}
        cache = TokenCache(cache_dir, hash_of(identity | {"source": source}), fetch.cache_bytes)
    packing = {"packing": dataclasses.asdict(options.packing), "unit_sequences": UNIT_SEQUENCES}
    return Opened(
        options=options,
        shares=shares,
        tokenizer=tokenizer,
        catalog=catalog,
        cache=cache,
        row_groups=RowGroups(cache),
        fingerprint=hash_of(identity | packing),
    )


def hash_of(value: object) -> str:
    """Returns 32 hex digits that depend on a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def _kept_tokenizer(options: TokenizerOptions, cache_dir: Path | None) -> TokenizerOptions:
    """Returns the options of the same tokenizer in the cache; puts it there the first time."""
    from shardstream.tokens.load import load_reference

    is_named = options.trust_remote_code or Path(options.tokenizer).expanduser().is_dir()
    if cache_dir is None or is_named:
        return options
    name = hash_of([options.tokenizer, options.revision, *options.tokenizer_override])
    kept = cache_dir / "shardstream-tokens" / "tokenizers" / name
    if not kept.is_dir():
        with publishing_folder(kept) as private:
            load_reference(options).save_pretrained(private)
    return dataclasses.replace(options, tokenizer=str(kept), revision=None)


def _token_identity(
    options: HubStreamOptions, catalog: Catalog, tokenizer: "Tokenizer"
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
