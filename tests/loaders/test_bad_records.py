"""Damaged shards: what is noticed, what it is called, what takes a bad record's place."""

import logging
import shutil

import numpy as np
import pytest

from shardstream.loaders import BadRecordError, Loader
from shardstream.shard_format import naming
from shardstream.shard_format.shard_file import ShardFile, ShardOptions
from tests.loaders.conftest import PAD_ID, Dataset

SHUFFLES = ["buffer", "global", "none"]


def damage(dataset: Dataset, shard: int, record: int) -> None:
    """Flips one byte of a record's tokens on the disk."""
    entry = dataset.manifest.shards[shard]
    path = dataset.path / entry.file
    layout = dataset.manifest.layout(entry)
    file = ShardFile(path, record_bytes=layout.record_bytes, num_records=entry.records)
    content = file.read(record, record + 1).tobytes()
    file.close()
    data = bytearray(path.read_bytes())
    at = bytes(data).find(content)
    assert at >= 0
    data[at + 5] ^= 0x40
    path.write_bytes(data)


def swap_the_first_with_the_third(dataset: Dataset) -> None:
    """Gives two shards of one size each other's content."""
    one, other = (dataset.path / dataset.manifest.shards[i].file for i in (0, 2))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def numpy_loader(dataset: Dataset, **options) -> Loader:
    common = {
        "batch_size": 5,
        "buffer_size": 40,
        "output": "numpy",
        "fields": ("tokens", "segment_ids"),
    }
    return Loader(dataset.path, **common | options)


@pytest.fixture(params=["checksums", "ArrayRecord alone"])
def damaged(make_dataset, request: pytest.FixtureRequest) -> Dataset:
    """100 sequences; records 7 and 8 of shard 0 and record 3 of shard 2 are damaged."""
    dataset = make_dataset((40, 25, 35))
    if request.param == "ArrayRecord alone":
        shutil.rmtree(dataset.path / naming.CHECKSUMS_DIRECTORY)
    for shard, record in [(0, 7), (0, 8), (2, 3)]:
        damage(dataset, shard, record)
    return dataset


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_raise_names_shard_and_record(damaged: Dataset, shuffle: str) -> None:
    with (
        numpy_loader(damaged, shuffle=shuffle) as loader,
        pytest.raises(BadRecordError, match=r"train-0000\d-of-00003.array_record, record [378]: "),
    ):
        list(loader)


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_skip_empties_the_rows_of_bad_records_and_keeps_all_others(
    damaged, shuffle, caplog
) -> None:
    with (
        caplog.at_level(logging.WARNING, "shardstream.loaders"),
        numpy_loader(damaged, shuffle=shuffle, on_bad_record="skip") as loader,
    ):
        batches = list(loader)
        bad = loader.bad_records()
        assert [b["segment_ids"].tolist() for b in map(loader.batch_at, range(20))] == [
            b["segment_ids"].tolist() for b in batches
        ]
    tokens = np.concatenate([batch["tokens"] for batch in batches])
    is_row = np.concatenate([batch["segment_ids"] for batch in batches]).any(axis=1)
    assert (tokens[~is_row] == PAD_ID).all()
    found = tokens[is_row][np.argsort(tokens[is_row, 0])]
    assert np.array_equal(found, np.delete(damaged.tokens, [7, 8, 68], axis=0))
    names = [shard.file for shard in damaged.manifest.shards]
    assert bad == [(names[0], 7), (names[0], 8), (names[2], 3)]
    assert caplog.text.count("can't be read") == 3


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_substitute_puts_the_next_readable_record_of_the_shard(damaged, shuffle) -> None:
    with numpy_loader(damaged, shuffle=shuffle, on_bad_record="substitute") as loader:
        rows = np.concatenate([batch["tokens"][:, 0] for batch in loader])
    expected = np.concatenate([np.delete(np.arange(100), [7, 8, 68]), [9, 9, 69]])
    assert np.array_equal(np.sort(rows), np.sort(expected))


@pytest.mark.parametrize("policy", ["skip", "substitute"])
def test_all_hosts_agree_on_what_takes_a_bad_records_place(damaged: Dataset, policy: str) -> None:
    options = {"on_bad_record": policy, "batch_size": 4}
    with numpy_loader(damaged, **options) as loader:
        expected = [batch["tokens"] for batch in loader]
    parts = []
    for host in range(2):
        with numpy_loader(damaged, process_index=host, process_count=2, **options) as loader:
            parts.append([batch["tokens"] for batch in loader])
    joined = [np.concatenate(rows) for rows in zip(*parts, strict=True)]
    assert all(map(np.array_equal, joined, expected))


def test_budget_is_spent_over_restarts(damaged: Dataset) -> None:
    # One thread, or what is read ahead may meet the third bad record before the first batch comes.
    options = {"on_bad_record": "skip", "shuffle": "none", "bad_record_budget": 2}
    options |= {"read_threads": 1}
    with numpy_loader(damaged, **options) as loader:
        loader.skip(1)
        next(loader)
        state = loader.get_state()
    assert state["num_bad_records"] >= 2
    with numpy_loader(damaged, **options) as loader:
        loader.set_state(state)
        with pytest.raises(BadRecordError, match="one more than bad_record_budget=2"):
            list(loader)


def test_a_group_of_records_is_lost_together(make_dataset) -> None:
    dataset = make_dataset((40,), shard_options=ShardOptions(group_size=4))
    damage(dataset, 0, 9)
    with numpy_loader(dataset, on_bad_record="skip", shuffle="none") as loader:
        list(loader)
        assert [record for _, record in loader.bad_records()] == [8, 9, 10, 11]


def test_missing_mask_is_added_where_rows_may_be_empty(damaged: Dataset) -> None:
    with numpy_loader(damaged, on_bad_record="skip", fields=("tokens",)) as loader:
        assert set(next(loader)) == {"tokens", "loss_mask"}


def test_truncated_shard_is_named(make_dataset) -> None:
    dataset = make_dataset((40, 25))
    path = dataset.path / dataset.manifest.shards[1].file
    path.write_bytes(path.read_bytes()[:-100])
    with (
        numpy_loader(dataset, on_bad_record="skip") as loader,
        pytest.raises(ValueError, match=r"train-00001-of-00002.array_record: expected \d+ bytes"),
    ):
        list(loader)


def test_swapped_shards_are_noticed_by_sha256(make_dataset) -> None:
    dataset = make_dataset((40, 7, 40))
    swap_the_first_with_the_third(dataset)
    with (
        numpy_loader(dataset, verify="sha256") as loader,
        pytest.raises(
            ValueError, match=r"array_record: expected sha256 [0-9a-f]{64} \(dataset.json\)"
        ),
    ):
        list(loader)


def test_swapped_shards_are_read_as_they_are_and_told_of(make_dataset, caplog) -> None:
    dataset = make_dataset((40, 7, 40))
    swap_the_first_with_the_third(dataset)
    with (
        caplog.at_level(logging.WARNING),
        numpy_loader(dataset, shuffle="none", batch_size=87) as loader,
    ):
        tokens = next(loader)["tokens"]
    order = [*range(47, 87), *range(40, 47), *range(40)]
    assert np.array_equal(tokens, dataset.tokens[order])
    assert caplog.text.count("not those its checksums were written for") == 2


def test_sha256_of_a_sound_dataset_is_accepted(dataset: Dataset) -> None:
    with numpy_loader(dataset, verify="sha256") as loader:
        assert len(list(loader)) == 20
