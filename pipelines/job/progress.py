"""Progress of a running build, read from the marks it leaves on disk, whatever the runner.

Where an engine keeps what waits there is nothing of it on disk, and only shards are counted. On a
terminal a tqdm bar, elsewhere a plain line now and then; both on stderr.
"""

import json
import sys
import threading
import time
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

from shardstream.transforms.batch.spill import SPILLED
from shardstream.transforms.plan import BuildPlan

_POLL_SECS = 0.5
_LINE_SECS = 10.0


class Progress:
    """Shows documents, tokens, tokens/s and shards while a `with` block runs.

    Args:
        plan: of the build.
        enabled: False shows nothing.
        stream: where to.
    """

    def __init__(self, plan: BuildPlan, *, enabled: bool, stream: TextIO | None = None) -> None:
        self._plan = plan
        self._enabled = enabled
        self._stream = stream or sys.stderr
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self._seen: dict[str, dict[str, int]] = {}
        self._shards: set[str] = set()

    def __enter__(self) -> Self:
        if self._enabled:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._enabled:
            self._thread.join()

    def _watch(self) -> None:
        is_terminal = self._stream.isatty()
        started = time.monotonic()
        last_line = started
        bar = tqdm(
            total=self._plan.num_buckets,
            unit="shard",
            file=self._stream,
            disable=not is_terminal,
            leave=False,
        )
        with bar:
            first_tokens = self._poll()["tokens_in"]  # of an earlier, interrupted run
            while not self._stop.wait(_POLL_SECS):
                totals = self._poll()
                now = time.monotonic()
                rate = (totals["tokens_in"] - first_tokens) / (now - started)
                text = ""
                if self._plan.shuffle_via == "files":
                    text = (
                        f"{totals['documents_read']:,} documents, {totals['tokens_in']:,} tokens, "
                        f"{rate / 1e6:.1f} Mtok/s, "
                    )
                bar.set_postfix_str(text.removesuffix(", "), refresh=False)
                bar.update(len(self._shards) - bar.n)
                bar.refresh()
                if not is_terminal and now - last_line >= _LINE_SECS:
                    last_line = now
                    shards = f"{len(self._shards)} of {self._plan.num_buckets} shards"
                    print(f"{text}{shards}", file=self._stream, flush=True)

    def _poll(self) -> dict[str, int]:
        directory = self._plan.directory
        for name in directory.list(self._plan.work_name(SPILLED)):
            if name not in self._seen:
                self._seen[name] = json.loads(directory.read(name))["counts"]
        self._shards.update(directory.list(self._plan.work_name("shards")))
        totals = {"documents_read": 0, "tokens_in": 0}
        for counts in self._seen.values():
            for name in totals:
                totals[name] += counts.get(name, 0)
        return totals
