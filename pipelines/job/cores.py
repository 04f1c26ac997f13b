"""How many cores a job may use, and between how many processes it divides them."""

import math
import os
from pathlib import Path

# Two threads of one process keep two cores busy; beyond, Python's lock is the limit.
_CORES_OF_A_PROCESS = 2
# Text that is worth a process: it takes a core-second to start, in which others read some 100 MB.
_TEXT_BYTES_PER_PROCESS = 128 << 20


def available_cores() -> int:
    """Returns the cores that this process may use: its affinity, and its cgroup's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, _quota_cores()))


def choose_processes(threads: int, text_bytes: int) -> int:
    """Returns between how many worker processes a local batch job divides its cores.

    Args:
        threads: cores to use.
        text_bytes: to be read, as far as that can be told before.
    """
    if threads <= _CORES_OF_A_PROCESS:
        return 1
    worth = text_bytes // _TEXT_BYTES_PER_PROCESS
    return 1 if worth <= _CORES_OF_A_PROCESS else min(threads, worth)


def _quota_cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns the whole cores of the cgroup's quota, version 2 or 1; many where there is none."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return 1 << 16
    if quota in ("max", "-1"):
        return 1 << 16
    return max(1, math.ceil(int(quota) / int(period)))
