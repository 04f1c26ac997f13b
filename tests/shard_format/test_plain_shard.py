"""Records read in place are those that ArrayRecord reads, and it has the last word on all others."""

import logging
from pathlib import Path

import numpy as np
import pytest

from shardstream.shard_format import naming
from shardstream.shard_format.checksums import find_checksums
from shardstream.shard_format.plain_shard import PlainShard
from shardstream.shard_format.publish_records import publish_records
from shardstream.shard_format.record_places import file_places, stream_places
from shardstream.shard_format.shard_file import ShardFile, ShardOptions
from shardstream.shard_format.storage import open_directory

NAME = naming.shard_name("train", 0, 1)


def write(root: Path, num_records: int, record_bytes: int) -> np.ndarray:
    """Publishes a shard of random records, uint8[N, R], and returns them."""
    records = np.random.default_rng(record_bytes).integers(
        0, 256, (num_records, record_bytes), np.uint8
    )
    publish_records(open_directory(root), NAME, [records[:3], records[3:]], ShardOptions())
    return records


def opened(root: Path, num_records: int, record_bytes: int) -> PlainShard:
    checksums = find_checksums(open_directory(root), NAME, num_records)
    assert checksums is not None
    return PlainShard(root / NAME, record_bytes=record_bytes, checksums=checksums)


def read(shard: PlainShard, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Filled, so that nothing passes for a record because it was there before.
    return shard.read(indices, np.full(shard.scratch_bytes(len(indices)), 0xAB, np.uint8))


def test_places_of_records_of_4112_bytes() -> None:
    """Literal, as found in a file: the 16th record is cut by the header at 65,536."""
    places = file_places(stream_places(np.array([0, 1, 15, 16, 17]), 4112))
    assert places.tolist() == [108, 4264, 62448, 66628, 70784]


# Around the sizes at which the size's varint grows, and those that fill a block between headers.
@pytest.mark.parametrize(
    "record_bytes",
    [1, 2, 127, 128, 4112, 16_383, 16_384, 65_468, 65_469, 65_512, 65_536, 200_002, 2_097_152],
)
def test_any_records_are_those_of_array_record(tmp_path: Path, record_bytes: int) -> None:
    num_records = min(5000, 5 + 2_000_000 // record_bytes)
    records = write(tmp_path, num_records, record_bytes)
    file = ShardFile(tmp_path / NAME, record_bytes=record_bytes, num_records=num_records)
    assert np.array_equal(file.read(0, num_records), records)
    shard = opened(tmp_path, num_records, record_bytes)
    rng = np.random.default_rng(0)
    some = np.sort(rng.choice(num_records, num_records // 2, replace=False))
    for indices in (np.arange(num_records), some, rng.permutation(some), some[:0], some[:1]):
        found, is_sound = read(shard, indices)
        assert is_sound.all()
        assert np.array_equal(found, records[indices])
    shard.close()
    shard.close()


def test_runs_of_more_blocks_than_one_call_takes(tmp_path: Path) -> None:
    records = write(tmp_path, 20, 2_000_002)
    found, is_sound = read(opened(tmp_path, 20, 2_000_002), np.arange(20))
    assert is_sound.all()
    assert np.array_equal(found, records)


def test_damaged_record_is_told_from_its_neighbours(tmp_path: Path) -> None:
    records = write(tmp_path, 40, 4112)
    data = bytearray((tmp_path / NAME).read_bytes())
    data[int(file_places(stream_places(np.array(7), 4112))) + 4000] ^= 1
    (tmp_path / NAME).write_bytes(data)
    found, is_sound = read(opened(tmp_path, 40, 4112), np.arange(3, 12))
    assert np.flatnonzero(~is_sound).tolist() == [4]
    assert np.array_equal(found[is_sound], np.delete(records[3:12], 4, axis=0))


def test_records_past_the_end_of_a_file_that_was_cut_are_not_sound(tmp_path: Path) -> None:
    write(tmp_path, 40, 4112)
    data = (tmp_path / NAME).read_bytes()
    shard = opened(tmp_path, 40, 4112)
    (tmp_path / NAME).write_bytes(data[:50_000])
    _, is_sound = read(shard, np.arange(40))
    assert is_sound.tolist() == [True] * 12 + [False] * 28
    with pytest.raises(ValueError, match=r"expected 40 records \(dataset.json\), .* cut short"):
        shard.records_at(np.arange(12, 40))


def test_checksums_of_another_shard_send_all_reads_through_array_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = write(tmp_path, 40, 64)
    shard = PlainShard(tmp_path / NAME, record_bytes=64, checksums=np.arange(40, dtype=np.uint64))
    assert shard.is_plain
    assert not read(shard, np.arange(40))[1].any()
    with caplog.at_level(logging.WARNING, "shardstream.shard_format"):
        for _ in range(2):
            assert shard.records_at(np.arange(40)) == [bytes(record) for record in records]
    assert caplog.text.count("not those its checksums were written for") == 1
    assert not shard.is_plain


@pytest.mark.parametrize("options", [{"group_size": 4}, {"compression": "zstd"}])
def test_other_shards_have_no_checksums(tmp_path: Path, options: dict) -> None:
    publish_records(
        open_directory(tmp_path), NAME, [np.zeros((4, 8), np.uint8)], ShardOptions(**options)
    )
    assert open_directory(tmp_path).list() == [NAME]


def test_checksums_that_are_missing_or_cut_are_none(tmp_path: Path) -> None:
    write(tmp_path, 40, 64)
    directory = open_directory(tmp_path)
    assert len(find_checksums(directory, NAME, 40)) == 40
    assert find_checksums(directory, NAME, 41) is None
    directory.remove(naming.checksums_name(NAME))
    assert find_checksums(directory, NAME, 40) is None


def test_shard_of_no_records(tmp_path: Path) -> None:
    publish_records(open_directory(tmp_path), NAME, [], ShardOptions())
    found, is_sound = read(opened(tmp_path, 0, 64), np.arange(0))
    assert found.shape == (0, 64)
    assert is_sound.shape == (0,)


def test_who_forgets_to_close_leaves_no_file_open(tmp_path: Path) -> None:
    write(tmp_path, 40, 64)
    shard = opened(tmp_path, 40, 64)
    assert any(link.resolve().name == NAME for link in Path("/proc/self/fd").iterdir())
    del shard
    assert not any(link.resolve().name == NAME for link in Path("/proc/self/fd").iterdir())
