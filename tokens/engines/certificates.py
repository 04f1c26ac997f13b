"""Certificates kept on disk, so that one machine certifies an engine once.

Invariant: a certificate is found again only under exactly what it was made for: tokenizer
fingerprint, engine, special-token mode, and the versions of both the engine and the reference. A
file is written whole or not at all, a damaged or foreign one is made anew, and processes that need
the same one wait for the first instead of each making it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock

from shardstream.shard_format.storage.local_publish import publishing_file
from shardstream.tokens.engines.certify import Certificate
from shardstream.tokens.engines.code_points import NUM_CODE_POINTS, CodePointSet

# Raise when probes or the meaning of a certificate change: certificates of old formats are ignored.
FORMAT_VERSION = 1

_log = logging.getLogger(__name__)


def cache_directory() -> Path:
    """`$SHARDSTREAM_CACHE`, or `shardstream` in the XDG cache directory."""
    if chosen := os.environ.get("SHARDSTREAM_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "shardstream"


def certificate_for(key: dict[str, str], make: Callable[[], Certificate]) -> Certificate:
    """Reads the certificate of `key`, or makes and keeps it.

    Args:
        key: everything the certificate depends on.
        make: compares the engines; called at most once.

    Guarantees: a cache that cannot be read or written costs time, never an error.
    """
    key = key | {"format": str(FORMAT_VERSION)}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = cache_directory() / "certificates" / f"{key['engine']}-{digest[:32]}.npz"
    if found := _read(path, key):
        return found
    with _only_one(path):
        if found := _read(path, key):
            return found
        certificate = make()
        _write(path, key, certificate)
    return certificate


def _read(path: Path, key: dict[str, str]) -> Certificate | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            header = json.loads(bytes(archive["header"]))
            bits = archive["code_points"]
            if header["key"] != key:
                return None
            members = np.unpackbits(bits).astype(bool) if len(bits) else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _log.warning("%s is damaged (%s): the engine is certified again.", path, error)
        return None
    if members is not None and len(members) != NUM_CODE_POINTS:
        return None
    return Certificate(
        failure=header["failure"],
        code_points=None if members is None else CodePointSet(members),
        unsafe_literals=tuple(header["unsafe_literals"]),
    )


def _write(path: Path, key: dict[str, str], certificate: Certificate) -> None:
    header = {
        "key": key,
        "failure": certificate.failure,
        "unsafe_literals": certificate.unsafe_literals,
    }
    points = certificate.code_points
    bits = np.zeros(0, np.uint8) if points is None else np.packbits(points.members)
    header_bytes = np.frombuffer(json.dumps(header).encode(), np.uint8)
    try:
        with publishing_file(path) as private, private.open("wb") as file:
            np.savez_compressed(file, header=header_bytes, code_points=bits)
    except OSError as error:
        _log.warning("cannot keep the certificate %s (%s): set SHARDSTREAM_CACHE.", path, error)


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Holds a lock file while a certificate is made; the system frees it if the holder dies."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError):  # a file system without locks, or read-only: made twice
        yield
        return
    try:
        yield
    finally:
        lock.release()
