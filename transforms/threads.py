"""Threads for native work, one pool for the whole worker process.

A runner makes a DoFn several times over (Prism: once for each bundle it splits off). Were every
copy to bring its own threads, each thread would fill a tokenizer cache of its own, and a machine
of two cores would hold eight caches, at twice the CPU time.
"""

import functools
from concurrent.futures import ThreadPoolExecutor


@functools.cache
def shared_executor(purpose: str, num_threads: int) -> ThreadPoolExecutor:
    """Returns this process's pool for a purpose; it lives as long as the process."""
    return ThreadPoolExecutor(num_threads, thread_name_prefix=purpose)
