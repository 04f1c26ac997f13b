"""Batches made ahead of the caller by one thread, which `close` ends without leaving anything."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

_log = logging.getLogger("shardstream.loaders")


ItemT = TypeVar("ItemT")


class Prefetcher(Generic[ItemT]):
    """Runs a generator in a thread, a bounded number of batches ahead.

    Args:
        items: generator of (number of batches, item); it is closed in the thread it ran in.
        depth: batches to hold; one item more is being made.
        stall_secs: a longer wait is logged, and again each time as much has passed.
        explain: says what is being waited for.

    Guarantees: items come in order; the generator's exception is raised in the caller, after the
    items before it; close() returns when the thread has ended.
    """

    def __init__(
        self,
        items: Generator[tuple[int, ItemT], None, None],
        *,
        depth: int,
        stall_secs: float,
        explain: Callable[[], str],
    ) -> None:
        self._depth, self._stall_secs, self._explain = depth, stall_secs, explain
        self._ready: deque[tuple[int, ItemT]] = deque()
        self._num_ready = 0
        self._changed = threading.Condition()
        self._ended = self._closing = False
        self._error: BaseException | None = None
        # A daemon, so that the interpreter can end without close().
        self._thread = threading.Thread(
            target=self._run, args=(items,), name="shardstream-prefetch", daemon=True
        )
        self._thread.start()

    def _run(self, items: Generator[tuple[int, ItemT], None, None]) -> None:
        try:
            for item in items:
                with self._changed:
                    self._ready.append(item)
                    self._num_ready += item[0]
                    self._changed.notify_all()
                    while self._num_ready >= self._depth and not self._closing:
                        self._changed.wait()
                    if self._closing:
                        return
        except BaseException as error:  # of any kind: it is handed to the caller
            self._error = error
        finally:
            items.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def get(self) -> tuple[int, ItemT]:
        """Returns the next item.

        Raises:
            StopIteration: the generator ended.
            Exception: what the generator raised.
        """
        with self._changed:
            started = time.monotonic()
            while not self._ready and not self._ended:
                if not self._changed.wait(self._stall_secs):
                    waited = time.monotonic() - started
                    _log.warning("no batch for %.1f s: %s", waited, self._explain())
            if self._ready:
                item = self._ready.popleft()
                self._num_ready -= item[0]
                self._changed.notify_all()
                return item
        if self._error is not None:
            raise self._error
        raise StopIteration

    def is_ready(self) -> bool:
        """Says whether get() would return at once."""
        return bool(self._ready)

    def close(self) -> None:
        """Ends the thread; may be called again."""
        with self._changed:
            self._closing = True
            self._ready.clear()
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()
