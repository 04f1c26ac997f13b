"""Which failed reads are worth another try, and how long to wait before it.

`huggingface_hub` already repeats single requests (timeouts, connections reset or cut short, 408,
429 with Retry-After, 5xx; 5 times within about 30 s). What it gives up, and what it can't see, such
as a body shorter than promised that only the parquet reader notices, comes here: the partition is
opened again at the first document not yet delivered.
"""

import datetime
import email.utils
import logging
import threading
import zlib
from collections.abc import Callable
from typing import TypeVar

from shardstream.loaders.hub.options import FetchOptions
from shardstream.tokens.load import chain_of_causes

_log = logging.getLogger("shardstream.loaders")
_T = TypeVar("_T")

_NETWORK_PACKAGES = frozenset(("httpx", "httpx2", "httpcore", "aiohttp", "requests", "urllib3"))
_FINAL_STATUS = frozenset((400, 401, 403, 404, 410, 416))
_MAX_BACKOFF_SECS = 60.0
_MAX_RETRY_AFTER_SECS = 600.0  # the hub counts requests in windows of 5 minutes


class StreamError(RuntimeError):
    """Documents can't be read, or no longer; the message says which and what was tried."""


class Stopped(Exception):
    """The stream was closed while it waited."""


class Retry:
    """Decides about failed reads, and waits.

    Args:
        options: how often, and how long to wait.
        stopping: set to end waits.
    """

    def __init__(self, options: FetchOptions, stopping: threading.Event) -> None:
        self._options, self._stopping = options, stopping

    def failed(self, url: str, row: int, attempts: int, error: Exception) -> None:
        """Returns when it is time for another attempt.

        Args:
            url: of the file.
            row: of the first document that is missing.
            attempts: failed in a row.
            error: of the last one.

        Raises:
            StreamError: the error is final, or there were attempts enough.
            Stopped: the stream was closed.
        """
        where = f"{url}, row {row}"
        what = f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}"
        if "://" not in url or not is_transient(error):
            raise StreamError(f"{where}: can't be read ({what}).") from error
        if attempts > self._options.retries:
            raise StreamError(
                f"{where}: {attempts} attempts in a row brought no document (the last: {what}). "
                "Check the network and the file. get_state() after the last batch is where to go "
                "on; retries=... allows more attempts."
            ) from error
        pause = wait_secs(error, attempts, self._options.retry_secs)
        _log.warning("%s: %s; attempt %d in %.1f s", where, what, attempts + 1, pause)
        if self._stopping.wait(pause):
            raise Stopped

    def call(self, url: str, action: Callable[[], _T]) -> _T:
        """Returns what an action does with a file, tried as often as any read."""
        attempts = 0
        while True:
            try:
                return action()
            except Exception as error:
                attempts += 1
                self.failed(url, 0, attempts, error)


def is_transient(error: BaseException) -> bool:
    """Says whether reading the same bytes again may succeed, over a network."""
    chain = chain_of_causes(error)
    if any(_status(cause) in _FINAL_STATUS for cause in chain):
        return False
    if any(isinstance(cause, FileNotFoundError | PermissionError) for cause in chain):
        return False
    return any(
        isinstance(cause, OSError | EOFError | zlib.error | ValueError)
        or type(cause).__module__.split(".")[0] in _NETWORK_PACKAGES
        for cause in chain
    )


def wait_secs(error: BaseException, attempt: int, base_secs: float) -> float:
    """Returns how long to wait before attempt + 1: doubled each time, and at least Retry-After.

    Args:
        error: of the last attempt.
        attempt: failed so far, from 1.
        base_secs: wait after the first.
    """
    asked = max((_retry_after(cause) for cause in chain_of_causes(error)), default=0.0)
    backoff = min(_MAX_BACKOFF_SECS, base_secs * 2.0 ** (attempt - 1))
    return max(min(_MAX_RETRY_AFTER_SECS, asked), backoff)


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _retry_after(error: BaseException) -> float:
    headers = getattr(getattr(error, "response", None), "headers", None)
    value = headers.get("Retry-After") if headers is not None else None
    if not value:
        return 0.0
    if value.isdigit():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (date - datetime.datetime.now(date.tzinfo)).total_seconds())
