"""Settings of allocators, garbage collector and Python's lock for a process that moves blocks.

Blocks of text and tokens are made and freed by the hundred; giving their pages back to the system
and fetching them again, 4 KB and a page fault at a time, took a quarter of a job's processor time.
"""

import contextlib
import ctypes
import gc
import os
import sys

# Arrow's memory comes from jemalloc, which returns what was freed a second later: 1,288 M tokens
# peaked at 0.72 GB, with mimalloc, Arrow's own choice, at 0.80 and no faster (41.5 and 41.9 Mtok/s)
# though that was told to wait as long. Linux alone, since other systems' wheels come without it.
_ARROW_POOL = "jemalloc"

# glibc's heaps, of which each thread gets one of its own as long as there are fewer: what a thread
# frees no other can use. 1,288 M tokens peaked at 0.86 GB with as many as wanted, 0.83 with two.
_M_ARENA_MAX, _NUM_ARENAS = -8, 2


def keep_freed_memory() -> None:
    """Sets up the allocators; has an effect only before pyarrow is imported and threads start."""
    if sys.platform == "linux":
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", _ARROW_POOL)
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(AttributeError, OSError, TypeError):  # glibc alone has it
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _NUM_ARENAS)


def collect_rarely() -> None:
    """Lets start-up make its millions of lasting objects without going through them each time."""
    gc.set_threshold(100_000, 20, 20)


def share_the_lock() -> None:
    """Lets threads back from native code wait half a millisecond for Python's lock, not 5.

    ArrayRecord's writer holds the lock; beside it a second thread that hashes or copies, a call a
    megabyte, got through once every 5 ms: two threads wrote shards slower (93 Mtok/s) than one
    (118), and now faster (140).
    """
    sys.setswitchinterval(0.0005)


def release_free_memory() -> None:
    """Gives back what reading and tokenizing needed: shards ask for other sizes, beside it.

    Without it the peak of a job grows with the length of its first half.
    """
    import pyarrow as pa
    from shardstream.tokens.tokenizer import release_memory

    release_memory()
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
