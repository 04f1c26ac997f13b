"""Settings of a whole process: made by commands and workers, lent to a call of `preprocess`.

Invariant: importing this project changes no setting. A process of ours calls `set_up_process`
first of all, before Arrow and Beam are imported, and keeps what it sets. A call inside a user's
process works in `borrowed_process`, which puts back everything that it has changed.
"""

import contextlib
import gc
import os
import sys
from collections.abc import Iterator

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


@contextlib.contextmanager
def borrowed_process() -> Iterator[None]:
    """Sets up what can be put back, and puts it back when the block ends.

    Allocators stay as they are: they can be chosen only when a process starts.
    """
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    variables = {name: os.environ.get(name) for name in _VARIABLES}
    hidden = hide_chatter()
    collect_rarely()
    share_the_lock()
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if hidden:
            show_chatter()
