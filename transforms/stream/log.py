"""What a writer knows of a stream's past, and how it adds to it: the log, read, then appended to.

Exactly once rests on two facts. A document is read into the buffer only if no committed shard holds
it (provenance says so), and a commit succeeds only on top of all commits its writer knows of. So
whatever dies, and however often, a document that was committed isn't committed again, and one that
wasn't is still missing and is read again.
"""

import dataclasses
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable

import numpy as np

from shardstream.shard_format.commit_log import (
    Commit,
    FollowedFile,
    PartitionRead,
    ShardCommit,
    read_commits,
    try_append,
)
from shardstream.shard_format.provenance import read_provenance
from shardstream.shard_format.storage import Directory
from shardstream.transforms.errors import JobError

NO_LANE = -1


class StreamLog:
    """A stream's log, as one writer sees it.

    Args:
        directory: of the dataset.
        lane: the writer's; documents of different lanes can't overlap.
        documents: load which documents the shards hold; a writer that reads needs it.

    Attributes:
        shards: committed, in order.
        partitions: read to the end, by name.
        files: of a growing source, in order of index.
        draws: commits of this lane.
    """

    def __init__(
        self, directory: Directory, *, lane: int = NO_LANE, documents: bool = True
    ) -> None:
        self._directory = directory
        self._lane = lane
        self._load_documents = documents
        self._writer = uuid.uuid4().hex[:16]
        self._started = time.monotonic()
        self._next = 0
        self._rows: dict[int, np.ndarray] = {}
        self.shards: list[ShardCommit] = []
        self.partitions: dict[str, PartitionRead] = {}
        self.files: list[FollowedFile] = []
        self.draws = 0
        self._num_shards: Counter[str] = Counter()
        self._lock = threading.RLock()
        self.refresh()

    def refresh(self) -> list[Commit]:
        """Takes in the commits made since; returns them."""
        with self._lock:
            found = list(read_commits(self._directory, self._next))
            for commit in found:
                self._take_in(commit, load=self._load_documents)
        return found

    def commit(
        self,
        shards: Iterable[ShardCommit] = (),
        partitions: Iterable[PartitionRead] = (),
        files: Iterable[FollowedFile] = (),
    ) -> None:
        """Appends one commit.

        Raises:
            JobError: another writer has committed for the same lane; nothing was appended.
        """
        shards, partitions, files = tuple(shards), tuple(partitions), tuple(files)
        with self._lock:
            while not self._try_commit(shards, partitions, files):
                for other in self.refresh():
                    self._give_up_for(other)

    def _give_up_for(self, other: Commit) -> None:
        """Raises where another writer's commit may hold documents that this one holds too."""
        if other.lane == self._lane:
            raise JobError(
                f"{self._directory}: another process commits to this stream (commit "
                f"{other.sequence}, writer {other.writer}; this: {self._writer}). This one stops, "
                "and nothing is lost or twice: let the other go on, or run the command again when "
                "it has ended."
            )

    def _try_commit(
        self,
        shards: tuple[ShardCommit, ...],
        partitions: tuple[PartitionRead, ...],
        files: tuple[FollowedFile, ...],
    ) -> bool:
        commit = Commit(
            sequence=self._next,
            writer=self._writer,
            lane=self._lane,
            seconds=round(time.monotonic() - self._started, 3),
            time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            shards=self._numbered(shards),
            partitions=partitions,
            files=files,
        )
        appended = try_append(self._directory, commit)
        if appended:
            self._take_in(commit, load=False)
        return appended

    def committed_rows(self, file_index: int, rows: np.ndarray) -> np.ndarray:
        """Returns bool[n], the rows of a source file that committed shards hold."""
        known = self._rows.get(file_index)
        if known is None:
            return np.zeros(len(rows), bool)
        inside = rows < len(known)
        found = np.zeros(len(rows), bool)
        found[inside] = known[rows[inside]]
        return found

    def holds(self, file_index: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Returns bool[n], the documents, of any source files, that committed shards hold."""
        found = np.zeros(len(row), bool)
        for file in np.unique(file_index).tolist():
            here = file_index == file
            found[here] = self.committed_rows(file, row[here])
        return found

    def is_done(self, name: str) -> bool:
        """Says whether every document of a partition is accounted for."""
        read = self.partitions.get(name)
        if read is None:
            return False
        held = 0
        for file, begin, end in read.spans:
            known = self._rows.get(file)
            held += 0 if known is None else int(np.count_nonzero(known[begin:end]))
        return held == read.in_shards

    def _numbered(self, shards: tuple[ShardCommit, ...]) -> tuple[ShardCommit, ...]:
        """Gives each shard its place in its split, known only now."""
        count = Counter(self._num_shards)
        numbered = []
        for entry in shards:
            shard = dataclasses.replace(entry.shard, index=count[entry.shard.split])
            count[shard.split] += 1
            numbered.append(dataclasses.replace(entry, shard=shard))
        return tuple(numbered)

    def _take_in(self, commit: Commit, *, load: bool) -> None:
        self._next = commit.sequence + 1
        self.shards += commit.shards
        self._num_shards.update(entry.shard.split for entry in commit.shards)
        self.files += commit.files
        self.partitions.update({read.name: read for read in commit.partitions})
        self.draws += commit.lane == self._lane and bool(commit.shards)
        for entry in commit.shards if load else ():
            table = read_provenance(self._directory, entry.shard.file)
            self._add_rows(table["partition"].to_numpy(), table["row"].to_numpy())

    def _add_rows(self, file_index: np.ndarray, row: np.ndarray) -> None:
        for file in np.unique(file_index).tolist():
            rows = row[file_index == file]
            known = self._rows.get(file)
            need = int(rows.max()) + 1
            if known is None or len(known) < need:
                grown = np.zeros(max(need, 0 if known is None else 2 * len(known)), bool)
                if known is not None:
                    grown[: len(known)] = known
                self._rows[file] = known = grown
            known[rows] = True
