"""The cache of tokens: whole entries, a limit that holds, and nothing deleted that isn't its own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shardstream.loaders.hub.cache import TokenCache, TokenizedRows

KEYS = ["a" * 32, "b" * 32]


def _block(first: int = 0, count: int = 100) -> TokenizedRows:
    """Rows first to first + count - 1, row 3 of them dead."""
    rows = np.delete(np.arange(first, first + count), 3)
    tokens = pa.array([str(row).encode() for row in rows], pa.large_binary())
    return TokenizedRows(first, first + count, rows, tokens, {"null_text": [first + 3]})


def _write(cache: TokenCache, file: int, segment: int, count: int = 100) -> bool:
    writer = cache.writer(file, segment)
    if writer is None:
        return False
    writer.add(_block(0, count))
    writer.close(is_last=True)
    return cache.has(file, segment)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*.arrow"))


def _usage(directory: Path) -> int:
    return json.loads((directory / "shardstream-tokens/usage.json").read_text())["bytes"]


def test_entry_comes_back_as_it_was_and_is_unseen_before_it_is_whole(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path, KEYS[0], 1 << 20)
    writer = cache.writer(3, 7)
    assert writer is not None
    writer.add(_block(0))
    writer.add(_block(100))
    assert cache.find(3, 7) is None
    writer.close(is_last=True)
    entry = cache.find(3, 7)
    assert entry is not None
    assert entry.is_last
    for block, wanted in zip(entry.blocks, [_block(0), _block(100)], strict=True):
        assert (block.first_row, block.end_row, block.dead) == wanted[:2] + wanted[4:]
        np.testing.assert_array_equal(block.rows, wanted.rows)
        assert block.tokens.equals(wanted.tokens)
    assert TokenCache(tmp_path, KEYS[1], 1 << 20).find(3, 7) is None
    assert _usage(tmp_path) == _size(tmp_path)


def test_rows_between_of_a_block_keeps_its_rows_and_its_dead() -> None:
    part = _block(100, 10).between(102, 105)
    assert (part.first_row, part.end_row, part.dead) == (102, 105, {"null_text": [103]})
    assert part.rows.tolist() == [102, 104]
    assert part.tokens.to_pylist() == [b"102", b"104"]
    assert _block(100, 10).between(105, None).dead == {"null_text": []}
    assert _block().between(0, None).rows.tolist() == _block().rows.tolist()


def test_abandoned_and_broken_entries_are_as_good_as_none(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path, KEYS[0], 1 << 20)
    writer = cache.writer(0, 0)
    assert writer is not None
    writer.add(_block())
    writer.abandon()
    assert not list(tmp_path.rglob("*.incoming"))
    assert _write(cache, 0, 1)
    path = next(tmp_path.rglob("*.arrow"))
    path.write_bytes(path.read_bytes()[:200])
    assert cache.find(0, 1) is None
    assert _write(cache, 0, 1)
    assert cache.find(0, 1) is not None


def test_a_full_cache_keeps_what_it_has_for_the_next_epoch(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path, KEYS[0], 20_000)
    kept = [segment for segment in range(20) if _write(cache, 0, segment)]
    assert kept == list(range(len(kept)))
    assert 2 <= len(kept) < 20
    assert _size(tmp_path) == _usage(tmp_path) <= 20_000
    assert all(cache.find(0, segment) for segment in kept)


def test_room_is_made_from_other_keys_least_recently_used_first(tmp_path: Path) -> None:
    old = TokenCache(tmp_path, KEYS[0], 40_000)
    for segment in range(4):
        assert _write(old, 0, segment)
    size = _size(tmp_path) // 4
    old.find(0, 0)  # used last
    new = TokenCache(tmp_path, KEYS[1], 5 * size)
    assert [_write(new, 0, segment) for segment in range(3)] == [True] * 3
    assert [old.has(0, segment) for segment in range(4)] == [True, False, False, True]
    assert _size(tmp_path) == _usage(tmp_path) <= 5 * size


def test_a_lower_limit_deletes_entries_and_nothing_else(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path, KEYS[0], 1 << 20)
    for segment in range(4):
        _write(cache, 0, segment)
    mine = [
        tmp_path / "000000-000000.arrow",
        tmp_path / "shardstream-tokens/000000-000000.arrow",
        tmp_path / "shardstream-tokens/notes/000000-000000.arrow",
        tmp_path / f"shardstream-tokens/{KEYS[0]}/model.arrow",
    ]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 5000)
    TokenCache(tmp_path, KEYS[1], 0)
    assert [path.exists() for path in mine] == [True] * 4
    assert not any(cache.has(0, segment) for segment in range(4))
    assert _usage(tmp_path) == 0


_WRITE = """
import sys
from pathlib import Path
from shardstream.loaders.hub.cache import TokenCache
from tests.loaders.hub.test_cache import KEYS, _write
cache = TokenCache(sys.argv[1], KEYS[0], 60_000)
for number in range(60):
    _write(cache, number % 3, number)
"""


def test_processes_share_a_cache_and_its_limit(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITE, str(tmp_path)]
    running = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert _size(tmp_path) == _usage(tmp_path) <= 60_000
    assert not list(tmp_path.rglob("*.incoming"))
    cache = TokenCache(tmp_path, KEYS[0], 60_000)
    found = [cache.find(number % 3, number) for number in range(60)]
    assert sum(entry is not None for entry in found) == len(list(tmp_path.rglob("*.arrow"))) > 3


@pytest.mark.parametrize("limit", [0, 30_000])
def test_limit_below_the_data_changes_nothing_but_speed(
    streams, same, tmp_path: Path, limit: int
) -> None:
    with streams.open(epochs=2) as stream:
        wanted = list(stream)
    for _ in range(2):
        with streams.open(epochs=2, cache_dir=tmp_path, cache_bytes=limit) as stream:
            same(stream, wanted)
    assert _size(tmp_path) <= limit
    assert not list(tmp_path.rglob("*.incoming"))


def test_states_of_a_cached_stream_are_those_of_any(streams, same, tmp_path: Path) -> None:
    options = {"epochs": 2, "max_documents": 1500, "skip_documents": 130, "drop_remainder": False}
    states, wanted = [], []
    with streams.open(**options) as stream:
        for batch in stream:
            wanted.append(batch)
            states.append(stream.get_state())
    for step in range(3, len(states), 11):
        with streams.open(**options, cache_dir=tmp_path, cache_bytes=100_000) as stream:
            stream.set_state(states[step])
            same(stream.take(4), wanted[step + 1 : step + 5])
    with streams.open(**options, cache_dir=tmp_path) as stream:
        same(stream, wanted)
