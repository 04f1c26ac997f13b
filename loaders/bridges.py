"""Bridges to Orbax (handlers) and Grain (iterators, sources), which are imported only when used."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import numpy as np

from shardstream.loaders.arena import Arena
from shardstream.loaders.fields import (
    Batch,
    FieldName,
    FieldSet,
    make_fields,
    need_lengths,
    resolve_fields,
    widen,
)
from shardstream.loaders.iterator import BatchIterator
from shardstream.loaders.keywords import check_keywords
from shardstream.loaders.options import BadRecordPolicy, ReadOptions, Split, Verification, pick
from shardstream.loaders.row_source import RowSource
from shardstream.loaders.shards.reader import ShardSet
from shardstream.loaders.state_files import read_state, write_state_now
from shardstream.shard_format.manifest import read_manifest
from shardstream.shard_format.storage import open_directory

if TYPE_CHECKING:
    import grain
    import orbax.checkpoint as ocp

AnyLoader: TypeAlias = BatchIterator[RowSource]


class _HasItem(Protocol):
    """The arguments that Orbax hands over: `Save` or `Restore` of `orbax_args`."""

    item: AnyLoader


class LoaderHandler:
    """Orbax (v0) checkpoint handler of a Loader or Mixture; see `orbax_args`."""

    def save(
        self,
        directory: os.PathLike[str],
        item: AnyLoader | None = None,
        args: _HasItem | None = None,
    ) -> None:
        """Writes the loader's state."""
        loader = _loader_of(item, args)
        write_state_now(directory, loader.get_state())

    def restore(
        self,
        directory: os.PathLike[str],
        item: AnyLoader | None = None,
        args: _HasItem | None = None,
    ) -> AnyLoader:
        """Goes to a saved state, of any number of processes, and starts to read."""
        loader = _loader_of(item, args)
        loader.set_state(read_state(directory))
        loader.start_prefetch()
        return loader

    def metadata(self, directory: os.PathLike[str]) -> None:
        """Has none."""

    def finalize(self, directory: os.PathLike[str]) -> None:
        """Has nothing to do."""

    def close(self) -> None:
        """Holds nothing."""

    @classmethod
    def typestr(cls) -> str:
        """The name Orbax stores."""
        return f"{cls.__module__}.{cls.__qualname__}"


def _loader_of(item: AnyLoader | None, args: _HasItem | None) -> AnyLoader:
    if item is not None:
        return item
    assert args is not None
    return args.item


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

        # The handler has Orbax's interface without its base class, which would import Orbax here.
        handler = cast("type[ocp.CheckpointHandler]", LoaderHandler)

        @ocp.args.register_with_handler(handler, for_save=True)
        @dataclasses.dataclass
        class Save(ocp.args.CheckpointArgs):
            """Saves a loader's state."""

            item: AnyLoader

        @ocp.args.register_with_handler(handler, for_restore=True)
        @dataclasses.dataclass
        class Restore(ocp.args.CheckpointArgs):
            """Restores a loader's state into the loader given."""

            item: AnyLoader

        _orbax_args = Save, Restore
    return _orbax_args


def as_grain(loader: AnyLoader) -> "grain.DatasetIterator[Batch]":
    """Returns the loader as a `grain.DatasetIterator`.

    Everything that asks for Grain's type then takes it, such as Grain's own checkpoint handler and
    MaxText; its state is the loader's. The loader must not be iterated beside it.
    """
    import grain

    class LoaderDatasetIterator(grain.DatasetIterator):
        """A shardstream loader under Grain's interface."""

        def __init__(self) -> None:
            super().__init__()
            self._loader = loader

        def __next__(self) -> Batch:
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
        max_open_shards: see ReadOptions, as for all that follow.
        verify: see ReadOptions.
        on_bad_record: see ReadOptions.
        bad_record_budget: see ReadOptions.
        cache_dir: see ReadOptions.
        cache_bytes: see ReadOptions.
        store_requests: see ReadOptions.

    An item is a sequence: a dictionary of arrays [L].
    """

    @check_keywords("GrainSource")
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        split: Split = "train",
        fields: Sequence[FieldName] | FieldName | FieldSet = ("tokens",),
        max_open_shards: int = 4096,
        verify: Verification = "size",
        on_bad_record: BadRecordPolicy = "raise",
        bad_record_budget: int = 100,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_bytes: int | None = None,
        store_requests: int = 16,
    ) -> None:
        given = {name: value for name, value in locals().items() if name != "self"}
        directory = open_directory(path)
        self._manifest = read_manifest(directory)
        self._given = given
        self._fields = resolve_fields(fields)
        self._lengths = need_lengths(self._fields)
        shards = self._manifest.shards_of(split)
        self._shards = ShardSet(directory, self._manifest, shards, pick(ReadOptions, given))

    def __reduce__(self) -> tuple:
        return _grain_source, (self._given,)

    def __repr__(self) -> str:
        # Grain compares this on restore, so it names the content.
        split, fields = self._given["split"], self._given["fields"]
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


def _grain_source(given: dict[str, Any]) -> GrainSource:
    return GrainSource(**given)
