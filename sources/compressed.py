"""Decompresses a file to its proven end, whatever opened it.

A compressed file that was cut short must not pass for a shorter one. Some of the readers that
fsspec brings take the end of the bytes for the end of the data, and others stop at the first
stream of a file that has several. All codecs go through one loop here. Invariant: the bytes of
each stream are complete, or `PackedDataError` is raised after the data that came out before;
between two streams, and in a file of no bytes, the data may end.
The codecs are registered with fsspec, because `datasets` opens compressed files through it.
"""

import bz2
import importlib.util
import io
import lzma
import sys
import zlib
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Protocol, cast

import fsspec.compression

from shardstream.sources.errors import PackedDataError
from shardstream.sources.zstd_frames import FrameUnpacker

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_READ_BYTES = 1 << 17


class Decompressor(Protocol):
    """One stream of compressed data: the interface of bz2.BZ2Decompressor."""

    @property
    def eof(self) -> bool:
        """Whether the end of the stream was found."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out before more goes in."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What follows the end of the stream."""
        ...

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Returns at most max_length bytes."""
        ...


class GzipDecompressor:
    """zlib's object for one gzip member, with the interface that the other codecs have."""

    def __init__(self) -> None:
        self._object = zlib.decompressobj(zlib.MAX_WBITS | 16)

    @property
    def eof(self) -> bool:
        """Whether the end of the member was found, its checksum and length included."""
        return self._object.eof

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out before more goes in."""
        return not self._object.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        """What follows the member."""
        return self._object.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Returns at most max_length bytes."""
        return self._object.decompress(self._object.unconsumed_tail + data, max_length)


class StreamUnpacker:
    """Unpacks one compressed stream after another, as gzip, bzip2, xz and lz4 files have them.

    Args:
        source: compressed.
        codec: its name, for messages.
        new_stream: makes a decompressor.
    """

    def __init__(
        self, source: IO[bytes], codec: str, new_stream: Callable[[], Decompressor]
    ) -> None:
        self._source = source
        self._codec = codec
        self._new_stream = new_stream
        self.restart()

    def restart(self) -> None:
        """Begins with the bytes at which the source stands."""
        self._stream: Decompressor | None = None
        self._ahead = b""
        self._num_streams = 0

    def readinto(self, target: memoryview) -> int:
        """Fills a buffer, at least one byte of it before the end; 0 is the proven end."""
        while True:
            stream = self._stream or self._next_stream()
            if stream is None:
                return 0
            data = self._unpack(stream, len(target))
            if data:
                target[: len(data)] = data
                return len(data)

    def _next_stream(self) -> Decompressor | None:
        """Returns a decompressor if there is a further stream; zeros between two are padding."""
        while True:
            self._ahead = self._ahead or self._source.read(_READ_BYTES)
            if not self._ahead:
                return None
            if self._num_streams:
                self._ahead = self._ahead.lstrip(b"\0")
            if self._ahead:
                self._num_streams += 1
                self._stream = self._new_stream()
                return self._stream

    def _unpack(self, stream: Decompressor, max_bytes: int) -> bytes:
        if not self._ahead and stream.needs_input:
            self._ahead = self._source.read(_READ_BYTES)
            if not self._ahead:
                raise PackedDataError(
                    f"the {self._codec} data end too early, expected the end of their stream"
                )
        try:
            data = stream.decompress(self._ahead, max_bytes)
        except (OSError, RuntimeError, lzma.LZMAError, zlib.error) as error:
            raise PackedDataError(f"the {self._codec} data are damaged ({error})") from error
        self._ahead = b""
        if stream.eof:
            self._ahead, self._stream = stream.unused_data, None
        return data


class UnpackedFile(io.RawIOBase):
    """A file as it was before compression; goes back by beginning again, as gzip's does.

    Args:
        source: compressed; closed with this one.
        unpack: makes the unpacker of a file.
    """

    def __init__(
        self, source: IO[bytes], unpack: Callable[[IO[bytes]], StreamUnpacker | FrameUnpacker]
    ) -> None:
        self._source = source
        self._unpacker = unpack(source)
        self._position = 0

    def readable(self) -> bool:
        """Says that it can be read."""
        return True

    def seekable(self) -> bool:
        """Says whether the compressed file can be read again."""
        return self._source.seekable()

    def readinto(self, target: "WriteableBuffer", /) -> int:
        """Fills a buffer, at least one byte of it before the end."""
        num_bytes = self._unpacker.readinto(memoryview(target).cast("B"))
        self._position += num_bytes
        return num_bytes

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Goes to a place in the unpacked data, by unpacking what comes before it."""
        if whence == io.SEEK_END:
            while self.read(_READ_BYTES):
                pass
        target = offset if whence == io.SEEK_SET else self._position + offset
        if target < self._position:
            self._source.seek(0)
            self._unpacker.restart()
            self._position = 0
        while self._position < target and self.read(min(_READ_BYTES, target - self._position)):
            pass
        return self._position

    def tell(self) -> int:
        """Returns the place in the unpacked data."""
        return self._position

    def close(self) -> None:
        """Closes the compressed file too."""
        if not self.closed:
            self._source.close()
        super().close()


def _bz2_stream(source: IO[bytes]) -> StreamUnpacker:
    return StreamUnpacker(source, "bzip2", bz2.BZ2Decompressor)


def _gzip_stream(source: IO[bytes]) -> StreamUnpacker:
    return StreamUnpacker(source, "gzip", GzipDecompressor)


def _xz_stream(source: IO[bytes]) -> StreamUnpacker:
    return StreamUnpacker(source, "xz", lzma.LZMADecompressor)


def _lz4_stream(source: IO[bytes]) -> StreamUnpacker:
    frame = importlib.import_module("lz4.frame")
    return StreamUnpacker(source, "lz4", frame.LZ4FrameDecompressor)


_UNPACKERS = {
    "bz2": _bz2_stream,
    "gzip": _gzip_stream,
    "lz4": _lz4_stream,
    "xz": _xz_stream,
    "zstd": FrameUnpacker,
}
_EXTENSIONS = {"bz2": ".bz2", "gzip": ".gz", "lz4": ".lz4", "xz": ".xz", "zstd": ".zst"}
_MAGIC = {
    b"BZh": "bz2",
    b"\x1f\x8b": "gzip",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


def open_unpacked(source: IO[bytes], codec: str) -> io.BufferedReader:
    """Returns a file as it was before compression.

    Args:
        source: compressed, at its begin; closed with the answer.
        codec: "bz2", "gzip", "lz4", "xz" or "zstd".
    """
    return io.BufferedReader(UnpackedFile(source, _UNPACKERS[codec]), _READ_BYTES)


def codec_of(first_bytes: bytes) -> str | None:
    """Returns the codec that a file of these first bytes (6 tell all) has, None for no codec."""
    return next((c for magic, c in _MAGIC.items() if first_bytes.startswith(magic)), None)


def register() -> None:
    """Makes fsspec, and so `datasets`, read compressed files by this module; writing stays."""
    openers = cast("dict[str, Callable[..., IO[bytes]]]", fsspec.compression.compr)
    for codec in _UNPACKERS:
        before = openers.get(codec)
        if codec == "lz4" and importlib.util.find_spec("lz4") is None:
            continue
        opener = _Opener(codec, before)
        extension = _EXTENSIONS[codec].lstrip(".")
        fsspec.compression.register_compression(codec, opener, extension, force=True)
        already = sys.modules.get("datasets.filesystems")
        if already is not None:  # it keeps a table of its own, for members of archives
            known = already.EXTENSION_TO_COMPRESSION_FS_FILE_CLS
            known |= {name: opener for name, kept in known.items() if kept is before}


class _Opener:
    """Opens a compressed file as fsspec asks: reads by this module, writes as before."""

    def __init__(self, codec: str, before: Callable[..., IO[bytes]] | None) -> None:
        self._codec = codec
        self._before = before.before if isinstance(before, _Opener) else before

    @property
    def before(self) -> Callable[..., IO[bytes]] | None:
        """What fsspec used before."""
        return self._before

    def __call__(self, infile: IO[bytes], mode: str = "rb", **options: object) -> IO[bytes]:
        if "r" in mode:
            return open_unpacked(infile, self._codec)
        if self._before is None:
            raise ValueError(f"mode {mode!r}: nothing here writes {self._codec}")
        return self._before(infile, mode=mode, **options)
