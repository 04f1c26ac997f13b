"""What a loader is asked for, checked when it is built."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from shardstream.loaders.fields import resolve_fields

SHUFFLES = ("buffer", "global", "none")
BAD_RECORD_POLICIES = ("raise", "skip", "substitute")
VERIFICATIONS = ("size", "sha256")

# The rule of thumb for shuffle buffers is 10 to 100 times the batch.
_BUFFER_SEQUENCES = 10_000
_BUFFER_BATCHES = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderOptions:
    """What the order of batches depends on, besides the dataset.

    Attributes:
        batch_size: sequences of the global batch, over all hosts together.
        shuffle: "buffer", "global" or "none".
        buffer_size: sequences in the buffer, over all hosts together; None takes 10,000 or 32
            batches, whichever is more. A buffer that holds the whole split shuffles globally.
        seed: of the shuffle; any integer.
        epochs: passes over the split, None for no end.
        drop_remainder: leave out the last, partial batch of each epoch; False pads and masks it.
        follow: read a stream while it is being written, once; `buffer_size` is then how many
            sequences one waits for on average (on disk, not in memory).
    """

    batch_size: int
    shuffle: str = "buffer"
    buffer_size: int | None = None
    seed: int = 0
    epochs: int | None = 1
    drop_remainder: bool = True
    follow: bool = False

    def __post_init__(self) -> None:
        check_positive("batch_size", self.batch_size)
        if self.shuffle not in SHUFFLES:
            raise ValueError(f"shuffle is {self.shuffle!r}, expected one of {', '.join(SHUFFLES)}")
        if self.buffer_size is not None:
            check_positive("buffer_size", self.buffer_size)
        if self.epochs is not None:
            check_positive("epochs", self.epochs)
        if self.follow and self.epochs != 1:
            raise ValueError(
                f"epochs is {self.epochs} with follow=True, expected 1: a stream that grows has no "
                "end to start again from. Build another Loader for more, once it is complete."
            )
        if self.follow and self.shuffle == "global":
            raise ValueError(
                "shuffle is 'global' with follow=True, expected 'buffer' or 'none': a permutation "
                "of the whole would have to wait for its end"
            )
        if not isinstance(self.seed, int):
            raise ValueError(f"seed is {self.seed!r}, expected an integer")

    @property
    def buffer_sequences(self) -> int:
        """The buffer's size, the default resolved."""
        if self.buffer_size is not None:
            return self.buffer_size
        return max(_BUFFER_SEQUENCES, _BUFFER_BATCHES * self.batch_size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How records are read; nothing here changes what comes out of a healthy dataset.

    Attributes:
        read_threads: reads in flight, outside Python's lock; each takes at most 4 MB. One
            or two are quickest from the page cache, a cold disk wants more.
        prefetch: batches made ready ahead of the caller.
        max_open_shards: files kept open, at most half of what the system allows; each holds an
            index of about 10 bytes a record.
        verify: "size" compares every shard with the manifest when it is opened; "sha256" reads each
            shard through once before its first use.
        on_bad_record: what to do about a record that can't be read: "raise"; "skip" leaves its row
            empty (padding, masked); "substitute" puts the next readable record of its shard there.
        bad_record_budget: different bad records to stand before raising all the same.
        stall_secs: a wait for data longer than this is logged with its cause.
        cache_dir: where shards of a store (gs://, s3://) are kept, shared by all processes of a
            host; None for ~/.cache/shardstream.
        cache_bytes: that the cache may take; None for half of what is free there.
        store_requests: to a store at the same time.
        follow_timeout_secs: how long follow=True waits for the next commit before it raises.
    """

    read_threads: int = 2
    prefetch: int = 16
    max_open_shards: int = 4096
    verify: str = "size"
    on_bad_record: str = "raise"
    bad_record_budget: int = 100
    stall_secs: float = 5.0
    cache_dir: str | os.PathLike[str] | None = None
    cache_bytes: int | None = None
    store_requests: int = 16
    follow_timeout_secs: float = 600.0

    def __post_init__(self) -> None:
        for name in ("read_threads", "prefetch", "max_open_shards", "store_requests"):
            check_positive(name, getattr(self, name))
        if self.cache_bytes is not None:
            check_positive("cache_bytes", self.cache_bytes)
        if self.verify not in VERIFICATIONS:
            raise ValueError(f"verify is {self.verify!r}, expected one of {VERIFICATIONS}")
        if self.on_bad_record not in BAD_RECORD_POLICIES:
            raise ValueError(
                f"on_bad_record is {self.on_bad_record!r}, expected one of "
                f"{', '.join(BAD_RECORD_POLICIES)}"
            )
        if self.bad_record_budget < 0 or min(self.stall_secs, self.follow_timeout_secs) <= 0:
            raise ValueError(
                "bad_record_budget can't be negative; stall_secs and follow_timeout_secs must be "
                "positive"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """What a batch consists of.

    Attributes:
        split: "train" or "validation".
        fields: names of loaders.fields.FIELDS, or a set: "maxtext", "hf".
        output: "jax" for jax.Arrays, "numpy" for this host's rows as NumPy arrays.
        token_dtype: "int32", or "stored" for ids as narrow as the dataset keeps them (uint16 or
            uint32), in NumPy arrays only. Fields that are no token ids stay what they are.
    """

    split: str = "train"
    fields: tuple[str, ...] | str = ("tokens",)
    output: str = "jax"
    token_dtype: str = "int32"

    def __post_init__(self) -> None:
        resolve_fields(self.fields)
        if self.output not in ("jax", "numpy"):
            raise ValueError(f"output is {self.output!r}, expected 'jax' or 'numpy'")
        if self.token_dtype not in ("int32", "stored"):
            raise ValueError(f"token_dtype is {self.token_dtype!r}, expected 'int32' or 'stored'")
        if self.token_dtype == "stored" and self.output != "numpy":
            raise ValueError(
                "token_dtype is 'stored' with output='jax', expected output='numpy': ids travel as "
                "narrow as they are stored anyway, and are int32 on devices"
            )


def check_positive(name: str, value: int) -> None:
    """Raises ValueError where an option isn't an integer of at least 1."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}, expected an integer of at least 1")


def split_options(options: dict) -> tuple[OrderOptions, ReadOptions, BatchOptions]:
    """Returns the options of each concern from one set of keyword arguments.

    Raises:
        TypeError: an unknown name; the message lists those there are.
    """
    order, read, batch = divide(options, (OrderOptions, ReadOptions, BatchOptions))
    return order, read, batch


def divide(
    options: Mapping[str, Any], kinds: Sequence[type], *, extra: Sequence[str] = ()
) -> list[Any]:
    """Returns one instance of each dataclass, made of the options that bear its fields' names.

    Args:
        options: keyword arguments; a name goes to the first kind that has it.
        kinds: frozen dataclasses.
        extra: names that the caller took out before, for the message.

    Raises:
        TypeError: an unknown name; the message lists those there are.
    """
    parts = []
    rest = dict(options)
    for kind in kinds:
        names = {field.name for field in dataclasses.fields(kind)} & set(rest)
        parts.append((kind, {name: rest.pop(name) for name in names}))
    if rest:
        known = [field.name for kind in kinds for field in dataclasses.fields(kind)]
        raise TypeError(
            f"unknown loader option {', '.join(sorted(rest))}; options are "
            f"{', '.join(dict.fromkeys([*known, *extra]))}"
        )
    return [kind(**arguments) for kind, arguments in parts]
