"""What a following loader knows of a stream: the shards of its split, in log order, so far.

Commits are read as they appear and dataset.json when no commit does; once that is complete, its
list of shards is the stream. A hash over the shards up to any place names that beginning of the
stream, so a state can tell whether it is of this one.
"""

import hashlib
import threading
import time

from shardstream.shard_format import naming
from shardstream.shard_format.commit_log import Commit, read_commits
from shardstream.shard_format.manifest import Manifest, Shard, read_manifest
from shardstream.shard_format.storage import Directory

STATUSES = ("complete", "following")
_FIRST_PAUSE_SECS, _LONGEST_PAUSE_SECS = 0.05, 0.5


class FollowedLog:
    """The shards of one split of a stream, as far as they are committed.

    Args:
        directory: of the dataset.
        manifest: as it was read, "following" or "complete".
        split: whose shards to list.
        timeout_secs: how long to wait for a commit before giving up.

    Attributes:
        shards: of the split, in order; only ever appended to.
        is_complete: no more will come.

    Raises:
        ValueError: the stream has no such split.
    """

    def __init__(
        self, directory: Directory, manifest: Manifest, split: str, timeout_secs: float
    ) -> None:
        self.shards: list[Shard] = []
        self.is_complete = False
        self._directory, self._manifest, self._split = directory, manifest, split
        self._timeout_secs = timeout_secs
        self._last_commit: Commit | None = None
        self._hashes = [hashlib.sha256(manifest.plan_fingerprint.encode()).hexdigest()]
        self._waiting_since: float | None = None
        self._pause_secs = _FIRST_PAUSE_SECS
        self._lock = threading.RLock()
        if manifest.status == "complete":
            self._complete(manifest)
            return
        splits = ("train", "validation") if manifest.options["validation_fraction"] else ("train",)
        if split not in splits:
            raise ValueError(
                f"{directory}: no split {split!r} in this stream, expected one of: "
                f"{', '.join(splits)}"
            )
        self.refresh()

    def refresh(self) -> bool:
        """Takes in what was committed since; says whether anything was."""
        with self._lock:
            if self.is_complete:
                return False
            fresh = list(read_commits(self._directory, self._next_commit))
            if fresh:
                self._check_last_commit()
                for commit in fresh:
                    self._add([e.shard for e in commit.shards if e.shard.split == self._split])
                self._last_commit = fresh[-1]
            else:
                manifest = read_manifest(self._directory, allow=STATUSES)
                if manifest.plan_fingerprint != self._manifest.plan_fingerprint:
                    raise self._another_stream()
                if manifest.status == "following":
                    return False
                self._complete(manifest)
            self._waiting_since = None
            self._pause_secs = _FIRST_PAUSE_SECS
            return True

    def wait(self, closing: threading.Event) -> None:
        """Waits a moment for a commit, or until closing is set.

        Raises:
            TimeoutError: there was none for timeout_secs of waiting.
        """
        now = time.monotonic()
        if self._waiting_since is None:
            self._waiting_since = now
        waited = now - self._waiting_since
        if waited >= self._timeout_secs:
            raise TimeoutError(
                f"{self._directory}: no new commit for {waited:.0f} s "
                f"(follow_timeout_secs={self._timeout_secs:g}); {self.describe()}. If the pipeline "
                "that writes it has ended, run its command again: it goes on from there, and so "
                "does this loader, from its state. If it is only slow, give more time."
            )
        closing.wait(min(self._pause_secs, self._timeout_secs - waited))
        self._pause_secs = min(2 * self._pause_secs, _LONGEST_PAUSE_SECS)

    def describe(self) -> str:
        """Returns what is there and what is waited for, for people."""
        with self._lock:
            records = sum(shard.records for shard in self.shards)
            return (
                f"{len(self.shards)} shards with {records} sequences of split {self._split!r} are "
                f"committed, the next commit is {naming.commit_name(self._next_commit)}"
            )

    @property
    def name(self) -> str:
        """64 hex digits that name the stream before it has any shard."""
        return self._hashes[0]

    def hash_of(self, num_shards: int) -> str | None:
        """Returns the hash of the first num_shards; None where there are fewer."""
        with self._lock:
            return self._hashes[num_shards] if num_shards < len(self._hashes) else None

    def _add(self, shards: list[Shard]) -> None:
        for shard in shards:
            self.shards.append(shard)
            text = f"{self._hashes[-1]} {shard.file} {shard.records} {shard.sha256}"
            self._hashes.append(hashlib.sha256(text.encode()).hexdigest())

    def _complete(self, manifest: Manifest) -> None:
        shards = list(manifest.shards_of(self._split))
        known = len(self.shards)
        if shards[:known] != self.shards:
            raise ValueError(
                f"{self._directory}: dataset.json lists other shards than the commits that were "
                "followed. The dataset was rebuilt meanwhile: build the loader again and start "
                "from its first batch."
            )
        self._add(shards[known:])
        self.is_complete = True

    @property
    def _next_commit(self) -> int:
        return 0 if self._last_commit is None else self._last_commit.sequence + 1

    def _check_last_commit(self) -> None:
        """Notices a stream that was started again in the same place (--overwrite)."""
        if self._last_commit is None:
            return
        now = next(read_commits(self._directory, self._last_commit.sequence), None)
        if now != self._last_commit:
            raise self._another_stream()

    def _another_stream(self) -> ValueError:
        return ValueError(
            f"{self._directory}: another stream is being written here than the one that this "
            "loader follows. Build the loader again and start from its first batch."
        )
