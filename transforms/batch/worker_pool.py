"""Worker processes of a local build: where Python's lock would be the limit, work goes to others.

What passes between Beam and the work is small in batch mode on a local runner: a partition one way,
a spill file's name and its counts the other; a bucket, then a shard's row. So the DoFns stay in the
runner's own process and hand each partition and each bucket to a pool:

    runner's process   DoFn ── partition ──▶ pool ──▶ worker: read, tokenize, spill ──▶ marker
                       DoFn ── bucket ─────▶ pool ──▶ worker: sort, pack, write ──────▶ shard's row

The job opens the pool before it builds its graph (`worker_processes`) and closes it after, whatever
happens; DoFns find it by the plan (`pool_of`). Where none is open (one core, a small source, an
engine with processes of its own) they use threads.

Workers are forked from a server that has imported what they need, so each is ready after it has
opened the tokenizer; neither Beam nor the user's own script is imported in them. A worker ends when
the process that opened the pool does, however that ended.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, spawn
from typing import Any

from shardstream.transforms.batch import worker
from shardstream.transforms.errors import JobError
from shardstream.transforms.memory import collect_rarely, keep_freed_memory, share_the_lock
from shardstream.transforms.plan import BuildPlan

_PRELOAD = ["shardstream.transforms.batch.worker_preload"]
_NAME = "shardstream-worker"
_pools: dict[str, ProcessPoolExecutor] = {}


@contextlib.contextmanager
def worker_processes(plan: BuildPlan) -> Iterator[None]:
    """Opens the plan's pool for the length of a block; nothing happens for a plan of one process.

    Guarantees: no worker is left when the block ends, by whatever exception.
    """
    if plan.processes == 1:
        yield
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    _keep_main_out_of_workers()
    key = _key(plan)
    pool = ProcessPoolExecutor(
        plan.processes, mp_context=context, initializer=_begin, initargs=(plan,)
    )
    _pools[key] = pool
    try:
        for _ in range(plan.processes):
            pool.submit(worker.get_ready)  # while the runner starts
        yield
    except BaseException:
        _end_at_once(pool)
        raise
    finally:
        del _pools[key]
        pool.shutdown(wait=True, cancel_futures=True)


def pool_of(plan: BuildPlan) -> ProcessPoolExecutor | None:
    """Returns the pool that this process has open for a plan, None where there is none."""
    return _pools.get(_key(plan))


@contextlib.contextmanager
def naming_lost_workers() -> Iterator[None]:
    """Turns the pool's own error for a worker that ended by itself into the job's."""
    try:
        yield
    except BrokenProcessPool as error:
        raise JobError(
            "a worker process of this job ended without a word: it was killed, by hand or because "
            "the machine ran out of memory (`dmesg` says so). What it had finished is kept: run "
            "the same command again and it goes on from there, with fewer --threads if memory is "
            "short."
        ) from error


def _key(plan: BuildPlan) -> str:
    return f"{plan.output} {plan.fingerprint}"


def _end_at_once(pool: ProcessPoolExecutor) -> None:
    """Stops workers in the middle of what they do: it is worth nothing any more."""
    processes: dict[int, Any] = getattr(pool, "_processes", None) or {}
    for process in list(processes.values()):
        process.terminate()


def _begin(plan: BuildPlan) -> None:
    """Sets up a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that opened the pool
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    keep_freed_memory()
    collect_rarely()
    share_the_lock()
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    worker.begin(plan)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _keep_main_out_of_workers() -> None:
    """Has our workers not import the program's main module, which they need nothing of.

    It is the user's script, or a command that imports Beam. There is no option for it.
    """
    prepare = spawn.get_preparation_data
    if getattr(prepare, "leaves_main_out", False):
        return

    def get_preparation_data(name: str) -> dict[str, Any]:
        data = prepare(name)
        if _pools:
            data = {k: v for k, v in data.items() if not k.startswith("init_main_from_")}
        return data

    get_preparation_data.leaves_main_out = True  # type: ignore[attr-defined]
    spawn.get_preparation_data = get_preparation_data
