"""The log as a format: golden bytes, order, one winner a number, messages."""

import dataclasses
import threading
from pathlib import Path

import pytest

from shardstream.shard_format import naming
from shardstream.shard_format.commit_log import (
    Commit,
    FollowedFile,
    PartitionRead,
    ShardCommit,
    read_commits,
    try_append,
)
from shardstream.shard_format.manifest import Shard
from shardstream.shard_format.storage import open_directory

SHARD = Shard(
    file="train-stream-00000000000000ab.array_record",
    split="train",
    index=3,
    records=3,
    documents=2,
    tokens=11,
    truncated_tokens=0,
    max_segments=2,
    bytes=65536,
    sha256="ab",
)
COMMIT = Commit(
    sequence=0,
    writer="w",
    lane=1,
    seconds=0.5,
    time="2026-01-01T00:00:00Z",
    shards=(ShardCommit(shard=SHARD, report={"documents": 2}),),
    partitions=(
        PartitionRead(
            name="000000-all",
            spans=((0, 5, 9),),
            documents=4,
            dead_letters={"null_text": 1},
            text_bytes=77,
            set_aside={"documents": 1},
        ),
    ),
    files=(FollowedFile(index=0, url="/a/b.parquet", name="b.parquet", bytes=9),),
)
GOLDEN = (
    '{"format": "shardstream commit", "sequence": 0, "writer": "w", "lane": 1, "seconds": 0.5, '
    '"time": "2026-01-01T00:00:00Z", "shards": [{"shard": {"file": '
    '"train-stream-00000000000000ab.array_record", "split": "train", "index": 3, "records": 3, '
    '"documents": 2, "tokens": 11, "truncated_tokens": 0, "max_segments": 2, "bytes": 65536, '
    '"sha256": "ab"}, "report": {"documents": 2}}], "partitions": [{"name": "000000-all", "spans": '
    '[[0, 5, 9]], "documents": 4, "dead_letters": {"null_text": 1}, "text_bytes": 77, "set_aside": '
    '{"documents": 1}}], "files": [{"index": 0, "url": "/a/b.parquet", "name": "b.parquet", '
    '"bytes": 9}]}\n'
)


def test_commit_golden_bytes_both_ways() -> None:
    assert COMMIT.to_json().decode() == GOLDEN
    assert Commit.from_json(GOLDEN.encode(), where="x") == COMMIT
    assert COMMIT.partitions[0].in_shards == 2


def test_commits_are_read_up_to_the_first_gap(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    assert list(read_commits(directory)) == []
    for sequence in (0, 1, 3):
        assert try_append(directory, dataclasses.replace(COMMIT, sequence=sequence))
    assert [commit.sequence for commit in read_commits(directory)] == [0, 1]
    assert [commit.sequence for commit in read_commits(directory, 1)] == [1]
    assert naming.commit_name(12) == "commits/00000012.json"


def test_commit_number_has_one_winner_and_never_changes(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    won: list[str] = []
    start = threading.Barrier(8)

    def race(writer: str) -> None:
        start.wait()
        if try_append(directory, dataclasses.replace(COMMIT, writer=writer)):
            won.append(writer)

    threads = [threading.Thread(target=race, args=(str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (commit,) = read_commits(directory)
    assert won == [commit.writer]
    assert [path.name for path in (tmp_path / "commits").iterdir()] == ["00000000.json"]


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"format": "shardstream commit"}'])
def test_damaged_commit_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "commits").mkdir()
    (tmp_path / "commits" / "00000000.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"commits/00000000.json: expected a shardstream commit"):
        list(read_commits(open_directory(tmp_path)))
