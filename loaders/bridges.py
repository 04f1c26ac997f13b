"""Ways into Orbax (handlers) and Grain (iterators, sources), which are imported only when used."""

import os
from typing import Any

import numpy as np
from shardstream.loaders.arena import Arena
from shardstream.loaders.fields import make_fields, need_lengths, resolve_fields, widen
from shardstream.loaders.iterator import Batches
from shardstream.loaders.options import ReadOptions
from shardstream.loaders.shards.reader import ShardSet
from shardstream.loaders.state_files import read_state, write_state_now
from shardstream.shard_format.manifest import read_manifest
from shardstream.shard_format.storage import open_directory


class LoaderHandler:
    """Orbax (v0) checkpoint handler of a Loader or Mixture; see `orbax_args`."""

    def save(self, directory: Any, item: Batches | None = None, args: Any = None) -> None:
        """Writes the loader's state."""
        loader = item if item is not None else args.item
        write_state_now(directory, loader.get_state())

    def restore(self, directory: Any, item: Batches | None = None, args: Any = None) -> Batches:
        """Goes to a saved state, of any number of processes, and starts to read."""
        loader = item if item is not None else args.item
        loader.set_state(read_state(directory))
        loader.start_prefetch()
        return loader

    def metadata(self, directory: Any) -> None:
        """Has none."""

    def finalize(self, directory: Any) -> None:
        """Has nothing to do."""

    def close(self) -> None:
        """Holds nothing."""

    @classmethod
    def typestr(cls) -> str:
        """The name Orbax stores."""
        return f"{cls.__module__}.{cls.__qualname__}"


_orbax_args: tuple[type, type] | None = None


def orbax_args() -> tuple[type, type]:
    """Returns (Save, Restore), the Orbax v0 argument classes for loaders, registered once.

    Save, Restore = orbax_args()
    manager.save(step, args=ocp.args.Composite(model=..., data=Save(loader)))
    manager.restore(step, args=ocp.args.Composite(model=..., data=Restore(loader)))
    """
    global _orbax_args
    if _orbax_args is None:
        import dataclasses

        import orbax.checkpoint as ocp

        @ocp.args.register_with_handler(LoaderHandler, for_save=True)
        @dataclasses.dataclass
        class Save(ocp.args.CheckpointArgs):
            """Saves a loader's state."""

            item: Any

        @ocp.args.register_with_handler(LoaderHandler, for_restore=True)
        @dataclasses.dataclass
        class Restore(ocp.args.CheckpointArgs):
            """Restores a loader's state into the loader given."""

            item: Any

        _orbax_args = Save, Restore
    return _orbax_args


def as_grain(loader: Batches) -> Any:
    """Returns the loader as a `grain.DatasetIterator`.

    Grain's own checkpoint handler, MaxText and whatever else asks for Grain's type then take it;
    its state is the loader's. The loader must not be iterated beside it.
    """
    import grain

    class LoaderDatasetIterator(grain.DatasetIterator):
        """A shardstream loader under Grain's interface."""

        def __init__(self) -> None:
            super().__init__()
            self._loader = loader

        def __next__(self) -> dict[str, Any]:
            return next(self._loader)

        def get_state(self) -> dict[str, Any]:
            return self._loader.get_state()

        def set_state(self, state: dict[str, Any]) -> None:
            self._loader.set_state(state)

        def start_prefetch(self) -> None:
            self._loader.start_prefetch()

        def close(self) -> None:
            super().close()
            self._loader.close()

    return LoaderDatasetIterator()


class GrainSource:
    """A split as a random-access source for Grain: `grain.MapDataset.source(GrainSource(path))`.

    Args:
        path: dataset directory.
        split: "train" or "validation".
        fields: as of Loader; token ids are int32.
        **options: of ReadOptions.

    An item is a sequence: a dictionary of arrays [L].
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        split: str = "train",
        fields: tuple[str, ...] | str = ("tokens",),
        **options: Any,
    ) -> None:
        directory = open_directory(path)
        self._manifest = read_manifest(directory)
        self._arguments = (path, split, fields, options)
        self._fields = resolve_fields(fields)
        self._lengths = need_lengths(self._fields)
        shards = self._manifest.shards_of(split)
        self._shards = ShardSet(directory, self._manifest, shards, ReadOptions(**options))

    def __reduce__(self) -> tuple:
        path, split, fields, options = self._arguments
        return _grain_source, (path, split, fields, options)

    def __repr__(self) -> str:
        # Grain compares this on restore, so it names the content.
        _path, split, fields, _ = self._arguments
        return f"GrainSource({self._manifest.fingerprint}, split={split!r}, fields={fields!r})"

    def __len__(self) -> int:
        return self._shards.num_records

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, np.ndarray]]:
        """Returns several sequences at the price of about one."""
        records = np.asarray(indices, np.int64)
        if len(records) and not (records.min() >= 0 and records.max() < len(self)):
            raise IndexError(f"index is {indices}, expected 0 to {len(self) - 1}")
        rows = self._shards.make_rows(len(records), lengths=self._lengths)
        self._shards.read_records(records, rows, np.arange(len(records)))
        batch = make_fields(
            self._fields,
            rows.tokens,
            rows.lengths,
            pad_id=self._manifest.pad_id,
            pad_side=self._manifest.packing.get("pad_side", "right"),
        )
        batch = widen(batch, Arena())
        return [{name: array[i] for name, array in batch.items()} for i in range(len(records))]


def _grain_source(path: Any, split: str, fields: Any, options: dict[str, Any]) -> GrainSource:
    return GrainSource(path, split=split, fields=fields, **options)
