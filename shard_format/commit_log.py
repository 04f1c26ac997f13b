"""The commit log of a stream: which shards there are, in the order in which readers meet them.

    OUT/dataset.json                       all that decoding needs, and no shards; its status is
                                           "following" from the start
    OUT/train-stream-<id>.array_record     a shard, named by the documents that it holds, not by
                                           its writer or its time
    OUT/provenance/train-stream-<id>.…     published before the commit that lists the shard
    OUT/commits/00000000.json              one commit a file, numbered from 0 without gaps

**To follow** a stream, read commits 0, 1, 2, ... until there is no file of the next number, and use
the shards of each commit in the order listed; that is the order of the dataset. Then wait and look
for the next number again, until the status in dataset.json is "complete". Its `shards` are then
those of all commits, in the same order. The file and the provenance of a shard are complete before
the commit that lists it exists. A commit never changes. A shard that no commit lists was left by a
writer that was killed, and doesn't belong to the dataset.

**To append**, a writer creates the file of the next number. Only one writer can do so, since
creation fails where the number is taken (`Directory.create`). A writer knows every commit before
its own, so it can't commit a document twice, and what a superseded writer wrote stays unlisted.
When two writers race for a number, the loser reads the winner's commit before it decides: it goes
on where their documents can't overlap (different lanes), and gives up where they can.

A commit also tells what is known about the source. It names the partitions that have been read to
their end, with their counts of documents, dead letters and documents set aside, so that a later run
can skip them and the totals can be checked from the log alone. For a source that grows, it also
gives the index of each file.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, Self

from shardstream.shard_format import naming
from shardstream.shard_format.manifest import Shard
from shardstream.shard_format.storage import Directory

FORMAT = "shardstream commit"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardCommit:
    """A committed shard: its manifest entry and its packing report."""

    shard: Shard
    report: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartitionRead:
    """A partition that was read to its end; a pure function of the source and the options.

    Attributes:
        name: of the partition.
        spans: (file index, first row, end row) of its documents, half-open.
        documents: rows, dead letters included.
        dead_letters: rows by reason.
        text_bytes: UTF-8 bytes of its texts.
        set_aside: packing report of the documents that are in no shard by rule: empty, or dropped
            as too long.
    """

    name: str
    spans: tuple[tuple[int, int, int], ...]
    documents: int
    dead_letters: dict[str, int]
    text_bytes: int
    set_aside: dict[str, Any]

    @property
    def in_shards(self) -> int:
        """Documents that shards must hold in the end."""
        return self.documents - sum(self.dead_letters.values()) - self.set_aside["documents"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FollowedFile:
    """A file of a growing source; its index is that of its documents in provenance, for ever."""

    index: int
    url: str
    name: str
    bytes: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Commit:
    """One commit.

    Attributes:
        sequence: its number.
        writer: names the run and attempt that made it.
        lane: whose documents it holds; -1 for what belongs to no lane.
        seconds: since that run began to read.
        time: UTC, ISO 8601.
        shards: in reading order.
        partitions: read to the end, first told here.
        files: of a growing source, first told here.
    """

    sequence: int
    writer: str
    lane: int
    seconds: float
    time: str
    shards: tuple[ShardCommit, ...] = ()
    partitions: tuple[PartitionRead, ...] = ()
    files: tuple[FollowedFile, ...] = ()

    def to_json(self) -> bytes:
        """Returns the bytes of the commit's file."""
        content = {"format": FORMAT} | dataclasses.asdict(self)
        return (json.dumps(content, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, *, where: str) -> Self:
        """Returns the commit in data; `where` names the file in errors.

        Raises:
            ValueError: it is no commit.
        """
        try:
            content = json.loads(data)
            if content.pop("format") != FORMAT:
                raise ValueError("another format")
            content["shards"] = tuple(
                ShardCommit(shard=Shard(**entry["shard"]), report=entry["report"])
                for entry in content["shards"]
            )
            content["partitions"] = tuple(
                PartitionRead(**entry | {"spans": tuple(tuple(s) for s in entry["spans"])})
                for entry in content["partitions"]
            )
            content["files"] = tuple(FollowedFile(**entry) for entry in content["files"])
            return cls(**content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{where}: expected a shardstream commit, found something else ({error}). The file "
                "is damaged; restore it, or rebuild the dataset with --overwrite."
            ) from error


def read_commits(directory: Directory, start: int = 0) -> Iterator[Commit]:
    """Yields the commits from number `start` on, up to the last there is now."""
    sequence = start
    while True:
        name = naming.commit_name(sequence)
        data = directory.find(name)
        if data is None:
            return
        yield Commit.from_json(data, where=directory.where(name))
        sequence += 1


def try_append(directory: Directory, commit: Commit) -> bool:
    """Creates the commit's file; False where another writer has taken its number."""
    return directory.create(naming.commit_name(commit.sequence), commit.to_json())
