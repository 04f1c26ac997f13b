"""Settings of the memory allocators and the garbage collector for a process that moves blocks.

Blocks of text and tokens are made and freed by the hundred; giving their pages back to the system
and fetching them again, 4 KB and a page fault at a time, took a quarter of a job's processor time.
"""

import gc
import os

# Keep freed memory rather than return it at once, and ask for huge pages. The peak is what it was.
_MIMALLOC = {"MIMALLOC_PURGE_DELAY": "-1", "MIMALLOC_ALLOW_LARGE_OS_PAGES": "1"}


def keep_freed_memory() -> None:
    """Sets up Arrow's allocator (mimalloc); has an effect only before pyarrow is first imported."""
    for name, value in _MIMALLOC.items():
        os.environ.setdefault(name, value)


def collect_rarely() -> None:
    """Lets start-up make its millions of lasting objects without going through them each time."""
    gc.set_threshold(100_000, 20, 20)


def freeze_garbage() -> None:
    """Takes what start-up has made (libraries, vocabularies) out of all later collections."""
    gc.collect()
    gc.freeze()
