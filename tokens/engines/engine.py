"""What every tokenizer engine is: text columns in, one flat array of ids out.

Invariant: an engine adds nothing and drops nothing. Row i of the output is the ids of row i of the
input, no BOS, no EOS, and an empty row for an empty text. Ids stay flat with offsets, in the layout
Arrow gives the text, because a Python list a document would cost more than tokenizing it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa


class Encoded(NamedTuple):
    """The ids of n texts; those of text i are `ids[offsets[i]:offsets[i + 1]]`."""

    ids: np.ndarray
    """uint32[T], all texts' ids end to end; uint16[T] where `narrow` was asked for it."""

    offsets: np.ndarray
    """int64[n + 1], ascending, from 0 to T."""

    @property
    def num_rows(self) -> int:
        """How many texts."""
        return len(self.offsets) - 1

    def narrow(self, token_dtype: type[np.integer]) -> Encoded:
        """The same ids in a smaller type that holds them all."""
        return self._replace(ids=self.ids.astype(token_dtype, copy=False))

    def row(self, index: int) -> np.ndarray:
        """Ids of one text, [t], a view."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]


class Engine(Protocol):
    """One implementation of a tokenizer's text-to-ids function.

    Guarantees: `encode` is pure, and safe to call from several threads at once; native engines run
    without the GIL, so threads scale. An engine is not picklable: build it where it is used.
    """

    @property
    def name(self) -> str:
        """`gigatoken`, `tokenizers` or `transformers`."""
        ...

    @property
    def version(self) -> str:
        """Version of the library that makes the ids; certificates are tied to it."""
        ...

    def encode(self, texts: pa.LargeStringArray) -> Encoded:
        """Tokenizes n texts, special tokens not added.

        Args:
            texts: any slice of a large_string array, without nulls (`as_large_strings` makes one).

        Returns:
            n rows of ids, in the order of `texts`.
        """
        ...


class EngineUnavailable(Exception):
    """An engine cannot run this tokenizer at all: not installed, or a model it does not know."""


class EnginePanic(RuntimeError):
    """A tokenizer library fell over on a text."""


@contextlib.contextmanager
def calling_library() -> Iterator[None]:
    """Stands around every call into a tokenizer library: what it raises is an Exception.

    A panic of Rust code comes as a BaseException that is none, and would pass all that sets one
    document aside and keeps the others.

    Raises:
        EnginePanic: in place of a panic.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as panic:
        raise EnginePanic(f"{type(panic).__name__}: {panic}") from panic


def as_large_strings(texts: pa.Array | pa.ChunkedArray) -> pa.LargeStringArray:
    """Gives any Arrow text column one type: large_string (int64 offsets), no nulls.

    A large_string array passes through untouched, slices included; a string array shares its
    bytes and gets new offsets; a string_view array or several chunks are copied.

    Raises:
        TypeError: the column does not hold strings.
        ValueError: the column holds a null.
    """
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    kinds = (pa.string(), pa.large_string(), pa.string_view())
    if not isinstance(texts, pa.Array) or texts.type not in kinds:
        found = texts.type if isinstance(texts, pa.Array) else type(texts).__name__
        raise TypeError(
            f"texts: expected an Arrow array of string, large_string or string_view, found {found}."
        )
    if texts.null_count:
        first = int(np.flatnonzero(texts.is_null().to_numpy(zero_copy_only=False))[0])
        raise ValueError(
            f"texts: expected no nulls, found {texts.null_count} of {len(texts)}, the first in "
            f"row {first}. Drop or fill null documents before tokenizing."
        )
    return texts if texts.type == pa.large_string() else texts.cast(pa.large_string())
