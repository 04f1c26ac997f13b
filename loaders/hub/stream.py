"""`stream`: a dataset of the Hub as batches, while it arrives."""

import itertools
import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import jax
import numpy as np

from shardstream.loaders.delivery import HostDelivery
from shardstream.loaders.fields import FieldName, FieldSet
from shardstream.loaders.hub.opened import open_stream
from shardstream.loaders.hub.options import (
    Engine,
    HubStreamOptions,
    PackingName,
    PadSide,
    SpecialTokens,
    Truncation,
    hub_stream_options,
)
from shardstream.loaders.hub.source import HubSource
from shardstream.loaders.integers import whole
from shardstream.loaders.iterator import BatchIterator
from shardstream.loaders.keywords import check_keywords
from shardstream.loaders.options import Output, TokenDtype

if TYPE_CHECKING:
    from shardstream.loaders.fields import Batch

_PACKAGES = ("datasets", "transformers")
_EXTRA = "pip install 'shardstream[hub]'"
_NOT_HERE = {
    "shuffle_buffer": (
        "a stream has no option shuffle_buffer any more: it is buffer_size, as in Loader"
    )
}


@check_keywords("stream", gone=_NOT_HERE)
def stream(
    dataset: str,
    *,
    tokenizer: str,
    batch_size: int,
    config: str | None = None,
    split: str = "train",
    data_dir: str | None = None,
    data_files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    revision: str | None = None,
    text_column: str = "text",
    text_template: str | None = None,
    skip_documents: int = 0,
    max_documents: int | None = None,
    max_document_mb: int = 256,
    reader_option: str | Sequence[str] = (),
    tokenizer_revision: str | None = None,
    engine: Engine = "auto",
    add_bos: bool = False,
    add_eos: bool = True,
    special_tokens_in_text: SpecialTokens = "encode",
    audit_every: int = 1000,
    tokenizer_override: str | Sequence[str] = (),
    trust_remote_code: str | None = None,
    packing: PackingName = "concat",
    sequence_length: int = 2048,
    truncation: Truncation = "auto",
    pad_side: PadSide = "right",
    keep_eos: bool = False,
    buffer_size: int = 10_000,
    seed: int = 0,
    epochs: int | None = 1,
    drop_remainder: bool = True,
    lanes: int = 16,
    shares: int | None = None,
    fields: Sequence[FieldName] | FieldName | FieldSet = ("tokens",),
    output: Output = "jax",
    token_dtype: TokenDtype = "int32",
    sharding: jax.sharding.Sharding | None = None,
    process_index: int | None = None,
    process_count: int | None = None,
    prefetch: int = 16,
    threads: int | None = None,
    retries: int = 6,
    retry_secs: float = 0.5,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_bytes: int = 20 << 30,
    stall_secs: float = 5.0,
) -> "HubStream":
    """Streams a Hugging Face dataset into batches, without a pipeline and without shards.

        batches = loaders.stream("HuggingFaceFW/fineweb-edu", tokenizer="openai-community/gpt2",
                                 batch_size=64, sequence_length=2048)
        for batch in batches:
            batch["tokens"]  # int32[64, 2048]

    Args:
        dataset: hub name, local directory, or "parquet", "json", "csv", "text" with data_files.
        tokenizer: hub name or directory.
        batch_size: see HubOrderOptions.
        config: see SourceOptions, as for all up to reader_option.
        split: see SourceOptions.
        data_dir: see SourceOptions.
        data_files: see SourceOptions; one path or several.
        revision: see SourceOptions.
        text_column: see SourceOptions.
        text_template: see SourceOptions.
        skip_documents: see SourceOptions.
        max_documents: see SourceOptions.
        max_document_mb: see SourceOptions.
        reader_option: see SourceOptions; one setting or several.
        tokenizer_revision: the tokenizer's commit, tag or branch; `revision` is the dataset's.
        engine: see TokenizerOptions, as for all up to trust_remote_code.
        add_bos: see TokenizerOptions.
        add_eos: see TokenizerOptions.
        special_tokens_in_text: see TokenizerOptions.
        audit_every: see TokenizerOptions.
        tokenizer_override: see TokenizerOptions; one setting or several.
        trust_remote_code: see TokenizerOptions.
        packing: see PackingOptions, as for all up to keep_eos.
        sequence_length: see PackingOptions.
        truncation: see PackingOptions.
        pad_side: see PackingOptions.
        keep_eos: see PackingOptions.
        buffer_size: see HubOrderOptions, as for all up to shares.
        seed: see HubOrderOptions.
        epochs: see HubOrderOptions.
        drop_remainder: see HubOrderOptions.
        lanes: see HubOrderOptions.
        shares: see HubOrderOptions.
        fields: as of `Loader`.
        output: as of `Loader`.
        token_dtype: as of `Loader`.
        sharding: as of `Loader`.
        process_index: as of `Loader`.
        process_count: as of `Loader`.
        prefetch: see FetchOptions, as for all that follow.
        threads: see FetchOptions.
        retries: see FetchOptions.
        retry_secs: see FetchOptions.
        cache_dir: see FetchOptions.
        cache_bytes: see FetchOptions.
        stall_secs: see FetchOptions.

    Guarantees: as of HubStream.

    Raises:
        ImportError: datasets or transformers is missing.
        TypeError: an option doesn't exist; the message names the nearest.
        ValueError: an option is wrong, or the dataset or tokenizer can't be opened.
    """
    options = hub_stream_options(locals())
    for package in _PACKAGES:
        if not _is_installed(package):
            raise ImportError(f"loaders.stream needs {package}: {_EXTRA}")
    return HubStream(
        options, sharding=sharding, process_index=process_index, process_count=process_count
    )


class HubStream(BatchIterator[HubSource]):
    """Iterates over batches of a stream; made by `stream`.

    Guarantees: the global batch of a step depends on the source's commit, the tokenizer, packing,
        seed, batch_size, buffer_size, lanes and shares only, never on threads, faults, the
        cache or restarts; nor on the number of hosts where `shares` is given. Every document comes
        once an epoch, dead ones counted in `stats()`, up to the remainder. A state is a position in
        a few numbers; going back to it reads at most `buffer_size` sequences and one unit of each
        lane again, and everything up to its step for shares that it has no position of, because
        another host took it. Arrays are as those of `Loader`.

    `skip` reads what it passes over, and `batch_at` raises NotImplementedError: only the documents
    say where a batch ends. With several shares and finite epochs, a share that has ended gives
    empty rows (segment 0, `loss_mask` False) until the others have, too.
    """

    def __init__(
        self,
        options: HubStreamOptions,
        *,
        sharding: jax.sharding.Sharding | None = None,
        process_index: int | None = None,
        process_count: int | None = None,
    ) -> None:
        order = options.order
        shares = _num_shares(options, process_count)
        delivery = HostDelivery(
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
                "own: it doesn't know when the others' documents end. Leave by a number of steps, "
                "or take shares=1, with which every host reads everything."
            )
        opened = open_stream(options, shares)
        super().__init__(
            HubSource(opened, own),
            delivery,
            fields=options.batch.fields,
            read_threads=(opened.lanes_per_share + 2) * len(own),
            prefetch=options.fetch.prefetch,
            stall_secs=options.fetch.stall_secs,
        )

    def __repr__(self) -> str:
        options = self.source.opened.options
        return (
            f"HubStream({options.source.dataset!r} at {self.commit}, "
            f"tokenizer={options.tokenizer.tokenizer!r}, batch_size={options.order.batch_size}, "
            f"sequence_length={self.sequence_length}, buffer_size={options.order.buffer_size}, "
            f"seed={options.order.seed}, fields={self.fields}): {self.describe_position()}"
        )

    @property
    def sequence_length(self) -> int:
        """L, tokens of a row."""
        return self.source.opened.options.packing.sequence_length

    @property
    def epoch(self) -> int:
        """Epoch of the next batch, from 0, where it was read; of the share that is least far."""
        return self.source.epoch_in(self.progress)

    @property
    def commit(self) -> str:
        """The pinned commit of the source, or a hash of its files."""
        return self.source.opened.catalog.source.commit

    def stats(self) -> dict[str, int]:
        """Returns counts of what was read so far, ahead of the caller and after set_state again.

        Names: documents, tokens, failed_reads, and dead_letters/REASON of what became no tokens.
        """
        return self.source.counts.as_dict()

    def take(self, count: int) -> "Iterator[Batch]":
        """Yields the next batches, at most count of them."""
        return itertools.islice(self, whole("count", count, least=0))


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # a module without a spec, or one that is kept from being imported
        return False


def _num_shares(options: HubStreamOptions, process_count: int | None) -> int:
    if options.order.shares is not None:
        shares = options.order.shares
    elif process_count is not None:
        shares = whole("process_count", process_count, least=1)
    else:
        shares = jax.process_count()
    if options.order.batch_size % shares:
        raise ValueError(
            f"batch_size is {options.order.batch_size}, expected a multiple of {shares} (shares, "
            "process_count by default): every share gives a batch as many rows as the others"
        )
    return shares
