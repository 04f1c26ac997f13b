"""Runs a stream: `shardstream stream`.

What differs from a batch build: the log says where an earlier run stopped, readers may follow while
this one writes, and SIGTERM or Ctrl-C ends it in good order: nothing more is read, all that was
read goes into shards and is committed, then the process ends. The same command goes on from there.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from shardstream.pipelines.job.runners import is_local, run, runner_name, stream_args
from shardstream.shard_format.manifest import find_manifest
from shardstream.transforms.errors import JobError
from shardstream.transforms.stream.build_stream import BuildStream
from shardstream.transforms.stream.complete import describe_following
from shardstream.transforms.stream.log import StreamLog
from shardstream.transforms.stream.plan import StreamPlan
from shardstream.transforms.stream.publish import remove_orphans

_POLL_SECS = 0.5
_LINE_SECS = 10.0


def run_stream(plan: StreamPlan, beam_args: Sequence[str], *, progress: bool) -> str:
    """Runs the stream's graph to its end, or until a signal stops it; returns the runner's name.

    Raises:
        transforms.errors.JobError: the job had to stop; its message says why.
    """
    plan.directory.remove(plan.stop_name)
    if plan.shuffle_via == "worker":  # an engine may still hold what it hasn't committed
        remove_orphans(plan, StreamLog(plan.directory, documents=False))
    print(f"{plan.directory}: streaming on {runner_name(beam_args)}", file=sys.stderr, flush=True)
    with stopping_on_signals(plan), _Progress(plan, enabled=progress):
        runner = run(
            BuildStream(plan),
            stream_args(beam_args, is_bounded=not plan.follow_source),
            streaming=not is_local(beam_args),
        )
    print(f"{plan.directory}: ran on {runner}", file=sys.stderr, flush=True)
    _check_end(plan)
    return runner


def _check_end(plan: StreamPlan) -> None:
    """Raises JobError where a stream that has an end, and wasn't stopped, isn't complete."""
    if plan.follow_source or plan.is_stopping:
        return
    manifest = find_manifest(plan.directory)
    if manifest is None or manifest.status != "complete":
        found = describe_following(plan.directory)
        raise JobError(
            f"{plan.directory}: the runner says that the job has ended, with {found['shards']} "
            "shards committed and no complete dataset.json; expected all documents of the source. "
            "Nothing that is committed is lost: run the command again, it goes on from there. On "
            "Flink a stream needs the flags of docs/runners.md."
        )


@contextlib.contextmanager
def stopping_on_signals(plan: StreamPlan) -> Iterator[None]:
    """Turns SIGTERM and SIGINT into the plan's stop file while the block runs; a second one kills.

    A file, because the loops that read may be in other processes or on other machines.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        if plan.is_stopping:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        plan.directory.write(plan.stop_name, b"")
        message = "stopping: what was read is being committed (again to kill)\n"
        os.write(2, message.encode())

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Progress:
    """Prints a line now and then: what the log says."""

    def __init__(self, plan: StreamPlan, *, enabled: bool) -> None:
        self._plan = plan
        self._enabled = enabled
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> None:
        if self._enabled:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._enabled:
            self._thread.join()

    def _watch(self) -> None:
        log = StreamLog(self._plan.directory, documents=False)
        earlier = sum(entry.shard.tokens for entry in log.shards)
        started = last_line = time.monotonic()
        while not self._stop.wait(_POLL_SECS):
            now = time.monotonic()
            if now - last_line >= _LINE_SECS and log.refresh():
                last_line = now
                tokens = sum(entry.shard.tokens for entry in log.shards)
                rate = (tokens - earlier) / (now - started) / 1e6
                text = f"{len(log.shards):,} shards, {tokens:,} tokens, {rate:.1f} Mtok/s"
                print(text, file=sys.stderr, flush=True)
