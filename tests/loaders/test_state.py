"""Resume: the state of every step continues exactly, whatever changed in between."""

import json

import numpy as np
import pytest

from shardstream.loaders import Loader
from tests.loaders.conftest import Dataset

ORDERS = [
    {"shuffle": "buffer", "buffer_size": 48},
    {"shuffle": "buffer", "buffer_size": 48, "drop_remainder": False},
    {"shuffle": "buffer", "buffer_size": 200, "drop_remainder": False, "batch_size": 50},
    {"shuffle": "global"},
    {"shuffle": "none", "drop_remainder": False},
]


def numpy_loader(dataset: Dataset, **options) -> Loader:
    common = {"batch_size": 4, "epochs": 2, "seed": 11, "output": "numpy"}
    return Loader(dataset.path, **common | options)


def tokens_of(loader: Loader) -> list[np.ndarray]:
    return [batch["tokens"] for batch in loader]


@pytest.mark.parametrize("options", ORDERS)
def test_state_of_every_step_continues_with_the_same_tail(dataset, larger, options) -> None:
    data = dataset if options.get("batch_size") != 50 else larger
    with numpy_loader(data, **options) as loader:
        states, batches = [loader.get_state()], []
        for batch in loader:
            batches.append(batch["tokens"])
            states.append(json.loads(json.dumps(loader.get_state())))
    for step, state in enumerate(states):
        assert len(json.dumps(state)) <= 4096
        with numpy_loader(data, **options) as loader:
            loader.set_state(state)
            tail = (
                tokens_of(loader)
                if step % 5 == 0
                else [b["tokens"] for b, _ in zip(loader, range(3), strict=False)]
            )
        expected = batches[step : step + len(tail)]
        assert len(tail) == (len(batches) - step if step % 5 == 0 else min(3, len(batches) - step))
        assert all(np.array_equal(a, b) for a, b in zip(tail, expected, strict=True))


@pytest.mark.parametrize("options", ORDERS[:4])
@pytest.mark.parametrize("hosts", [(4, 2), (1, 4), (2, 1)])
def test_state_continues_on_another_number_of_hosts(larger, options, hosts) -> None:
    before, after = hosts
    options = {**options, "batch_size": 8}
    with numpy_loader(larger, **options) as loader:
        expected = tokens_of(loader)
    for step in (1, 77, len(expected) // 2 - 1, len(expected) // 2, len(expected) - 2):
        with numpy_loader(
            larger, process_index=before - 1, process_count=before, **options
        ) as loader:
            loader.skip(step - 1)
            next(loader)
            state = loader.get_state()
        parts = []
        for host in range(after):
            with numpy_loader(larger, process_index=host, process_count=after, **options) as loader:
                loader.set_state(state)
                parts.append([batch["tokens"] for batch, _ in zip(loader, range(5), strict=False)])
        joined = [np.concatenate(rows) for rows in zip(*parts, strict=True)]
        for found, wanted in zip(joined, expected[step:], strict=False):
            assert np.array_equal(found, wanted)


@pytest.mark.parametrize("options", ORDERS[:2] + ORDERS[3:])
@pytest.mark.parametrize("hosts", [2, 4])
def test_state_of_every_step_of_one_host_continues_on_several(dataset, options, hosts) -> None:
    options = {**options, "batch_size": 8}
    with numpy_loader(dataset, **options) as loader:
        states, expected = [], []
        for batch in loader:
            expected.append(batch["tokens"])
            states.append(loader.get_state())
    for step, state in enumerate(states, 1):
        tails = []
        for host in range(hosts):
            with numpy_loader(
                dataset, process_index=host, process_count=hosts, **options
            ) as loader:
                loader.set_state(state)
                tails.append(tokens_of(loader))
        joined = [np.concatenate(rows) for rows in zip(*tails, strict=True)]
        assert len(joined) == len(expected) - step
        assert all(map(np.array_equal, joined, expected[step:]))


def test_threads_prefetch_and_earlier_reads_do_not_change_batches(larger: Dataset) -> None:
    with numpy_loader(larger, buffer_size=100) as loader:
        expected = tokens_of(loader)
    for options in [{"read_threads": 1, "prefetch": 1}, {"read_threads": 5, "prefetch": 64}]:
        with numpy_loader(larger, buffer_size=100, **options) as loader:
            loader.batch_at(200)
            assert all(map(np.array_equal, tokens_of(loader), expected))


def test_state_counts_batches_received_not_prefetched(larger: Dataset) -> None:
    with numpy_loader(larger, prefetch=50) as loader:
        loader.start_prefetch()
        assert loader.get_state()["step"] == 0
        next(loader)
        next(loader)
        assert loader.get_state()["step"] == 2


def test_set_state_goes_back_and_forth_in_a_running_loader(larger: Dataset) -> None:
    with numpy_loader(larger, buffer_size=64) as loader:
        states, batches = [], []
        for _ in range(40):
            states.append(loader.get_state())
            batches.append(next(loader)["tokens"])
        for step in (0, 39, 17):
            loader.set_state(states[step])
            assert np.array_equal(next(loader)["tokens"], batches[step])


def test_state_after_the_last_batch_gives_none(dataset: Dataset) -> None:
    with numpy_loader(dataset) as loader:
        list(loader)
        state = loader.get_state()
    with numpy_loader(dataset) as loader:
        loader.set_state(state)
        assert list(loader) == []


def test_state_golden(dataset: Dataset) -> None:
    with numpy_loader(dataset, buffer_size=48) as loader:
        next(loader)
        state = loader.get_state()
    assert state == {
        "version": 1,
        "fingerprint": dataset.manifest.fingerprint,
        "split": "train",
        "shuffle": "buffer",
        "buffer_size": 48,
        "seed": 11,
        "batch_size": 4,
        "drop_remainder": True,
        "step": 1,
        "num_bad_records": 0,
        "bad_records": [],
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "f" * 64}, "the state is of a dataset with fingerprint ffff"),
        ({"version": 2}, "the state has version 2, this code reads 1"),
        ({"seed": 12}, "the state has seed=12, this loader 11.*Build the loader with seed=12"),
        ({"batch_size": 8}, "the state has batch_size=8, this loader 4"),
        ({"shuffle": "none"}, "the state has shuffle='none'"),
        ({"buffer_size": 5}, "the state has buffer_size=5"),
        ({"step": -1}, "the state has step -1"),
    ],
)
def test_state_of_something_else_is_refused(dataset: Dataset, change, message) -> None:
    with numpy_loader(dataset) as loader, pytest.raises(ValueError, match=message):
        loader.set_state(loader.get_state() | change)
