"""Mixtures: exact weights, resume, epochs of each component, ends."""

import json
from fractions import Fraction

import numpy as np
import pytest

from shardstream.loaders import Mixture
from shardstream.loaders.order.mixing import Schedule
from tests.loaders.conftest import Dataset, build_dataset

WEIGHTS = [
    (1, 1),
    (7, 3),
    (0.7, 0.3),
    (5, 3, 1),
    (1, 2, 3, 4),
    (97, 2, 1),
    (0.123, 0.456, 0.421),
    (3,),
]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_schedule_counts_stay_within_one_of_their_share(weights) -> None:
    schedule = Schedule(weights)
    total = sum(Fraction(str(weight)) for weight in weights)
    places = np.arange(3 * schedule.period)
    sequence = schedule.components(np.array([0]), places)[0]
    for component, weight in enumerate(weights):
        share = Fraction(str(weight)) / total
        assert schedule.counts[component] == share * schedule.period
        counts = np.cumsum(sequence == component)
        assert np.abs(counts - (places + 1) * float(share)).max() < 1


@pytest.mark.parametrize("weights", WEIGHTS)
def test_batches_and_windows_of_steps_keep_the_weights(weights) -> None:
    schedule, batch_size, steps = Schedule(weights), 64, 500
    chosen = schedule.components(np.arange(steps), np.arange(batch_size))
    for component, count in enumerate(schedule.counts):
        share = count / schedule.period
        per_batch = (chosen == component).sum(axis=1)
        assert np.abs(per_batch - share * batch_size).max() < (1.001 if len(weights) < 3 else 2)
        # Any window of steps: the error does not grow with it.
        sums = np.cumsum(np.concatenate([[0], per_batch - share * batch_size]))
        assert sums.max() - sums.min() < batch_size
        drawn = np.cumsum(chosen == component, axis=0)
        assert np.abs(drawn - share * np.arange(1, steps + 1)[:, None]).max() < 2


@pytest.mark.parametrize("weights", WEIGHTS)
def test_drawn_counts_what_components_says(weights) -> None:
    schedule, rows = Schedule(weights), np.array([0, 3, 17])
    chosen = schedule.components(np.arange(300), rows)
    for component in range(len(weights)):
        counted = np.concatenate([np.zeros((1, 3), int), np.cumsum(chosen == component, axis=0)])
        assert np.array_equal(schedule.drawn(component, np.arange(301), rows), counted)


def test_weights_of_a_long_period_are_rounded() -> None:
    schedule = Schedule((1 / 3, 1 / 7, 0.1234567))
    assert schedule.period == 10_000
    assert abs(schedule.counts[0] / 10_000 - (1 / 3) / (1 / 3 + 1 / 7 + 0.1234567)) < 1e-4


@pytest.mark.parametrize("weights", [(1, 0), (1, -1), (), (1, 1e-9)])
def test_wrong_weights_raise(weights) -> None:
    with pytest.raises(ValueError, match="weights are"):
        Schedule(weights)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    """Three datasets whose records are numbered from 0, 1,000 and 2,000."""
    top = tmp_path_factory.mktemp("mixture")
    return [
        build_dataset(
            top / name, records, sequence_length=8, seed=seed, token_dtype=dtype, first=first
        )
        for name, records, seed, dtype, first in [
            ("web", (200, 104), 1, "uint16", 0),
            ("code", (90,), 2, "uint32", 1000),
            ("math", (40, 1), 3, "uint16", 2000),
        ]
    ]


def mixture(datasets: list[Dataset], **options) -> Mixture:
    common = {"batch_size": 8, "buffer_size": 60, "output": "numpy", "weights": (5, 3, 1)}
    return Mixture([component.path for component in datasets], **common | options)


def firsts(batches: list[dict]) -> np.ndarray:
    return np.stack([batch["tokens"][:, 0] for batch in batches])


@pytest.mark.parametrize("shuffle", ["buffer", "global", "none"])
def test_mixture_draws_each_component_epoch_by_epoch(datasets, shuffle) -> None:
    with mixture(datasets, shuffle=shuffle, fields=("tokens", "segment_ids")) as mixed:
        batches = [next(mixed) for _ in range(150)]
    rows = firsts(batches).ravel()
    for component, data in enumerate(datasets):
        mine = rows[rows // 1000 == component] % 1000
        assert abs(len(mine) - 1200 * (5, 3, 1)[component] / 9) < 8
        # Every record of the first epochs came as often as any other, up to remainder and the edge.
        counts = np.bincount(mine, minlength=len(data.tokens))
        epochs = len(mine) / (len(data.tokens) // 8 * 8)
        assert counts.max() <= np.ceil(epochs) + 1
        assert (counts >= np.floor(epochs) - 1).mean() > 0.9
    for batch in batches[::17]:
        for row, tokens in enumerate(batch["tokens"]):
            data = datasets[tokens[0] // 1000]
            record = tokens[0] % 1000
            assert np.array_equal(tokens, data.tokens[record])
            assert (batch["segment_ids"][row] > 0).sum() == data.lengths[record].sum()


@pytest.mark.parametrize("weights", [(1, 1, 1), (5, 3, 1), (0.7, 0.2, 0.1)])
def test_every_window_of_batches_keeps_the_weights(datasets, weights) -> None:
    with mixture(datasets, weights=weights) as mixed:
        rows = firsts([next(mixed) for _ in range(120)]) // 1000
    for component, weight in enumerate(weights):
        share = weight / sum(weights)
        in_batch = (rows == component).sum(axis=1)
        assert np.abs(in_batch - 8 * share).max() < 2
        # The surplus of a window is the difference of two of these; it never reaches one batch.
        surplus = np.cumsum(np.concatenate([[0], in_batch - 8 * share]))
        assert surplus.max() - surplus.min() < 8


def test_state_of_every_step_continues_the_mixture(datasets) -> None:
    with mixture(datasets) as mixed:
        states, batches = [], []
        for _ in range(60):
            states.append(json.loads(json.dumps(mixed.get_state())))
            batches.append(next(mixed)["tokens"])
    assert max(len(json.dumps(state)) for state in states) <= 4096
    for step in range(60):
        with mixture(datasets) as mixed:
            mixed.set_state(states[step])
            for expected in batches[step : step + 5]:
                assert np.array_equal(next(mixed)["tokens"], expected)
            assert np.array_equal(mixed.batch_at(step)["tokens"], batches[step])


def test_hosts_together_hold_the_mixture(datasets) -> None:
    with mixture(datasets) as mixed:
        expected = [next(mixed)["tokens"] for _ in range(50)]
    halves = []
    for host in range(2):
        with mixture(datasets, process_index=host, process_count=2) as mixed:
            halves.append([next(mixed)["tokens"] for _ in range(50)])
    assert all(map(np.array_equal, map(np.concatenate, zip(*halves, strict=True)), expected))


def test_stop_first_ends_before_any_component_repeats(datasets) -> None:
    with mixture(datasets, stop="first") as mixed:
        rows = firsts(list(mixed)).ravel()
        assert len(mixed) * 8 == len(rows)
        assert 0.9 < max(mixed.epochs_at(len(mixed))) <= 1
    assert len(np.unique(rows)) == len(rows)


def test_stop_all_ends_when_every_component_was_seen_whole(datasets) -> None:
    with mixture(datasets, stop="all") as mixed:
        rows = firsts(list(mixed)).ravel()
        assert 1 <= min(mixed.epochs_at(len(mixed))) < 1.2
    for component, data in enumerate(datasets):
        seen = np.unique(rows[rows // 1000 == component])
        assert len(seen) >= len(data.tokens) // 8 * 8


def test_mixture_of_unlike_datasets_raises(datasets, dataset) -> None:
    with pytest.raises(ValueError, match=r"need one sequence_length, found .*: 8, .*: 16"):
        mixture([datasets[0], dataset], weights=(1, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop": "last"}, "stop is 'last', expected one of never, first, all"),
        ({"weights": (1, 2)}, "3 paths and 2 weights"),
    ],
)
def test_wrong_mixture_options_raise(datasets, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        mixture(datasets, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 2}, "a mixture has no epochs, since its components repeat: give stop="),
        ({"drop_remainder": False}, "a mixture has no drop_remainder"),
        ({"follow": True}, "a mixture can't follow a stream that grows"),
        ({"wieghts": (1, 2, 3)}, "a Mixture has no option wieghts. Did you mean weights"),
    ],
)
def test_options_that_a_mixture_has_not_are_explained(datasets, options, message) -> None:
    with pytest.raises(TypeError, match=message):
        mixture(datasets, **options)


def test_state_of_other_weights_is_refused(datasets) -> None:
    with mixture(datasets, weights=(5, 3, 2)) as other:
        state = other.get_state()
    message = r"the state has weights \[5, 3, 2\], this mixture"
    with mixture(datasets) as mixed, pytest.raises(ValueError, match=message):
        mixed.set_state(state)
