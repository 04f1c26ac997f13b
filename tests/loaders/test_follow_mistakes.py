"""What a loader refuses to follow, and what it notices when the stream is not the one it began with."""

from pathlib import Path

import pytest

from shardstream.loaders import Loader, Mixture
from shardstream.shard_format import naming
from tests.loaders.growing_stream import SHARDS, GrowingStream, available, follow


@pytest.fixture
def stream(tmp_path: Path) -> GrowingStream:
    return GrowingStream(tmp_path, SHARDS)


def test_a_growing_dataset_is_refused_without_follow(stream: GrowingStream) -> None:
    with pytest.raises(ValueError, match=r"is following, expected complete.*follow=True"):
        Loader(stream.path, batch_size=8)


def test_an_interrupted_batch_build_can_not_be_followed(make_dataset) -> None:
    dataset = make_dataset((20,), status="incomplete")
    with pytest.raises(ValueError, match="is incomplete, expected complete or following"):
        Loader(dataset.path, batch_size=8, follow=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 2}, "epochs is 2 with follow=True, expected 1"),
        ({"epochs": None}, "epochs is None with follow=True, expected 1"),
        ({"shuffle": "global"}, "shuffle is 'global' with follow=True"),
        ({"split": "validation"}, "no split 'validation' in this stream, expected one of: train"),
        ({"follow_timeout_secs": 0}, "follow_timeout_secs is 0, expected more than 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(stream, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        follow(stream, **options)


def test_a_mixture_refuses_to_follow(stream: GrowingStream) -> None:
    with pytest.raises(TypeError, match="a mixture can't follow a stream that grows"):
        Mixture([stream.path], weights=[1], batch_size=8, follow=True)


def test_a_state_of_another_stream_is_refused(tmp_path: Path) -> None:
    one, other = (GrowingStream(tmp_path / str(i), SHARDS) for i in range(2))
    longer = GrowingStream(tmp_path / "longer", (41, *SHARDS[1:]))
    for stream in (one, longer):
        stream.commit(3)
    with follow(one) as loader:
        next(loader)
        state = loader.get_state()
    assert state["num_shards"] == 1
    for stream in (other, longer):  # too short a log; other shards in it
        with follow(stream) as loader, pytest.raises(ValueError, match="has seen 1 shards of"):
            loader.set_state(state)


def test_states_of_loaders_with_and_without_follow_are_not_mixed(stream) -> None:
    stream.complete()
    with follow(stream) as following, follow(stream, follow=False) as plain:
        with pytest.raises(ValueError, match="the state has follow=True, this loader False"):
            plain.set_state(following.get_state())
        with pytest.raises(ValueError, match="the state has follow=False, this loader True"):
            following.set_state(plain.get_state())


def test_a_dataset_rebuilt_meanwhile_is_noticed(stream: GrowingStream, tmp_path: Path) -> None:
    stream.commit(2)
    with follow(stream) as loader:
        available(loader)
        stream.complete(shards=stream.shards[1:])
        with pytest.raises(ValueError, match="lists other shards than the commits"):
            list(loader)
    fresh = GrowingStream(tmp_path / "fresh", SHARDS)
    with follow(fresh) as loader:
        fresh.complete(plan_fingerprint="another")
        with pytest.raises(ValueError, match="another stream is being written here"):
            list(loader)


def test_a_stream_started_again_meanwhile_is_noticed(stream: GrowingStream, tmp_path) -> None:
    stream.commit(2)
    with follow(stream) as loader:
        available(loader)
        again = GrowingStream(tmp_path / "again", (9, *SHARDS))
        again.commit(1)
        again.commit(3)
        for name in (naming.commit_name(0), naming.commit_name(1)):
            stream.directory.write(name, again.directory.read(name))
        with pytest.raises(ValueError, match="another stream is being written here"):
            list(loader)


def test_a_stream_that_ends_before_a_batch_is_refused(tmp_path: Path) -> None:
    stream = GrowingStream(tmp_path, (5,))
    with follow(stream) as loader:
        stream.complete()
        with pytest.raises(ValueError, match="has 5 sequences, expected at least one batch of 8"):
            next(loader)
