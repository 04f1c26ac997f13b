"""A stream that tests let grow, commit by commit: real shards, a real log, on disk."""

import dataclasses
from pathlib import Path

from shardstream.loaders import Loader
from shardstream.shard_format import naming
from shardstream.shard_format.commit_log import Commit, ShardCommit, try_append
from shardstream.shard_format.manifest import Manifest, Shard
from shardstream.shard_format.storage import open_directory
from tests.loaders.conftest import Dataset, build_dataset

SHARDS = (40, 25, 7, 60, 31, 100, 55)  # 318 records
OPTIONS = {"batch_size": 8, "buffer_size": 40, "seed": 3, "output": "numpy", "follow": True}


class GrowingStream:
    """A dataset directory with status "following"; record n starts with token n.

    Args:
        folder: of the test.
        records: of each shard to come.
        validation: places, among the shards, of those that belong to that split.
        seed: of content and plan.
        root: where the stream is; in the folder by default.
        **options: of build_dataset.
    """

    def __init__(
        self,
        folder: Path,
        records: tuple[int, ...],
        *,
        validation: tuple[int, ...] = (),
        seed: int = 0,
        root: str | None = None,
        **options,
    ) -> None:
        self._whole = build_dataset(folder / "whole", records, seed=seed, **options)
        self.path = root or folder / "stream"
        self.directory = open_directory(self.path)
        shards = []
        for place, shard in enumerate(self._whole.manifest.shards):
            split = "validation" if place in validation else "train"
            index = sum(s.split == split for s in shards)
            shards.append(dataclasses.replace(shard, split=split, index=index))
        self.shards: tuple[Shard, ...] = tuple(shards)
        self.manifest: Manifest = dataclasses.replace(
            self._whole.manifest,
            status="following",
            mode="stream",
            options={"validation_fraction": 0.5 if validation else 0.0},
            shards=(),
        )
        self._committed = self._commits = 0
        self.directory.write(naming.MANIFEST, self.manifest.to_json())

    def commit(self, count: int = 1) -> None:
        """Publishes the next count shards in one commit; 0 commits none."""
        fresh = self.shards[self._committed : self._committed + count]
        for shard in fresh:
            for name in (shard.file, naming.provenance_name(shard.file)):
                self.directory.write(name, (self._whole.path / name).read_bytes())
        commit = Commit(
            sequence=self._commits,
            writer="test",
            lane=0,
            seconds=0.0,
            time="",
            shards=tuple(ShardCommit(shard=shard, report={}) for shard in fresh),
        )
        assert try_append(self.directory, commit)
        self._committed += len(fresh)
        self._commits += 1

    def complete(self, **changes) -> None:
        """Commits what is left and completes the manifest."""
        if self._committed < len(self.shards):
            self.commit(len(self.shards))
        manifest = dataclasses.replace(
            self.manifest, **{"status": "complete", "shards": self.shards} | changes
        )
        self.directory.write(naming.MANIFEST, manifest.to_json())

    @property
    def dataset(self) -> Dataset:
        """What all shards to come hold, at the stream's path."""
        return dataclasses.replace(self._whole, path=Path(self.path))


def follow(stream: GrowingStream, **options) -> Loader:
    """Returns a loader that follows a stream."""
    return Loader(stream.path, **OPTIONS | {"follow_timeout_secs": 30.0} | options)


def available(loader: Loader) -> list:
    """Returns the batches that come without anything being committed."""
    return [next(loader) for _ in range(loader.source.sure_steps - loader.step)]
