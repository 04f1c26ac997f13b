"""Memory between the two halves of a build: what reading needed is given back before shards."""

import contextlib
import ctypes

import pyarrow as pa
from shardstream.tokens.tokenizer import release_memory


def release_free_memory() -> None:
    """Gives back what reading and tokenizing needed: shards ask for other sizes, beside it.

    Without it the peak of a job grows with the length of its first half.
    """
    release_memory()
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
