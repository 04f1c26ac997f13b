"""Settings of allocators, garbage collector and Python's lock for a process that moves blocks.

Blocks of text and tokens are made and freed by the hundred; giving their pages back to the system
and fetching them again, 4 KB and a page fault at a time, took a quarter of a job's processor time.
"""

import gc
import os
import sys

# Keep freed memory rather than return it at once, and ask for huge pages. The peak is what it was.
_MIMALLOC = {"MIMALLOC_PURGE_DELAY": "-1", "MIMALLOC_ALLOW_LARGE_OS_PAGES": "1"}


def keep_freed_memory() -> None:
    """Sets up Arrow's allocator (mimalloc); has an effect only before pyarrow is first imported."""
    for name, value in _MIMALLOC.items():
        os.environ.setdefault(name, value)


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
