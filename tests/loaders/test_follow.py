"""`follow=True`: what a loader gives while its dataset is still being written."""

import json
import logging
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from shardstream.loaders import Loader
from tests.loaders.conftest import PAD_ID, Dataset
from tests.loaders.growing_stream import OPTIONS, SHARDS, GrowingStream, available, follow
from tests.loaders.test_bad_records import damage


def firsts(batches: list) -> np.ndarray:
    """Returns the records in each row: a record starts with its number."""
    return np.array([batch["tokens"][:, 0] for batch in batches])


@pytest.fixture
def stream(tmp_path: Path) -> GrowingStream:
    return GrowingStream(tmp_path, SHARDS)


@pytest.fixture
def whole(tmp_path: Path) -> np.ndarray:
    """The records of every batch, as a loader of the complete stream gives them."""
    complete = GrowingStream(tmp_path / "other", SHARDS)
    complete.complete()
    with follow(complete, drop_remainder=False) as loader:
        return firsts(list(loader))


def test_batches_come_as_shards_are_committed_and_end_with_the_stream(stream, whole) -> None:
    batches, counts = [], []
    with follow(stream) as loader:
        assert loader.num_steps is None
        for count in (1, 0, 2, 1, 2):
            stream.commit(count)
            loader.source.refresh()
            batches += available(loader)
            counts.append(len(batches))
        assert counts[0] >= 2, "half of 40 records at least"
        assert counts == sorted(counts)
        assert loader.num_steps is None
        stream.complete()
        batches += list(loader)
        assert loader.num_steps == len(loader) == len(batches) == 318 // 8
        assert loader.steps_per_epoch == 39
        with pytest.raises(StopIteration):
            next(loader)
    assert np.array_equal(firsts(batches), whole[:39])


def test_a_complete_pass_gives_each_record_once(whole: np.ndarray) -> None:
    assert whole.shape == (40, 8)  # the last has 2 empty rows, which start with the pad id
    assert np.array_equal(np.sort(whole.ravel()[:-2]), np.arange(318))


def test_tokens_are_those_of_the_records(stream: GrowingStream) -> None:
    stream.complete()
    with follow(stream, fields=("tokens", "segment_ids")) as loader:
        for batch in loader:
            assert np.array_equal(batch["tokens"], stream.dataset.tokens[batch["tokens"][:, 0]])
            assert batch["segment_ids"].max() <= 6


def test_it_does_not_matter_when_shards_were_seen(stream, whole) -> None:
    def write() -> None:
        for count in (0, 1, 1, 1, 2, 2):
            stream.commit(count)
            time.sleep(0.05)
        stream.complete()

    writer = threading.Thread(target=write)
    with follow(stream, drop_remainder=False, fields="maxtext") as loader:
        writer.start()
        found = np.array([batch["inputs"][:, 0] for batch in loader])
        writer.join()
    assert np.array_equal(found, whole)


def test_no_shuffle_follows_the_order_of_the_log(stream: GrowingStream) -> None:
    stream.commit(2)
    with follow(stream, shuffle="none", drop_remainder=False) as loader:
        assert np.array_equal(firsts(available(loader)).ravel(), np.arange(64))
        stream.complete()
        rest = firsts(list(loader)).ravel()
    assert np.array_equal(rest[:-2], np.arange(64, 318))


def test_hosts_that_see_the_log_at_other_times_agree(stream, whole) -> None:
    stream.commit(3)
    options = {"process_count": 2, "drop_remainder": False}
    with follow(stream, process_index=0, **options) as early:
        parts = [available(early)]
        stream.commit(2)
        with follow(stream, process_index=1, **options) as late:
            stream.complete()
            parts[0] += list(early)
            parts.append(list(late))
        assert early.get_state() == late.get_state()
    joined = np.concatenate([firsts(part) for part in parts], axis=1)
    assert np.array_equal(joined, whole)


@pytest.mark.parametrize("hosts", [1, 2])
def test_a_state_continues_exactly_whatever_was_committed_since(stream, whole, hosts) -> None:
    states = []
    with follow(stream, drop_remainder=False) as loader:
        for _ in range(4):
            stream.commit()
            loader.source.refresh()
            while loader.step < loader.source.sure_steps:
                states.append(json.loads(json.dumps(loader.get_state())))
                next(loader)
    assert len(states) >= 8
    assert all(len(json.dumps(state)) < 4096 for state in states)
    for grow in (lambda: None, stream.commit, stream.complete):
        grow()
        for state in states[::3]:
            parts = []
            for host in range(hosts):
                options = {"drop_remainder": False, "process_count": hosts, "process_index": host}
                with follow(stream, **options) as loader:
                    loader.set_state(state)
                    parts.append(firsts(available(loader) if not loader.num_steps else loader))
            joined = np.concatenate(parts, axis=1)
            assert len(joined)
            assert np.array_equal(joined, whole[state["step"] :][: len(joined)])
    assert len(joined) == len(whole) - states[::3][-1]["step"]


def test_set_state_goes_back_in_a_running_loader(stream: GrowingStream) -> None:
    stream.commit(5)
    with follow(stream) as loader:
        start = loader.get_state()
        batches = available(loader)
        loader.set_state(start)
        assert np.array_equal(firsts(available(loader)), firsts(batches))
        stream.complete()
        loader.skip(10_000)
        assert list(loader) == []


def test_batch_at_and_provenance_of_what_is_committed(stream, whole) -> None:
    stream.commit()
    with follow(stream) as loader:
        assert np.array_equal(loader.batch_at(1)["tokens"][:, 0], whole[1])
        assert set(loader.provenance(1)["row"].to_pylist()) == set(range(8))
        with pytest.raises(IndexError, match=r"step is 30, expected 0 to \d so far; 1 shards with"):
            loader.batch_at(30)
        stream.commit(6)
        assert np.array_equal(loader.batch_at(20)["tokens"][:, 0], whole[20])
        with pytest.raises(ValueError, match="the stream is still growing"):
            _ = loader.steps_per_epoch
        with pytest.raises(TypeError, match="a stream that still grows"):
            len(loader)


def test_batches_are_sharded_over_devices(stream, whole) -> None:
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    stream.complete()
    with follow(stream, output="jax", sharding=sharding) as loader:
        batch = next(loader)
    assert batch["tokens"].sharding == sharding
    assert np.array_equal(batch["tokens"][:, 0], whole[0])


def test_each_split_is_followed_by_itself(tmp_path: Path) -> None:
    stream = GrowingStream(tmp_path, (30, 20, 30, 20), validation=(1, 3))
    found = {}
    with follow(stream) as train, follow(stream, split="validation", batch_size=5) as held_out:
        stream.commit(1)
        held_out.source.refresh()
        assert available(held_out) == []
        stream.complete()
        found = {"train": firsts(list(train)), "validation": firsts(list(held_out))}
    train_records = [*range(30), *range(50, 80)]
    assert set(found["train"].ravel()) < set(train_records)
    assert np.array_equal(np.sort(found["validation"].ravel()), [*range(30, 50), *range(80, 100)])


def test_a_loader_ahead_of_the_stream_says_so_and_gives_up_in_time(stream, caplog) -> None:
    stream.commit(2)
    with follow(stream, stall_secs=0.2, follow_timeout_secs=1.0) as loader:
        available(loader)
        with (
            caplog.at_level(logging.WARNING, "shardstream.loaders"),
            pytest.raises(TimeoutError, match=r"no new commit for 1 s .*Run|run its command again"),
        ):
            next(loader)
        state = loader.get_state()
    assert "the loader is ahead of the stream: 2 shards with 65 sequences" in caplog.text
    assert "the next commit is commits/00000001.json" in caplog.text
    stream.complete()
    with follow(stream) as loader:
        loader.set_state(state)
        assert len(list(loader)) == 39 - state["step"]


def test_the_timeout_counts_waiting_not_the_pauses_of_the_trainer(stream: GrowingStream) -> None:
    stream.commit(2)
    with follow(stream, follow_timeout_secs=0.6, prefetch=1) as loader:
        available(loader)
        for _ in range(3):  # a commit that brings nothing shows that the stream is alive
            time.sleep(0.3)
            stream.commit(0)
        time.sleep(0.3)
        stream.complete()
        assert len(list(loader)) > 0


def test_closing_a_loader_that_waits_takes_no_time(stream: GrowingStream) -> None:
    loader = follow(stream)
    loader.start_prefetch()
    time.sleep(0.2)
    loader.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("shardstream")]


def test_any_complete_dataset_can_be_followed(dataset: Dataset) -> None:
    with Loader(dataset.path, **OPTIONS | {"batch_size": 10}) as loader:
        assert len(loader) == 10
        assert np.array_equal(np.sort(firsts(list(loader)).ravel()), np.arange(100))


def test_a_bad_record_is_skipped_while_following(stream: GrowingStream) -> None:
    stream.commit(2)
    damage(stream.dataset, 0, 7)
    with follow(stream, on_bad_record="skip", drop_remainder=False) as loader:
        stream.complete()
        found = firsts(list(loader)).ravel()
        assert loader.bad_records() == [(stream.shards[0].file, 7)]
    assert np.array_equal(np.sort(found[found != PAD_ID]), np.setdiff1d(range(318), [PAD_ID, 7]))


def test_a_stream_on_a_store_is_followed(gs_root: str, tmp_path: Path, whole: np.ndarray) -> None:
    stream = GrowingStream(tmp_path, SHARDS, root=f"{gs_root}/stream")
    stream.commit(2)
    with follow(stream, drop_remainder=False, cache_dir=tmp_path / "cache") as loader:
        batches = available(loader)
        state = loader.get_state()
        stream.commit(1)
        stream.complete()
        batches += list(loader)
    assert np.array_equal(firsts(batches), whole)
    with follow(stream, drop_remainder=False, cache_dir=tmp_path / "cache") as loader:
        loader.set_state(state)
        assert np.array_equal(firsts(list(loader)), whole[state["step"] :])


def test_a_stream_on_a_store_gives_the_batches_of_a_local_one(gs_root: str, tmp_path: Path) -> None:
    found = {}
    for root in (None, gs_root):
        stream = GrowingStream(tmp_path / str(root is None), SHARDS, root=root)
        stream.commit(4)
        with follow(stream, cache_dir=tmp_path / "cache") as loader:
            batches = [next(loader)]
            stream.complete()
            batches += list(loader)
        found[root] = firsts(batches)
    np.testing.assert_array_equal(found[gs_root], found[None])
