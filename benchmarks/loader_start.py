"""How long a loader takes to open, to its first batch and to go on from a state."""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.loader_data import link_records, list_shards
from benchmarks.loader_ours import BUFFER_SIZE
from loaders import Loader
from shard_format.manifest import read_manifest
from shard_format.storage import Directory

_TIMES = 5


def measure_start(root: Path, batch_size: int) -> None:
    """Prints the times on the dataset at root, and on larger ones made of links to its shards."""
    options = {"batch_size": batch_size, "process_index": 0, "process_count": 1}
    options |= {"buffer_size": BUFFER_SIZE, "output": "numpy"}
    ours = read_manifest(Directory(root))
    with tempfile.TemporaryDirectory(dir=root.parent) as temporary:
        many, wide = Path(temporary) / "10M", Path(temporary) / "100k"
        link_records(root, ours, many, 10_000_000)
        list_shards(ours, wide, 100_000)
        for shuffle in ("buffer", "global"):
            secs = _best(lambda s=shuffle: _first_batch(root, None, shuffle=s, **options))
            print(f"first batch, {shuffle}: {secs:.3f} s (goal 0.5)")
        for shuffle in ("buffer", "global"):
            with Loader(many, shuffle=shuffle, **options) as loader:
                loader.skip(loader.steps_per_epoch // 2)
                state = loader.get_state()
            secs = _best(lambda s=shuffle, at=state: _first_batch(many, at, shuffle=s, **options))
            print(
                f"resume at step {state['step']} of 10M records, {shuffle}: {secs:.3f} s "
                f"(goal 0.3), state {len(json.dumps(state))} bytes (goal 4096)"
            )
        secs = _best(lambda: _open(wide, **options))
        print(f"open 100,000 shards: {secs:.3f} s (goal 1)")


def _first_batch(path: Path, state: dict | None, **options: Any) -> float:
    """Returns seconds from nothing, or from a state in an open loader, to the first batch."""
    start = time.perf_counter()
    with Loader(path, **options) as loader:
        opened = time.perf_counter()
        if state is not None:
            start = opened  # opening is a figure of its own
            loader.set_state(state)
        next(loader)
        return time.perf_counter() - start


def _open(path: Path, **options: Any) -> float:
    start = time.perf_counter()
    Loader(path, **options).close()
    return time.perf_counter() - start


def _best(run: Callable[[], float]) -> float:
    return min(run() for _ in range(_TIMES))
