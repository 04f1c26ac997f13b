"""What `loaders.stream` is asked for, besides the source, the tokenizer and the packing."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from shardstream.loaders.integers import settle_integers, whole
from shardstream.loaders.options import BatchOptions, pick
from shardstream.sources.options import SourceOptions
from shardstream.tokens.options import TokenizerOptions
from shardstream.tokens.packing.options import PackingOptions

Engine = Literal["auto", "gigatoken", "tokenizers", "transformers"]
SpecialTokens = Literal["encode", "parse"]
PackingName = Literal["concat", "pad", "best_fit", "none"]
Truncation = Literal["auto", "cut", "split", "drop"]
PadSide = Literal["right", "left"]

# Options that hold one text or several.
_SEVERAL = ("data_files", "reader_option", "tokenizer_override")
# Integers of options that other rooms check: they are ints by then.
_INTEGERS = ("skip_documents", "max_documents", "max_document_mb", "audit_every", "sequence_length")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubOrderOptions:
    """What the order of batches depends on, besides documents, tokenizer and packing.

    Attributes:
        batch_size: sequences of the global batch, over all hosts together.
        buffer_size: each sequence is put off by a random number of sequences below this; over
            all hosts together. 0 keeps the order of the source.
        seed: of the shuffle; any integer.
        epochs: passes over the source, None for no end.
        drop_remainder: leave out the last, partial batch of each epoch; False pads and masks it.
        lanes: partitions read side by side, over all hosts together.
        shares: of equal size, that each batch is made of; each is read from partitions of its
            own. Hosts divide the shares, and so the work. None takes one for each process.
    """

    batch_size: int
    buffer_size: int = 10_000
    seed: int = 0
    epochs: int | None = 1
    drop_remainder: bool = True
    lanes: int = 16
    shares: int | None = None

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("batch_size", "epochs", "lanes", "shares"), 1)
        settle_integers(self, {**counts, "buffer_size": 0, "seed": None})
        if self.buffer_size >= 2**31:
            raise ValueError(
                f"buffer_size is {self.buffer_size}, expected 0 to 2**31 - 1 sequences"
            )
        if self.shares is not None and self.batch_size % self.shares:
            raise ValueError(
                f"batch_size is {self.batch_size}, expected a multiple of shares={self.shares}: "
                "every share gives a batch as many rows as the others"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """How documents are fetched; nothing here changes what comes out.

    Attributes:
        prefetch: batches made ready ahead of the caller.
        threads: number of threads that tokenize at once; None takes the number of cores.
        retries: attempts in a row that bring no document before a failed read raises.
        retry_secs: wait before the first of them, doubled each time, 60 s at most; a server's
            Retry-After counts where it is longer.
        cache_dir: keeps tokenized documents here, for later epochs and runs; None keeps nothing.
        cache_bytes: limit for all that `loaders.stream` keeps there.
        stall_secs: a wait for data longer than this is logged with its cause.
    """

    prefetch: int = 16
    threads: int | None = None
    retries: int = 6
    retry_secs: float = 0.5
    cache_dir: str | os.PathLike[str] | None = None
    cache_bytes: int = 20 << 30
    stall_secs: float = 5.0

    def __post_init__(self) -> None:
        settle_integers(self, {"prefetch": 1, "threads": 1, "retries": 0, "cache_bytes": 0})
        if not self.retry_secs >= 0:
            raise ValueError(f"retry_secs is {self.retry_secs!r}, expected 0 seconds or more")
        if not self.stall_secs > 0:
            raise ValueError(f"stall_secs is {self.stall_secs!r}, expected more than 0 seconds")

    @property
    def num_threads(self) -> int:
        """`threads`, the default resolved."""
        if self.threads is not None:
            return self.threads
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubStreamOptions:
    """Everything a stream is asked for, one dataclass for each concern."""

    source: SourceOptions
    tokenizer: TokenizerOptions
    packing: PackingOptions
    order: HubOrderOptions
    fetch: FetchOptions
    batch: BatchOptions


def hub_stream_options(given: Mapping[str, Any]) -> HubStreamOptions:
    """Returns the options of each concern from the arguments of `stream`, by name.

    Raises:
        ValueError: an option is wrong.
    """
    values = dict(given)
    for name in _SEVERAL:
        values[name] = _as_names(given[name])
    for name in _INTEGERS:
        if values[name] is not None:
            values[name] = whole(name, values[name])
    of_tokenizer = values | {"revision": values["tokenizer_revision"]}
    return HubStreamOptions(
        source=pick(SourceOptions, values),
        tokenizer=pick(TokenizerOptions, of_tokenizer),
        packing=pick(PackingOptions, values),
        order=pick(HubOrderOptions, values),
        fetch=pick(FetchOptions, values),
        batch=pick(BatchOptions, values | {"split": "train"}),
    )


def _as_names(
    files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None,
) -> tuple[str, ...]:
    """Returns one text (or path) or several as the tuple that the options hold."""
    if isinstance(files, str | os.PathLike):
        return (os.fspath(files),)
    return tuple(os.fspath(file) for file in files or ())
