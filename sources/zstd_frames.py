"""zstd: unpacks frames, and follows them block by block to say whether the last one is whole.

The library takes the end of the bytes for the end of the data; a file that was cut short would
pass for a shorter one. The layout of frames is that of RFC 8878, section 3.1.
"""

from collections.abc import Callable
from typing import IO, cast

import zstandard

from shardstream.sources.errors import PackedDataError

_READ_BYTES = 1 << 17
# Frames of `zstd --long=31`, as large archives have them, need this much memory to be unpacked.
_WINDOW_BYTES = 1 << 31
_MAGIC, _SKIPPABLE_MAGIC = 0xFD2FB528, 0x184D2A50
_DICTIONARY_ID_BYTES, _CONTENT_SIZE_BYTES = (0, 1, 2, 4), (0, 2, 4, 8)
_RUN_LENGTH_BLOCK, _RESERVED_BLOCK = 1, 3


class FrameUnpacker:
    """Unpacks the frames of a file, one after another.

    Args:
        source: compressed.
    """

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.restart()

    def restart(self) -> None:
        """Begins with the bytes at which the source stands."""
        self._ends = FrameEnds()
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
        watched = cast("IO[bytes]", _Watched(self._source, self._ends))  # all it needs is read()
        self._reader = decompressor.stream_reader(
            watched, read_size=_READ_BYTES, read_across_frames=True
        )

    def readinto(self, target: memoryview) -> int:
        """Fills a buffer, at least one byte of it before the end; 0 is the proven end."""
        try:
            num_bytes = self._reader.readinto(target)
        except zstandard.ZstdError as error:
            raise PackedDataError(f"the zstd data are damaged ({error})") from error
        if not num_bytes and not self._ends.is_complete:
            raise PackedDataError("the zstd data end too early, expected the end of their frame")
        return num_bytes


class _Watched:
    """A file whose bytes are shown to FrameEnds as they are read."""

    def __init__(self, source: IO[bytes], ends: "FrameEnds") -> None:
        self._source = source
        self._ends = ends

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._ends.feed(data)
        return data


class FrameEnds:
    """Follows zstd frames block by block, to say whether the bytes so far end with a frame."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._wanted = 4
        self._to_pass = 0
        self._take: Callable[[int], None] = self._take_magic
        self._checksum_bytes = 0

    @property
    def is_complete(self) -> bool:
        """Whether the last frame is whole."""
        return self._take == self._take_magic and not self._header and not self._to_pass

    def feed(self, data: bytes) -> None:
        """Takes the next bytes of the file."""
        begin = 0
        while begin < len(data):
            if self._to_pass:
                passed = min(self._to_pass, len(data) - begin)
                self._to_pass -= passed
                begin += passed
                continue
            taken = data[begin : begin + self._wanted - len(self._header)]
            self._header += taken
            begin += len(taken)
            if len(self._header) == self._wanted:
                value = int.from_bytes(self._header, "little")
                self._header.clear()
                self._take(value)

    def _expect(self, take: Callable[[int], None], num_bytes: int) -> None:
        self._take, self._wanted = take, num_bytes

    def _take_magic(self, magic: int) -> None:
        if magic == _MAGIC:
            self._expect(self._take_descriptor, 1)
        elif magic & ~0xF == _SKIPPABLE_MAGIC:
            self._expect(self._take_skippable_size, 4)
        else:
            raise PackedDataError(f"the zstd data are damaged (a frame begins with {magic:#010x})")

    def _take_skippable_size(self, size: int) -> None:
        self._to_pass = size
        self._expect(self._take_magic, 4)

    def _take_descriptor(self, descriptor: int) -> None:
        is_single_segment = descriptor >> 5 & 1
        content_size_bytes = _CONTENT_SIZE_BYTES[descriptor >> 6] or is_single_segment
        window_bytes = 1 - is_single_segment
        self._to_pass = window_bytes + _DICTIONARY_ID_BYTES[descriptor & 3] + content_size_bytes
        self._checksum_bytes = 4 * (descriptor >> 2 & 1)
        self._expect(self._take_block, 3)

    def _take_block(self, header: int) -> None:
        is_last, kind, size = header & 1, header >> 1 & 3, header >> 3
        if kind == _RESERVED_BLOCK:
            raise PackedDataError("the zstd data are damaged (a block of a reserved type)")
        self._to_pass = 1 if kind == _RUN_LENGTH_BLOCK else size
        if is_last:
            self._to_pass += self._checksum_bytes
            self._expect(self._take_magic, 4)
