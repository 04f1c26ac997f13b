"""Compressed files: each is read to its proven end, or refused by name; every codec, every cut."""

import bz2
import functools
import gzip
import io
import itertools
import lzma
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import zstandard

from shardstream.sources.compressed import codec_of, open_unpacked
from shardstream.sources.errors import PackedDataError, SourceError
from shardstream.sources.options import SourceOptions
from shardstream.sources.partitions import list_partitions
from shardstream.sources.read import read_blocks
from shardstream.sources.resolve import resolve

_EXTENSIONS = {"gzip": "gz", "bz2": "bz2", "xz": "xz", "zstd": "zst", "lz4": "lz4"}
_CUTS = ("in the first header", "in the first frame", "in the last frame", "last byte")


def _pack(codec: str) -> Callable[[bytes], bytes]:
    if codec == "lz4":
        return pytest.importorskip("lz4.frame").compress
    plain = {"gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    if codec == "zstd":
        return zstandard.ZstdCompressor(write_checksum=True).compress
    return plain[codec]


def _cut(frames: list[bytes], where: str) -> bytes:
    data, last = b"".join(frames), len(frames[-1])
    ends = {
        "in the first header": 3,
        "in the first frame": len(frames[0]) // 2,
        "between frames": len(frames[0]),
        "in the last frame": len(data) - last // 2,
        "last byte": len(data) - 1,
    }
    return data[: ends[where]]


def _lines(first: int, count: int) -> bytes:
    noise = np.random.default_rng(first).integers(1 << 60, size=count)
    return b"".join(b"line %d %d\n" % (first + i, n) for i, n in enumerate(noise.tolist()))


@pytest.mark.parametrize("codec", _EXTENSIONS)
def test_every_cut_but_between_frames_is_refused(codec: str) -> None:
    pack = _pack(codec)
    plain = [_lines(0, 500), b"", b"tail\n" * 40_000]
    frames = [pack(piece) for piece in plain]
    data = b"".join(frames)
    ends = dict(
        zip(itertools.accumulate(map(len, frames)), itertools.accumulate(plain), strict=True)
    )
    ends[0] = b""
    assert codec_of(data[:6]) == codec
    near = {cut for end in ends for cut in range(end - 12, end + 13) if 0 <= cut <= len(data)}
    for cut in sorted(near | set(range(0, len(data), 997))):
        unpacked = open_unpacked(io.BytesIO(data[:cut]), codec)
        if cut in ends:
            assert unpacked.read() == ends[cut], cut
            continue
        with pytest.raises(PackedDataError, match="too early"):
            unpacked.read()


@pytest.mark.parametrize("codec", _EXTENSIONS)
def test_unpacked_file_goes_back_and_forth(codec: str) -> None:
    plain = _lines(0, 3000)
    unpacked = open_unpacked(io.BytesIO(_pack(codec)(plain)), codec)
    for place in (5000, 10, 60_000, 0):
        assert unpacked.seek(place) == place
        assert unpacked.read(50) == plain[place : place + 50]
    assert unpacked.seek(0, io.SEEK_END) == len(plain)


@pytest.mark.parametrize("codec", _EXTENSIONS)
def test_damaged_bytes_are_refused(codec: str) -> None:
    data = bytearray(_pack(codec)(_lines(0, 3000)) * 2)
    data[len(data) // 2 : len(data) // 2 + 2] = b"\xff\xff"  # the second stream's magic
    with pytest.raises(PackedDataError):
        open_unpacked(io.BytesIO(bytes(data)), codec).read()


def test_a_small_file_that_unpacks_to_much_is_unpacked_in_small_pieces() -> None:
    for codec in ("gzip", "bz2", "xz", "zstd"):
        unpacked = open_unpacked(io.BytesIO(_pack(codec)(bytes(64 << 20))), codec)
        assert len(unpacked.read1(1 << 16)) <= 1 << 17


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which it is served, without byte ranges."""
    folder = tmp_path_factory.mktemp("web")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def _read(url: str) -> int:
    options = SourceOptions(dataset="text", data_files=(url,))
    source = resolve(options)
    partitions = list_partitions(source.files, source.read_spec)
    return sum(b.num_read for p in partitions for b in read_blocks(p, source.read_spec))


@pytest.mark.parametrize("transport", ["local", "http"])
@pytest.mark.parametrize("codec", _EXTENSIONS)
def test_source_of_several_frames_is_read_whole_or_refused_by_name(
    web: tuple[Path, str], codec: str, transport: str
) -> None:
    folder, address = web
    frames = [_pack(codec)(_lines(first, 2000)) for first in (0, 2000, 4000)]

    def put(name: str, data: bytes) -> str:
        path = folder / f"{transport}-{name}.txt.{_EXTENSIONS[codec]}"
        path.write_bytes(data)
        return f"{address}/{path.name}" if transport == "http" else str(path)

    assert _read(put("whole", b"".join(frames))) == 6000
    assert _read(put("between", _cut(frames, "between frames"))) == 2000
    for number, where in enumerate(_CUTS):
        url = put(f"cut-{number}", _cut(frames, where))
        with pytest.raises(SourceError, match=f"{transport}-cut-{number}"):
            _read(url)


_PLAIN = {
    "text": lambda count: _lines(0, count),
    "json": lambda count: b"".join(b'{"text": "line %d"}\n' % i for i in range(count)),
    "csv": lambda count: b"text,n\n" + b"".join(b"line %d,1\n" % i for i in range(count)),
}


@pytest.mark.parametrize("module", _PLAIN)
@pytest.mark.parametrize("place", ["local", "http"])
@pytest.mark.parametrize("left", [0.0, 0.5, 0.999])
def test_plain_file_shorter_than_it_was_listed_is_refused(
    tmp_path: Path, module: str, place: str, left: float, request: pytest.FixtureRequest
) -> None:
    data = _PLAIN[module](3000)
    path = tmp_path / f"file.{'jsonl' if module == 'json' else module}"
    path.write_bytes(data)
    url = str(path)
    if place == "http":
        server = ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        request.addfinalizer(server.shutdown)
        url = f"http://127.0.0.1:{server.server_port}/{path.name}"
    source = resolve(SourceOptions(dataset=module, data_files=(url,)))
    path.write_bytes(data[: int(len(data) * left)])
    partitions = list_partitions(source.files, source.read_spec)
    with pytest.raises(SourceError, match=rf"{path.name}.*ends after .* bytes, expected"):
        list(itertools.chain.from_iterable(read_blocks(p, source.read_spec) for p in partitions))
