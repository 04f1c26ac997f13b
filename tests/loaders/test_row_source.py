"""The iterator over sources and deliveries that are neither a dataset nor JAX: the protocols hold."""

import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from shardstream.loaders.iterator import BatchIterator
from shardstream.loaders.row_source import NO_PROGRESS, HostBatches, Padding, RandomAccess, Reading
from shardstream.loaders.shards.rows import Rows

PAD_ID = 9
LENGTH = 5


class CountingRows:
    """A source in memory: row r of step s starts with 100 * s + r; a chunk is up to three steps.

    It can only be read from its beginning: a state holds where to go on, as a stream's does.
    """

    padding = Padding(PAD_ID)
    has_empty_rows = False
    bad = ()

    def __init__(self, steps: int, batch_size: int, *, knows_its_end: bool = True) -> None:
        self._steps, self._batch_size = steps, batch_size
        self.num_steps = steps if knows_its_end else None
        self.began_at: list[int] = []
        self.is_closed = False

    def batches(self, reading: Reading) -> Iterator[HostBatches]:
        at = reading.progress["at"]
        self.began_at.append(at)
        while at < self._steps and not reading.closing.is_set():
            count = min(1 + at % 3, self._steps - at)
            rows = [
                self._rows(step, reading.rows, reading.lengths) for step in range(at, at + count)
            ]
            wanted = [
                r
                for step, r in zip(range(at, at + count), rows, strict=True)
                if step >= reading.step
            ]
            if wanted:
                tokens = np.concatenate([r.tokens for r in wanted])
                lengths = None
                if reading.lengths:
                    lengths = np.concatenate([r.lengths for r in wanted if r.lengths is not None])
                yield HostBatches(len(wanted), Rows(tokens, lengths), {"at": at})
            at += count
        self.num_steps = self._steps

    def _rows(self, step: int, rows: np.ndarray, lengths: bool) -> Rows:
        tokens = np.full((len(rows), LENGTH), PAD_ID, np.uint16)
        tokens[:, 0] = 100 * step + rows
        tokens[:, 1] = 1
        documents = np.zeros((len(rows), 2), np.uint16)
        documents[:, 0] = 2
        return Rows(tokens, documents if lengths else None)

    def identity(self, step: int) -> dict[str, Any]:
        return {"batch_size": self._batch_size}

    def check_identity(self, state: Mapping[str, Any]) -> None:
        if state["batch_size"] != self._batch_size:
            raise ValueError("the state is of another source")

    def progress_in(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"at": state.get("at", 0)}

    def waiting_for(self) -> list[str]:
        return []

    def close(self) -> None:
        self.is_closed = True


class RandomRows(CountingRows):
    """The same rows by random access; its states need no more than the step."""

    def batches(self, reading: Reading) -> Iterator[HostBatches]:
        for step in range(reading.step, self._steps):
            yield HostBatches(1, self._rows(step, reading.rows, reading.lengths))

    def progress_in(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        return NO_PROGRESS

    def rows_at(self, step: int, rows: np.ndarray, *, lengths: bool) -> Rows:
        return self._rows(step, rows, lengths)


class ListDelivery:
    """Gives batches as lists, and notes in which threads it was called."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = np.array(rows)
        self.threads: dict[str, set[str]] = {"prepare": set(), "deliver": set()}
        self.is_closed = False

    def prepare(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.threads["prepare"].add(threading.current_thread().name)
        return batch

    def deliver(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        self.threads["deliver"].add(threading.current_thread().name)
        return {name: array.tolist() for name, array in batch.items()}

    def close(self) -> None:
        self.is_closed = True


def firsts(batches: Iterator[dict[str, Any]]) -> list[list[int]]:
    return [[row[0] for row in batch["tokens"]] for batch in batches]


@pytest.mark.parametrize("knows_its_end", [True, False])
@pytest.mark.parametrize("prefetch", [1, 2, 16])
@pytest.mark.parametrize("kind", [CountingRows, RandomRows])
def test_state_of_every_step_resumes_any_source(kind, prefetch: int, knows_its_end: bool) -> None:
    def open_it(steps: int = 14) -> BatchIterator:
        source = kind(steps, 4, knows_its_end=knows_its_end)
        return BatchIterator(source, ListDelivery([1, 3]), prefetch=prefetch)

    expected = [[100 * step + 1, 100 * step + 3] for step in range(14)]
    with open_it() as batches:
        states, found = [batches.get_state()], []
        for batch in batches:
            found.append(batch)
            states.append(json.loads(json.dumps(batches.get_state())))
        assert firsts(iter(found)) == expected
        assert batches.num_steps == 14 if knows_its_end or kind is CountingRows else True
    assert [state["step"] for state in states] == list(range(15))
    for step, state in enumerate(states):
        with open_it() as batches:
            batches.set_state(state)
            assert firsts(batches) == expected[step:]
            # A source that is read forwards goes on where it was, not at its beginning.
            if kind is CountingRows:
                assert all(begun >= step - 3 for begun in batches.source.began_at)


def test_skip_reads_on_from_the_last_progress_known() -> None:
    source = CountingRows(30, 2)
    with BatchIterator(source, ListDelivery([0]), prefetch=1) as batches:
        for _ in range(10):
            next(batches)
        batches.skip(9)
        assert firsts(batches)[0] == [1900]
    assert source.began_at[0] == 0 and source.began_at[1] >= 7


def test_skip_past_an_unknown_end_ends_at_the_last_step() -> None:
    with BatchIterator(CountingRows(7, 2, knows_its_end=False), ListDelivery([0])) as batches:
        batches.skip(1000)
        assert list(batches) == []
        assert batches.step == len(batches) == batches.get_state()["step"] == 7


def test_delivery_is_prepared_in_the_thread_and_delivered_to_the_caller() -> None:
    source, delivery = RandomRows(5, 2), ListDelivery([0, 1])
    with BatchIterator(source, delivery, fields=("tokens", "segment_ids")) as batches:
        batch = next(batches)
        assert batch == {
            "tokens": [[0, 1, 9, 9, 9], [1, 1, 9, 9, 9]],
            "segment_ids": [[1, 1, 0, 0, 0]] * 2,
        }
        assert batches.batch_at(3)["tokens"][1][0] == 301
        list(batches)
    assert source.is_closed and delivery.is_closed
    assert "shardstream-prefetch" in delivery.threads["prepare"]
    assert delivery.threads["deliver"] == {threading.current_thread().name}


def test_batch_at_needs_random_access() -> None:
    assert isinstance(RandomRows(1, 1), RandomAccess)
    with (
        BatchIterator(CountingRows(5, 2), ListDelivery([0])) as batches,
        pytest.raises(NotImplementedError, match="a CountingRows finds a step only by reading"),
    ):
        batches.batch_at(3)


def test_state_of_another_source_is_refused() -> None:
    with BatchIterator(CountingRows(5, 2), ListDelivery([0])) as batches:
        state = batches.get_state()
    with (
        BatchIterator(CountingRows(5, 3), ListDelivery([0])) as batches,
        pytest.raises(ValueError, match="of another source"),
    ):
        batches.set_state(state)
