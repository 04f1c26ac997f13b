"""What `loaders.stream` is asked for, besides the source, the tokenizer and the packing."""

import dataclasses
import os
from typing import Any

from shardstream.loaders.options import BatchOptions, check_positive, divide
from shardstream.sources.options import SourceOptions
from shardstream.tokens.options import TokenizerOptions
from shardstream.tokens.packing.options import PackingOptions

_RENAMED = {"tokenizer_revision": "revision"}  # the source's revision has the name already


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamOrderOptions:
    """What the order of batches depends on, besides documents, tokenizer and packing.

    Attributes:
        batch_size: sequences of the global batch, over all hosts together.
        shuffle_buffer: each sequence is put off by a random number of sequences below this; over
            all hosts together. 0 keeps the order of the source.
        seed: of the shuffle; any integer.
        epochs: passes over the source, None for no end.
        drop_remainder: leave out the last, partial batch of each epoch; False pads and masks it.
        lanes: partitions read side by side, over all hosts together.
        shares: parts of equal size that each batch is made of, each read from partitions of its
            own. Hosts divide the shares, and so the work. None takes one for each process.
    """

    batch_size: int
    shuffle_buffer: int = 10_000
    seed: int = 0
    epochs: int | None = 1
    drop_remainder: bool = True
    lanes: int = 16
    shares: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "lanes"):
            check_positive(name, getattr(self, name))
        for name in ("epochs", "shares"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        if not isinstance(self.shuffle_buffer, int) or not 0 <= self.shuffle_buffer < 2**31:
            raise ValueError(
                f"shuffle_buffer is {self.shuffle_buffer!r}, expected 0 to 2**31 - 1 sequences"
            )
        if not isinstance(self.seed, int):
            raise ValueError(f"seed is {self.seed!r}, expected an integer")
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
        threads: documents are tokenized by so many threads at once; None takes the cores there are.
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
        check_positive("prefetch", self.prefetch)
        if self.threads is not None:
            check_positive("threads", self.threads)
        if self.retries < 0 or self.retry_secs < 0 or self.cache_bytes < 0 or self.stall_secs <= 0:
            raise ValueError(
                "retries, retry_secs and cache_bytes can't be negative, stall_secs must be positive"
            )

    @property
    def num_threads(self) -> int:
        """`threads`, the default resolved."""
        if self.threads is not None:
            return self.threads
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """Everything a stream is asked for, a dataclass a concern."""

    source: SourceOptions
    tokenizer: TokenizerOptions
    packing: PackingOptions
    order: StreamOrderOptions
    fetch: FetchOptions
    batch: BatchOptions


def stream_options(dataset: str, tokenizer: str, options: dict[str, Any]) -> StreamOptions:
    """Returns the options of each concern from one set of keyword arguments.

    Raises:
        TypeError: an unknown name; the message lists those there are.
        ValueError: an option is wrong.
    """
    rest = dict(options, dataset=dataset)
    if isinstance(rest.get("data_files"), str):
        rest["data_files"] = (rest["data_files"],)
    elif rest.get("data_files") is not None:
        rest["data_files"] = tuple(map(str, rest["data_files"]))
    of_tokenizer = {"tokenizer": tokenizer}
    names = {field.name for field in dataclasses.fields(TokenizerOptions)} - {"revision"}
    for name in [*names, *_RENAMED]:
        if name in rest:
            of_tokenizer[_RENAMED.get(name, name)] = rest.pop(name)
    kinds = (SourceOptions, PackingOptions, StreamOrderOptions, FetchOptions, BatchOptions)
    extra = sorted([*names - {"tokenizer"}, *_RENAMED])
    source, packing, order, fetch, batch = divide(rest, kinds, extra=extra)
    return StreamOptions(
        source=source,
        tokenizer=TokenizerOptions(**of_tokenizer),
        packing=packing,
        order=order,
        fetch=fetch,
        batch=batch,
    )
