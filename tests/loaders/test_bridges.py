"""Really saved by Orbax (v0 and v1) and really driven by Grain."""

import json
import pickle

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from shardstream.loaders import GrainSource, Loader, Mixture, as_grain, orbax_args
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


class MaxTextIterator:
    """What MaxText's MultiHostDataLoadIterator does with a Grain iterator, by its public parts."""

    def __init__(self, local_iterator, mesh: jax.sharding.Mesh) -> None:
        self.local_iterator = local_iterator
        self._sharding = NamedSharding(mesh, PartitionSpec("data"))

    def __next__(self) -> dict[str, jax.Array]:
        batch = next(self.local_iterator)
        return {
            name: jax.make_array_from_process_local_data(self._sharding, array)
            for name, array in batch.items()
        }


def test_as_grain_feeds_a_maxtext_style_trainer_and_its_checkpoints(dataset, tmp_path) -> None:
    grain = pytest.importorskip("grain")
    ocp = pytest.importorskip("orbax.checkpoint")
    from grain.checkpoint import CheckpointRestore, CheckpointSave

    mesh = jax.make_mesh((1,), ("data",))

    def make_iterator() -> MaxTextIterator:
        return MaxTextIterator(as_grain(make_loader(dataset, fields="maxtext")), mesh)

    data = make_iterator()
    assert isinstance(data.local_iterator, grain.DatasetIterator)
    batches = [next(data) for _ in range(12)]
    assert list(batches[0]) == [
        *("inputs", "inputs_position", "inputs_segmentation"),
        *("targets", "targets_position", "targets_segmentation"),
    ]
    assert {(array.shape, str(array.dtype)) for array in batches[0].values()} == {
        ((4, 16), "int32")
    }
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        manager.save(12, args=ocp.args.Composite(iter=CheckpointSave(data.local_iterator)))
        manager.wait_until_finished()
        following = next(data)
        data.local_iterator.close()
        again = make_iterator()
        manager.restore(12, args=ocp.args.Composite(iter=CheckpointRestore(again.local_iterator)))
    found = next(again)
    assert all(np.array_equal(found[name], following[name]) for name in following)
    again.local_iterator.close()


@pytest.mark.parametrize("hosts", [1, 2])
def test_grain_source_under_maxtexts_pipeline(dataset: Dataset, hosts: int) -> None:
    # As in MaxText's grain pipeline: shuffle, repeat, a slice a host, batch, iterate with threads.
    grain = pytest.importorskip("grain")

    def make_iterator(host: int):
        source = GrainSource(dataset.path, fields="maxtext")
        data = grain.MapDataset.source(source).shuffle(seed=3).repeat(2)[host::hosts]
        data = data.batch(10 // hosts, drop_remainder=True)
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
        return iter(data.to_iter_dataset(options))

    rows = []
    for host in range(hosts):
        iterator = make_iterator(host)
        batches = [next(iterator) for _ in range(7)]
        state = iterator.get_state()
        tail = list(iterator)
        again = make_iterator(host)
        again.set_state(state)
        for batch, expected in zip(list(again), tail, strict=True):
            assert all(np.array_equal(batch[name], expected[name]) for name in expected)
        rows += [batch["inputs"] for batch in batches + tail]
    firsts = np.concatenate(rows)[:, 0]
    assert np.array_equal(np.bincount(firsts), np.full(100, 2))


def test_grain_source_by_itself(dataset: Dataset) -> None:
    source = pickle.loads(pickle.dumps(GrainSource(dataset.path)))
    assert len(source) == 100 and dataset.manifest.fingerprint in repr(source)
    assert np.array_equal(source[41]["tokens"], dataset.tokens[41])
    found = [item["tokens"] for item in source.__getitems__([99, 0, 40])]
    assert np.array_equal(found, dataset.tokens[[99, 0, 40]])
    with pytest.raises(IndexError, match="expected 0 to 99"):
        source[100]
