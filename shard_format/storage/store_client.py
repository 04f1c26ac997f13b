"""Buckets of object stores: gs:// and s3://, found and unlocked by the standard environment alone.

    gs://  STORAGE_EMULATOR_HOST (no credentials are used then), else application default
           credentials: GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login`, or
           the machine's service account; GOOGLE_SKIP_SIGNATURE=true for public buckets
    s3://  AWS_ENDPOINT_URL for any S3-compatible store, AWS_REGION, AWS_ACCESS_KEY_ID and
           AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, a role of the machine, web identity; profiles
           in ~/.aws through boto3; AWS_SKIP_SIGNATURE=true for public buckets

One client, obstore, serves the pipeline and the loader alike. A request costs what the network
does, where Beam's S3 file system makes a new client for each; reads are ranged; and a create can be
made to fail where the name is taken, which Beam's file systems don't offer. The client is imported
when the first bucket is opened, so that local directories don't need it.
"""

import functools
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from shardstream.shard_format.messages import first_line

if TYPE_CHECKING:
    from obstore.store import GCSStore, S3Store

# A store that answers nothing but errors for this long is given up; outages of minutes are waited
# out by running the same command again.
RETRY_SECS = 120.0
# Of one request, body included: 8 MB over a line of 1 Mbit/s.
_REQUEST_SECS = 90.0
_FIRST_BACKOFF_SECS = 0.1
_LONGEST_BACKOFF_SECS = 10.0
# What the client signs in with natively; other kinds (workload identity federation, ...) are left
# to google-auth.
_NATIVE_GOOGLE_CREDENTIALS = ("authorized_user", "service_account")

_METADATA_SERVER = "169.254.169.254"

Result = TypeVar("Result")


class BrokenOffError(Exception):
    """An answer that ended before its time; the request is worth repeating."""


class StoreError(OSError):
    """A store failed for as long as it was tried, or refused; the message names the object."""


def split_url(url: str) -> tuple[str, str, str]:
    """Returns (scheme, bucket, prefix) of gs://bucket/prefix; the prefix without slashes around it.

    Raises:
        ValueError: another scheme, or no bucket.
    """
    scheme, separator, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme not in ("gs", "s3") or not separator or not bucket:
        raise ValueError(
            f"{url}: expected a path, gs://bucket/prefix or s3://bucket/prefix. Mount other "
            "stores, or give an S3-compatible one by AWS_ENDPOINT_URL and s3://."
        )
    return scheme, bucket, prefix.strip("/")


def open_bucket(scheme: str, bucket: str) -> "GCSStore | S3Store":
    """Returns an obstore store of a bucket; one a process, threads share it.

    Raises:
        ModuleNotFoundError: the extra `stores` isn't installed.
        StoreError: the credentials that the environment names can't be used.
    """
    return _open_bucket(scheme, bucket, RETRY_SECS, _endpoint(scheme))


def _endpoint(scheme: str) -> str | None:
    if scheme == "gs":
        host = os.environ.get("STORAGE_EMULATOR_HOST")
        return f"http://{host}" if host and "://" not in host else host
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


@functools.cache
def _open_bucket(
    scheme: str, bucket: str, retry_secs: float, endpoint: str | None
) -> "GCSStore | S3Store":
    try:
        from obstore.store import GCSStore, S3Store
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{scheme}://{bucket}: stores need one more package: pip install 'shardstream[stores]'"
        ) from error
    options: dict[str, Any] = {
        "client_options": {
            "timeout": timedelta(seconds=_REQUEST_SECS),
            "allow_http": bool(endpoint and urlsplit(endpoint).scheme == "http"),
        },
        "retry_config": {
            "max_retries": 100,  # time is what counts
            "retry_timeout": timedelta(seconds=retry_secs),
            "backoff": {
                "init_backoff": timedelta(seconds=_FIRST_BACKOFF_SECS),
                "max_backoff": timedelta(seconds=_LONGEST_BACKOFF_SECS),
                "base": 2,
            },
        },
    }
    try:
        if scheme == "gs":
            return GCSStore(bucket, **_google_options(endpoint), **options)
        return S3Store(bucket, **_amazon_options(endpoint), **options)
    except Exception as error:
        raise StoreError(f"{scheme}://{bucket}: can't be opened ({first_line(error)})") from error


def _google_options(endpoint: str | None) -> dict[str, Any]:
    if endpoint:
        token = {"token": "emulator", "expires_at": None}
        return {"config": {"base_url": endpoint}, "credential_provider": lambda: token}
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if named and json.loads(Path(named).read_bytes())["type"] not in _NATIVE_GOOGLE_CREDENTIALS:
        from obstore.auth.google import GoogleCredentialProvider

        return {"credential_provider": GoogleCredentialProvider()}
    return {}


def _amazon_options(endpoint: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if endpoint:
        options["endpoint"] = endpoint
    # The client itself knows the environment and the machine's role, but not ~/.aws.
    own = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE")
    has_profiles = (Path.home() / ".aws").is_dir() or "AWS_PROFILE" in os.environ
    if has_profiles and not any(name in os.environ for name in own):
        from obstore.auth.boto3 import Boto3CredentialProvider

        options["credential_provider"] = Boto3CredentialProvider()
    return options


def retrying(call: Callable[[], Result], where: str) -> Result:
    """Returns what the call does; errors that may pass are tried again for RETRY_SECS.

    The client itself tries again what a server refused (5xx, 429) and connections that failed; this
    is for what it leaves, such as bodies that broke off in the middle.

    Args:
        call: a read or write of one object; repeating it must be harmless.
        where: the object's full address.

    Raises:
        FileNotFoundError: there is no such object.
        StoreError: the store refuses, or failed for too long.
    """
    deadline = time.monotonic() + RETRY_SECS
    pause = _FIRST_BACKOFF_SECS
    while True:
        try:
            with naming_errors(where):
                return call()
        except StoreError as error:
            if isinstance(error, StoreRefusedError) or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, _LONGEST_BACKOFF_SECS)


def get_range(
    store: "GCSStore | S3Store", key: str, begin: int, end: int, where: str
) -> memoryview:
    """Returns bytes begin to end - 1 of an object, all of them.

    Raises:
        FileNotFoundError, StoreError: see `retrying`.
    """
    if begin >= end:
        return memoryview(b"")

    def get() -> memoryview:
        data = memoryview(store.get_range(key, start=begin, end=end))
        if len(data) != end - begin:
            raise BrokenOffError(f"{len(data)} bytes from {begin} on, expected {end - begin}")
        return data

    return retrying(get, where)


class StoreRefusedError(StoreError):
    """The store won't do it, however often it is asked."""


@contextmanager
def naming_errors(where: str) -> Iterator[None]:
    """Turns the client's errors into ones that name the object and what to do.

    FileExistsError and FileNotFoundError, where there is one already or none, stay what they are.
    """
    from obstore import exceptions

    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{where}: there is no such object") from error
    except exceptions.AlreadyExistsError as error:
        raise FileExistsError(f"{where}: is there already") from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise StoreRefusedError(
            f"{where}: access was refused ({first_line(error)}). Check the credentials in the "
            "environment and the bucket's permissions."
        ) from error
    except (exceptions.BaseError, BrokenOffError) as error:
        if _METADATA_SERVER in str(error):  # where the client looks last for credentials
            raise StoreRefusedError(
                f"{where}: no credentials were found. For gs:// set GOOGLE_APPLICATION_CREDENTIALS "
                "or run `gcloud auth application-default login`, for s3:// set AWS_ACCESS_KEY_ID "
                "and AWS_SECRET_ACCESS_KEY; GOOGLE_SKIP_SIGNATURE=true or AWS_SKIP_SIGNATURE=true "
                "reads public buckets."
            ) from error
        raise StoreError(
            f"{where}: the store failed ({first_line(error)}). Run the command again when it "
            "answers; nothing that was done is lost."
        ) from error
