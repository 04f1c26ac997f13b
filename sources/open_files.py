"""Opens a file of the source for reading from start to end, unpacked, as `datasets` would.

A zip archive is read member by member; other archives and plain files are one stream.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import IO, cast

from datasets import DownloadConfig
from datasets.download.streaming_download_manager import StreamingDownloadManager
from datasets.utils.file_utils import xopen

from shardstream.sources.errors import EndsTooEarlyError
from shardstream.sources.spec import SourceFile

_CHUNK_BYTES = 1 << 16


@contextlib.contextmanager
def open_stream(
    url: str, *, unpack: bool = True, num_bytes: int | None = None
) -> Iterator[IO[bytes]]:
    """Opens one file or archive member, decompressed unless told otherwise.

    Args:
        url: of the file or member.
        unpack: decompress what is compressed.
        num_bytes: size of the file as it was listed; a plain file that ends before is refused, as
            a compressed one is by its own format. None where that isn't known.
    """
    path = StreamingDownloadManager().extract(url) if unpack else url
    with xopen(path, "rb", download_config=DownloadConfig()) as stream:
        if path == url and num_bytes is not None:
            yield io.BufferedReader(_ToTheEnd(cast(IO[bytes], stream), num_bytes), _CHUNK_BYTES)
        else:
            yield cast(IO[bytes], stream)


class _ToTheEnd(io.RawIOBase):
    """Reads a stream, and raises where it ends too early: a body cut short, a file replaced."""

    def __init__(self, stream: IO[bytes], num_bytes: int) -> None:
        self._stream = stream
        self._num_bytes = num_bytes
        self._num_read = 0

    def readable(self) -> bool:
        """Says yes."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fills a buffer from the stream; returns how far."""
        view = memoryview(buffer).cast("B")
        data = self._stream.read(len(view))
        view[: len(data)] = data
        self._num_read += len(data)
        if not data and len(view) and self._num_read < self._num_bytes:
            raise EndsTooEarlyError(
                f"ends after {self._num_read} bytes, expected the {self._num_bytes} that it was "
                "listed with: the file was replaced, or its transfer was cut short"
            )
        return len(data)


def members_of(url: str) -> Iterator[str]:
    """Yields what a file holds as URLs for `open_stream`: itself, or the members of an archive."""
    manager = StreamingDownloadManager()
    unpacked = manager.extract(url)
    if unpacked == url and "://" not in url:
        yield url
    elif unpacked.startswith("zip://"):
        yield from manager.iter_files(unpacked)
    else:
        yield url


def listed_size(member: str, file: SourceFile) -> int | None:
    """Returns the size that a member must have; None where it is not the file itself."""
    return file.bytes if member == file.url else None


class LineReader:
    """Reads a stream in chunks of whole lines, and no line longer than a limit.

    Args:
        stream: binary.
        limit: bytes of a line; longer ones are passed over without being held.
    """

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._ahead = b""

    def read_chunk(self, num_bytes: int) -> tuple[bytes, int]:
        """Returns (lines, oversize): num_bytes and what is left of their last line.

        Where they end with a line, the next one is added, as `datasets` does.
        Where that line is too long it is left out of `lines`, and `oversize` is its length; both
        are empty at the end.
        """
        chunk = self._take(num_bytes)
        if not chunk:
            return chunk, 0
        line_begin = chunk.rfind(b"\n") + 1
        pieces, length = [chunk], len(chunk) - line_begin
        while True:
            piece = self._take(_CHUNK_BYTES)
            end = piece.find(b"\n") + 1
            if end:
                self._ahead = piece[end:] + self._ahead
                piece = piece[:end]
            length += len(piece)
            if length <= self._limit:
                pieces.append(piece)
            if end or not piece:
                break
        if length > self._limit:
            return chunk[:line_begin], length
        return b"".join(pieces), 0

    def read_rest(self) -> bytes:
        """Returns all that is left."""
        rest = self._ahead + self._stream.read()
        self._ahead = b""
        return rest

    def _take(self, num_bytes: int) -> bytes:
        if len(self._ahead) >= num_bytes:
            taken, self._ahead = self._ahead[:num_bytes], self._ahead[num_bytes:]
            return taken
        pieces, have = [self._ahead], len(self._ahead)
        self._ahead = b""
        while have < num_bytes:
            piece = self._stream.read(num_bytes - have)
            if not piece:
                break
            pieces.append(piece)
            have += len(piece)
        return b"".join(pieces)
