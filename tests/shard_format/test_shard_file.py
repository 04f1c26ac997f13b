import os
from pathlib import Path

import numpy as np
import pytest

from shardstream.shard_format.shard_file import ShardFile, ShardOptions, digest_of, write_records


def _blocks(n: int, size: int = 64) -> list[np.ndarray]:
    data = np.random.default_rng(0).integers(0, 256, (n, size), np.uint8)
    return [data[i : i + 7] for i in range(0, n, 7)]


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("group_size", [1, 16])
def test_records_round_trip(tmp_path: Path, compression: str, group_size: int) -> None:
    path = tmp_path / "shard"
    blocks = _blocks(100)
    options = ShardOptions(group_size=group_size, compression=compression)
    written = write_records(path, blocks, options)
    assert written == digest_of(path)
    file = ShardFile(path, record_bytes=64, num_records=100)
    assert np.array_equal(file.read(0, 100), np.concatenate(blocks))
    assert np.array_equal(file.read(31, 57), np.concatenate(blocks)[31:57])
    file.close()
    file.close()


@pytest.mark.parametrize("group_size", [1, 16])
@pytest.mark.parametrize("indices", [[], [5], [1, 2, 3], [1, 3, 4, 99], [3, 3, 5], [70, 2, 3]])
def test_records_at_any_indices_come_in_their_order(tmp_path, group_size, indices) -> None:
    blocks = _blocks(100)
    write_records(tmp_path / "shard", blocks, ShardOptions(group_size=group_size))
    file = ShardFile(tmp_path / "shard", record_bytes=64, num_records=100)
    expected = [bytes(record) for record in np.concatenate(blocks)[np.array(indices, np.int64)]]
    assert file.records_at(np.array(indices, np.int64)) == expected


def test_same_records_give_same_bytes(tmp_path: Path) -> None:
    blocks = _blocks(50)
    whole = [np.concatenate(blocks)]
    first = write_records(tmp_path / "a", blocks, ShardOptions())
    second = write_records(tmp_path / "b", whole, ShardOptions())
    assert first == second


def test_system_without_files_in_memory_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_records(tmp_path / "a", _blocks(50), ShardOptions())
    monkeypatch.delattr(os, "memfd_create")
    assert write_records(tmp_path / "b", _blocks(50), ShardOptions()) == written
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_full_disk_is_named() -> None:
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        write_records("/dev/full", _blocks(50), ShardOptions())


def test_shard_of_no_records(tmp_path: Path) -> None:
    write_records(tmp_path / "empty", [], ShardOptions())
    ShardFile(tmp_path / "empty", record_bytes=64, num_records=0).close()


def test_open_says_when_the_file_is_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    write_records(path, _blocks(5000), ShardOptions())
    path.write_bytes(path.read_bytes()[:-70_000])
    with pytest.raises(ValueError, match=r"expected 5000 records .* cut short"):
        ShardFile(path, record_bytes=64, num_records=5000)


def test_open_says_when_the_count_differs(tmp_path: Path) -> None:
    write_records(tmp_path / "shard", _blocks(10), ShardOptions())
    with pytest.raises(ValueError, match=r"expected 11 records \(dataset.json\), the file has 10"):
        ShardFile(tmp_path / "shard", record_bytes=64, num_records=11)


def test_read_names_the_record_of_another_size(tmp_path: Path) -> None:
    write_records(tmp_path / "shard", _blocks(10), ShardOptions())
    file = ShardFile(tmp_path / "shard", record_bytes=60, num_records=10)
    with pytest.raises(ValueError, match=r"record 3: 64 bytes, expected 60 \(dataset.json\)"):
        file.read(3, 5)


def test_flipped_byte_raises_rather_than_reads(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    write_records(path, _blocks(5000), ShardOptions())
    data = bytearray(path.read_bytes())
    data[150_000] ^= 1
    path.write_bytes(data)
    file = ShardFile(path, record_bytes=64, num_records=5000)
    with pytest.raises(RuntimeError):
        file.read(0, 5000)


@pytest.mark.parametrize("wrong", [{"group_size": 0}, {"compression": "gzip"}])
def test_options_refuse_what_array_record_has_not(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ShardOptions(**wrong)
