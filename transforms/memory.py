"""Settings of allocators, garbage collector and Python's lock for a process that moves blocks.

Blocks of text and tokens are made and freed by the hundred. Giving their pages back to the system
and fetching them again, 4 KB and a page fault at a time, takes a large share of a job's time. These
are settings of a process: `process` says when they are made.
"""

import contextlib
import ctypes
import gc
import os
import sys

# Arrow's memory comes from jemalloc, which returns what was freed a second later. A job peaks a
# tenth lower so than with mimalloc, Arrow's own choice, and is as fast. Linux alone, since the
# wheels of other systems come without it.
_ARROW_POOL = "jemalloc"

# glibc's heaps: each thread gets one of its own as long as there are fewer than this, and no other
# thread can use what it frees.
_M_ARENA_MAX, _NUM_ARENAS = -8, 2

# With Python's own 0.005, two threads write shards more slowly than one.
_SWITCH_SECS = 0.0005


def keep_freed_memory() -> None:
    """Sets up the allocators; works only before pyarrow is imported and threads start."""
    if sys.platform == "linux":
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", _ARROW_POOL)
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(AttributeError, OSError, TypeError):  # glibc alone has it
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _NUM_ARENAS)


def collect_rarely() -> None:
    """Lets a start-up make millions of lasting objects without collecting over and over."""
    gc.set_threshold(100_000, 20, 20)


def share_the_lock() -> None:
    """Lets threads that return from native code wait for Python's lock a tenth of the usual time.

    ArrayRecord's writer holds the lock. Beside it, a second thread that hashes or copies takes the
    lock once a megabyte, and would wait a whole interval each time.
    """
    sys.setswitchinterval(_SWITCH_SECS)


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
