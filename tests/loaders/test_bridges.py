"""Really saved by Orbax (v0 and v1) and really driven by Grain."""

import json
import pickle

import numpy as np
import pytest

from loaders import GrainSource, Loader, Mixture, as_grain, orbax_args
from tests.loaders.conftest import Dataset


def make_loader(dataset: Dataset, **options) -> Loader:
    common = {"batch_size": 4, "buffer_size": 48, "epochs": 2, "output": "numpy"}
    return Loader(dataset.path, **common | options)


def tail_of(loader) -> list[np.ndarray]:
    return [np.asarray(batch["tokens"]) for batch in loader]


@pytest.fixture
def expected(dataset: Dataset) -> list[np.ndarray]:
    with make_loader(dataset) as loader:
        return tail_of(loader)


def test_orbax_v0_manager_saves_and_restores(dataset, expected, tmp_path) -> None:
    ocp = pytest.importorskip("orbax.checkpoint")
    save, restore = orbax_args()
    weights = {"w": np.arange(4.0)}
    with make_loader(dataset) as loader, ocp.CheckpointManager(tmp_path / "run") as manager:
        for _ in range(17):
            next(loader)
        manager.save(
            17, args=ocp.args.Composite(model=ocp.args.StandardSave(weights), data=save(loader))
        )
        next(loader)
        manager.wait_until_finished()
    with make_loader(dataset) as loader, ocp.CheckpointManager(tmp_path / "run") as manager:
        found = manager.restore(
            17,
            args=ocp.args.Composite(model=ocp.args.StandardRestore(weights), data=restore(loader)),
        )
        assert found.data is loader
        assert np.array_equal(found.model["w"], weights["w"])
        assert all(map(np.array_equal, tail_of(loader), expected[17:]))


def test_orbax_v1_saves_and_loads_a_loader_and_a_mixture(dataset, expected, tmp_path) -> None:
    ocp = pytest.importorskip("orbax.checkpoint.experimental.v1")

    def make_mixture() -> Mixture:
        paths = [dataset.path, dataset.path]
        return Mixture(paths, weights=(2, 1), batch_size=4, buffer_size=48, output="numpy")

    with make_loader(dataset) as loader, make_mixture() as mixed:
        for _ in range(9):
            next(loader), next(mixed)
        ocp.save_checkpointables(
            tmp_path / "step", {"data": loader, "mixed": mixed, "model": {"w": np.arange(4.0)}}
        )
        following = next(mixed)["tokens"]
    with make_loader(dataset) as loader, make_mixture() as mixed:
        ocp.load_checkpointables(tmp_path / "step", {"data": loader, "mixed": mixed})
        assert loader.step == 9
        assert all(map(np.array_equal, tail_of(loader), expected[9:]))
        assert np.array_equal(next(mixed)["tokens"], following)


def test_grain_handler_saves_and_restores_as_grain(dataset, expected, tmp_path) -> None:
    grain = pytest.importorskip("grain")
    ocp = pytest.importorskip("orbax.checkpoint")
    from grain.checkpoint import CheckpointRestore, CheckpointSave

    iterator = as_grain(make_loader(dataset))
    assert isinstance(iterator, grain.DatasetIterator) and iter(iterator) is iterator
    for _ in range(5):
        next(iterator)
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        manager.save(5, args=ocp.args.Composite(data=CheckpointSave(iterator)))
        manager.wait_until_finished()
        iterator.close()
        iterator = as_grain(make_loader(dataset))
        manager.restore(5, args=ocp.args.Composite(data=CheckpointRestore(iterator)))
        assert all(map(np.array_equal, tail_of(iterator), expected[5:]))
        json.dumps(iterator.get_state())
        iterator.close()
        iterator.close()
    with pytest.raises(ValueError, match="closed"):
        next(iterator)


def test_grain_source_under_a_grain_pipeline(dataset: Dataset) -> None:
    grain = pytest.importorskip("grain")
    source = GrainSource(dataset.path, fields=("tokens", "segment_ids"))
    pipeline = grain.MapDataset.source(source).seed(1).shuffle().batch(10).to_iter_dataset()
    batches = list(pipeline)
    rows = np.concatenate([batch["tokens"] for batch in batches])
    assert rows.dtype == np.int32
    assert np.array_equal(rows[np.argsort(rows[:, 0])], dataset.tokens)
    filled = np.concatenate([(batch["segment_ids"] > 0).sum(axis=1) for batch in batches])
    assert sorted(filled) == sorted(dataset.lengths.sum(axis=1))


def test_grain_source_by_itself(dataset: Dataset) -> None:
    source = pickle.loads(pickle.dumps(GrainSource(dataset.path)))
    assert len(source) == 100 and dataset.manifest.fingerprint in repr(source)
    assert np.array_equal(source[41]["tokens"], dataset.tokens[41])
    found = [item["tokens"] for item in source.__getitems__([99, 0, 40])]
    assert np.array_equal(found, dataset.tokens[[99, 0, 40]])
    with pytest.raises(IndexError, match="expected 0 to 99"):
        source[100]
