"""Tokenized documents on disk, for later epochs and runs, shared by any number of processes.

    DIR/shardstream-tokens/usage.json              bytes of all entries, changed under a lock
    DIR/shardstream-tokens/KEY/000012-000003.arrow an entry: a row group of file 12 as tokens
    DIR/shardstream-tokens/KEY/000012.rows.json    where the row groups of file 12 begin

KEY is a hash of source commit, files, columns and tokenizer; shuffle, packing and L are no part of
it, so runs that differ in those share entries. An entry is written under a private name and
published whole. Only files of these names are ever counted or deleted.

A cache smaller than a pass over the data must not throw out what it will need next, as the least
recently used entry of an epoch is. So room is made from other keys' entries only; when there is no
more, what is there stays, and the rest is fetched again.
"""

import json
import logging
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from shardstream.shard_format.storage.local_publish import publishing_file

if TYPE_CHECKING:
    from filelock import BaseFileLock

_log = logging.getLogger("shardstream.loaders")

_ENTRY_NAME = re.compile(r"\d{6}-\d{6,}\.arrow")
_KEY_NAME = re.compile(r"[0-9a-f]{32}")
_LOCK_POLL_SECS = 0.01
_SCHEMA = pa.schema([("row", pa.int64()), ("tokens", pa.large_binary())])


class TokenizedRows(NamedTuple):
    """Rows `first_row` to `end_row` - 1 of a file: documents `rows` (int64[n]) and their tokens.

    `dead` holds the rows that could not become tokens, by reason.
    """

    first_row: int
    end_row: int
    rows: np.ndarray
    tokens: pa.LargeBinaryArray
    dead: dict[str, list[int]]

    def between(self, begin: int, end: int | None) -> "TokenizedRows":
        """Returns the rows from begin to end - 1 (None: all that follow) that are in this block."""
        first, last = max(begin, self.first_row), self.end_row
        last = last if end is None else max(first, min(end, last))
        if (first, last) == (self.first_row, self.end_row):
            return self
        start, stop = np.searchsorted(self.rows, [first, last]).tolist()
        dead = {
            reason: [row for row in rows if first <= row < last]
            for reason, rows in self.dead.items()
        }
        return TokenizedRows(first, last, self.rows[start:stop], self.tokens[start:stop], dead)


class Entry(NamedTuple):
    """A segment of a file as tokens; `is_last` where the file ends with it."""

    blocks: list[TokenizedRows]
    is_last: bool


class TokenCache:
    """The entries of one key.

    Args:
        directory: of the cache, given by the user; made if missing.
        key: 32 hex digits.
        limit_bytes: for the entries of all keys together.

    Guarantees: thread-safe; any number of processes may use one directory.
    """

    def __init__(self, directory: str | os.PathLike[str], key: str, limit_bytes: int) -> None:
        self._root = Path(directory) / "shardstream-tokens"
        self._own = self._root / key
        self._limit = limit_bytes
        self._is_full = False
        self._own.mkdir(parents=True, exist_ok=True)
        self._lock = _lock_of(self._root / "lock")
        with self._lock:
            found = {path: path.stat() for path in self._entries()}
            usage = sum(status.st_size for status in found.values())
            self._set_usage(self._make_room(usage, 0, own_too=True))

    def find(self, file: int, segment: int) -> Entry | None:
        """Returns an entry, its tokens mapped rather than read; None where there is none."""
        path = self._path(file, segment)
        try:
            with pa.memory_map(os.fspath(path)) as stream:
                reader = pa.ipc.open_file(stream)
                read = [
                    reader.get_batch_with_custom_metadata(i)
                    for i in range(reader.num_record_batches)
                ]
            os.utime(path)
        except FileNotFoundError:
            return None
        except (pa.ArrowInvalid, OSError) as error:
            _log.warning("%s: can't be read (%s); fetching it again", path, error)
            return None
        *blocks, (_, end) = read
        return Entry([_block(*item) for item in blocks], end[b"is_last"] == b"1")

    def has(self, file: int, segment: int) -> bool:
        """Says whether there is an entry."""
        return self._path(file, segment).exists()

    def writer(self, file: int, segment: int) -> "EntryWriter | None":
        """Returns what writes an entry, None where the cache is full."""
        return None if self._is_full else EntryWriter(self, self._path(file, segment))

    def read_rows(self, file: int) -> list[int] | None:
        """Returns what `write_rows` kept."""
        try:
            return json.loads((self._own / f"{file:06d}.rows.json").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def write_rows(self, file: int, first_rows: list[int]) -> None:
        """Keeps where the row groups of a file begin, its number of rows last."""
        write_whole(self._own / f"{file:06d}.rows.json", json.dumps(first_rows))

    def publish(self, temporary: Path, target: Path) -> bool:
        """Gives a file its name, room permitting; called by EntryWriter."""
        size = temporary.stat().st_size
        with self._lock:
            usage = self._make_room(self._usage(), size, own_too=False)
            if usage + size > self._limit:
                if not self._is_full:
                    _log.info("%s: full; further documents are fetched each time", self._root)
                self._is_full = True
                temporary.unlink()
                return False
            replaced = target.stat().st_size if target.exists() else 0
            temporary.replace(target)
            self._set_usage(usage + size - replaced)
        return True

    def _make_room(self, usage: int, size: int, *, own_too: bool) -> int:
        """Deletes other keys' entries, those unused for longest first; returns the usage."""
        if usage + size <= self._limit:
            return usage
        found = [
            (path.parent == self._own, path.stat().st_mtime, path)
            for path in self._entries()
            if own_too or path.parent != self._own
        ]
        for _, _, path in sorted(found):
            usage -= path.stat().st_size
            path.unlink()
            if usage + size <= self._limit:
                break
        return usage

    def _entries(self) -> Iterator[Path]:
        for folder in self._root.iterdir():
            if _KEY_NAME.fullmatch(folder.name) and folder.is_dir():
                for path in folder.iterdir():
                    if _ENTRY_NAME.fullmatch(path.name):
                        yield path

    def _path(self, file: int, segment: int) -> Path:
        return self._own / f"{file:06d}-{segment:06d}.arrow"

    def _usage(self) -> int:
        try:
            return int(json.loads((self._root / "usage.json").read_text())["bytes"])
        except (FileNotFoundError, ValueError, KeyError):
            return sum(path.stat().st_size for path in self._entries())

    def _set_usage(self, usage: int) -> None:
        write_whole(self._root / "usage.json", json.dumps({"bytes": usage}))


class EntryWriter:
    """Writes an entry block by block; unseen by others until `close` publishes it."""

    def __init__(self, cache: TokenCache, path: Path) -> None:
        self._cache, self._path = cache, path
        self._temporary = _private_name(path)
        self._file = pa.OSFile(os.fspath(self._temporary), "wb")
        self._writer = pa.ipc.new_file(self._file, _SCHEMA)

    def add(self, block: TokenizedRows) -> None:
        """Writes the next rows."""
        batch = pa.RecordBatch.from_arrays([pa.array(block.rows), block.tokens], schema=_SCHEMA)
        metadata = {
            "first_row": str(block.first_row),
            "end_row": str(block.end_row),
            "dead": json.dumps(block.dead),
        }
        self._writer.write_batch(batch, custom_metadata=metadata)

    def close(self, *, is_last: bool) -> None:
        """Publishes the entry, if there is room for it."""
        empty = pa.RecordBatch.from_pylist([], schema=_SCHEMA)
        self._writer.write_batch(empty, custom_metadata={"is_last": str(int(is_last))})
        self._writer.close()
        self._file.close()
        self._cache.publish(self._temporary, self._path)

    def abandon(self) -> None:
        """Deletes what was written."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def _block(batch: pa.RecordBatch, metadata: Mapping[bytes, bytes]) -> TokenizedRows:
    return TokenizedRows(
        int(metadata[b"first_row"]),
        int(metadata[b"end_row"]),
        batch["row"].to_numpy(),
        batch["tokens"],
        json.loads(metadata[b"dead"]),
    )


def _lock_of(path: Path) -> "BaseFileLock":
    """Returns a lock between all threads and processes that use a file."""
    from filelock import FileLock  # of the extra [hub], as datasets

    return FileLock(path, poll_interval=_LOCK_POLL_SECS)


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is either whole or not there."""
    with publishing_file(path) as private:
        private.write_text(text)


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns a file's content, None where it is missing or broken."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _private_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.incoming")
