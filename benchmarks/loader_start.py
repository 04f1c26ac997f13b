"""How long a loader takes to open, to its first batch and to go on from a state."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.loader_data import link_records, list_shards
from benchmarks.loader_ours import BUFFER_SIZE
from shardstream.loaders import Loader
from shardstream.shard_format.manifest import read_manifest
from shardstream.shard_format.storage import open_directory

_TIMES = 5


def measure_start(root: Path, batch_size: int) -> None:
    """Prints the times on the dataset at root, and on larger ones made of links to its shards."""
    options = {"batch_size": batch_size, "process_index": 0, "process_count": 1}
    options |= {"buffer_size": BUFFER_SIZE, "output": "numpy"}
    ours = read_manifest(open_directory(root))
    with tempfile.TemporaryDirectory(dir=root.parent) as temporary:
        many, wide = Path(temporary) / "10M", Path(temporary) / "100k"
        link_records(root, ours, many, 10_000_000)
        list_shards(ours, wide, 100_000)
        for shuffle in ("buffer", "global"):
            secs = _best(lambda s=shuffle: _in_new_process(root, s, batch_size))
            print(f"first batch of a process, on the device, {shuffle}: {secs:.3f} s (goal 0.5)")
        for shuffle in ("buffer", "global"):
            with Loader(many, shuffle=shuffle, **options) as loader:
                loader.skip(loader.steps_per_epoch // 2)
                state = loader.get_state()
            secs = _best(lambda s=shuffle, at=state: _resume(many, at, shuffle=s, **options))
            print(
                f"resume at step {state['step']} of 10M records, {shuffle}: {secs:.3f} s "
                f"(goal 0.3), state {len(json.dumps(state))} bytes (goal 4096)"
            )
        secs = _best(lambda: _open(wide, **options))
        print(f"open 100,000 shards: {secs:.3f} s (goal 1)")


# What a trainer does: JAX has found its devices before the loader is built.
_NEW_PROCESS = """
import sys, time, jax
from shardstream.loaders import Loader
jax.devices()
start = time.perf_counter()
path, shuffle, batch_size = sys.argv[1:]
batch = next(Loader(path, shuffle=shuffle, batch_size=int(batch_size)))
jax.block_until_ready(batch)
print(time.perf_counter() - start)
"""


def _in_new_process(path: Path, shuffle: str, batch_size: int) -> float:
    """Returns seconds from the imports to the first batch."""
    command = [sys.executable, "-c", _NEW_PROCESS, str(path), shuffle, str(batch_size)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def _resume(path: Path, state: dict, **options: Any) -> float:
    """Returns seconds from a state, given to an open loader, to the first batch."""
    with Loader(path, **options) as loader:
        start = time.perf_counter()  # opening is a figure of its own
        loader.set_state(state)
        next(loader)
        return time.perf_counter() - start


def _open(path: Path, **options: Any) -> float:
    start = time.perf_counter()
    Loader(path, **options).close()
    return time.perf_counter() - start


def _best(run: Callable[[], float]) -> float:
    return min(run() for _ in range(_TIMES))
