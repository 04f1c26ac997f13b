"""Settings of a whole process: made by commands and workers, lent to a call of `preprocess`.

Invariant: importing this project changes no setting. A process of ours calls `set_up_process`
first of all, before Arrow and Beam are imported, and keeps what it sets. A call inside a user's
process works in `borrowed_process`, which puts back everything that it has changed.
"""

import gc
import os
import sys
import threading
from collections.abc import Callable

from shardstream.pipelines.logs import hide_chatter, show_chatter
from shardstream.transforms.lean_imports import leave_frameworks_out
from shardstream.transforms.memory import collect_rarely, keep_freed_memory, share_the_lock

# What a call may set: logs.hide_chatter and transforms.hub_token.use_hub_token.
_VARIABLES = ("TRANSFORMERS_VERBOSITY", "TRANSFORMERS_NO_ADVISORY_WARNINGS", "HF_TOKEN")


def set_up_process() -> None:
    """Sets up a process that is a command's or a worker's own, for good.

    Arrow's allocator reads its settings when pyarrow is imported, and Beam and transformers write
    messages while they are imported: call it before any of them.
    """
    leave_frameworks_out()
    keep_freed_memory()
    collect_rarely()
    share_the_lock()
    hide_chatter()


class Lent:
    """A change of the process that stays while any block is inside, in any thread.

    The first block to enter makes the change, and the last one to leave undoes it, so that calls
    which run side by side, or inside each other, leave nothing behind.

    Args:
        change: makes the change and returns what undoes it.
    """

    def __init__(self, change: Callable[[], Callable[[], None]]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._inside = 0
        self._undo: Callable[[], None] = lambda: None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._undo = self._change()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._undo()


def _borrow() -> Callable[[], None]:
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    variables = {name: os.environ.get(name) for name in _VARIABLES}
    hidden = hide_chatter()
    collect_rarely()
    share_the_lock()

    def give_back() -> None:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if hidden:
            show_chatter()

    return give_back


# Settings of a call inside a user's process. Allocators are not among them: they can be chosen only
# when a process starts.
borrowed_process = Lent(_borrow)
