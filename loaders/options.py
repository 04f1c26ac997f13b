"""What a loader is asked for, checked when it is built."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

from shardstream.loaders.fields import FieldName, FieldSet, resolve_fields
from shardstream.loaders.integers import settle_integers
from shardstream.shard_format.messages import require_choice

Shuffle = Literal["buffer", "global", "none"]
BadRecordPolicy = Literal["raise", "skip", "substitute"]
Verification = Literal["size", "sha256"]
Split = Literal["train", "validation"]
Output = Literal["jax", "numpy"]
TokenDtype = Literal["int32", "stored"]
SHUFFLES: tuple[str, ...] = get_args(Shuffle)

_T = TypeVar("_T")

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
    shuffle: Shuffle = "buffer"
    buffer_size: int | None = None
    seed: int = 0
    epochs: int | None = 1
    drop_remainder: bool = True
    follow: bool = False

    def __post_init__(self) -> None:
        settle_integers(self, {"batch_size": 1, "buffer_size": 1, "seed": None, "epochs": 1})
        check_choice("shuffle", self.shuffle, Shuffle)
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
            or two are quickest from the page cache; a cold disk needs more.
        prefetch: batches made ready ahead of the caller.
        max_open_shards: files kept open, at most half of what the system allows; each holds an
            index of about 10 bytes a record.
        verify: "size" compares every shard with the manifest when it is opened; "sha256" reads each
            shard through once before its first use.
        on_bad_record: what happens with a record that can't be read: "raise"; "skip" leaves its row
            empty (padding, masked); "substitute" puts the next readable record of its shard there.
        bad_record_budget: number of different bad records after which one more raises an error.
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
    verify: Verification = "size"
    on_bad_record: BadRecordPolicy = "raise"
    bad_record_budget: int = 100
    stall_secs: float = 5.0
    cache_dir: str | os.PathLike[str] | None = None
    cache_bytes: int | None = None
    store_requests: int = 16
    follow_timeout_secs: float = 600.0

    def __post_init__(self) -> None:
        counts = ("read_threads", "prefetch", "max_open_shards", "cache_bytes", "store_requests")
        settle_integers(self, {**dict.fromkeys(counts, 1), "bad_record_budget": 0})
        check_choice("verify", self.verify, Verification)
        check_choice("on_bad_record", self.on_bad_record, BadRecordPolicy)
        for name in ("stall_secs", "follow_timeout_secs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected more than 0 seconds")


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

    split: Split = "train"
    fields: Sequence[FieldName] | FieldName | FieldSet = ("tokens",)
    output: Output = "jax"
    token_dtype: TokenDtype = "int32"

    def __post_init__(self) -> None:
        resolve_fields(self.fields)
        check_choice("output", self.output, Output)
        check_choice("token_dtype", self.token_dtype, TokenDtype)
        if self.token_dtype == "stored" and self.output != "numpy":
            raise ValueError(
                "token_dtype is 'stored' with output='jax', expected output='numpy': ids travel as "
                "narrow as they are stored anyway, and are int32 on devices"
            )


def check_choice(name: str, value: str, choices: object) -> None:
    """Raises ValueError where an option is none of the choices, a Literal type."""
    require_choice(name, value, get_args(choices))


def pick(kind: type[_T], given: Mapping[str, Any]) -> _T:
    """Returns a dataclass made of the values that bear its fields' names.

    Args:
        kind: the dataclass.
        given: arguments by name; those of other concerns are left alone, a field that isn't among
            them keeps its default.
    """
    assert dataclasses.is_dataclass(kind)
    names = [field.name for field in dataclasses.fields(kind) if field.name in given]
    return kind(**{name: given[name] for name in names})
