"""Which failed reads are worth another try, and how long to wait before it.

`huggingface_hub` already repeats single requests (timeouts, connections reset or cut short, 408,
429 with Retry-After, 5xx; 5 times within about 30 s). What it gives up, and what it can't see, such
as a body shorter than promised that only the parquet reader notices, comes here: the partition is
opened again at the first document not yet delivered.
"""

import datetime
import email.utils
import zlib

_NETWORK_PACKAGES = frozenset(("httpx", "httpx2", "httpcore", "aiohttp", "requests", "urllib3"))
_FINAL_STATUS = frozenset((400, 401, 403, 404, 410, 416))
_MAX_BACKOFF_SECS = 60.0
_MAX_RETRY_AFTER_SECS = 600.0  # the hub counts requests in windows of 5 minutes


def is_transient(error: BaseException) -> bool:
    """Says whether reading the same bytes again may succeed, over a network."""
    chain = list(_chain(error))
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
    asked = max((_retry_after(cause) for cause in _chain(error)), default=0.0)
    backoff = min(_MAX_BACKOFF_SECS, base_secs * 2.0 ** (attempt - 1))
    return max(min(_MAX_RETRY_AFTER_SECS, asked), backoff)


def _chain(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


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
