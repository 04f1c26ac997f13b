"""What a trainer sees: batches, shapes, epochs, errors, and nothing left behind."""

import shutil

import jax
import numpy as np
import pytest

from shardstream.loaders import Loader
from shardstream.shard_format import naming
from shardstream.shard_format.shard_file import ShardOptions
from tests.loaders.conftest import PAD_ID, Dataset

SHUFFLES = ["buffer", "global", "none"]


def numpy_loader(dataset: Dataset, **options) -> Loader:
    return Loader(dataset.path, **{"batch_size": 8, "buffer_size": 64, "output": "numpy"} | options)


def firsts(batches: list[dict]) -> np.ndarray:
    """The record of each row: build_dataset numbers them in the first token (pad_side right)."""
    return np.concatenate([batch["tokens"][:, 0] for batch in batches])


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("token_dtype", ["uint16", "uint32"])
def test_loader_gives_every_token_of_every_record(shuffle, token_dtype, make_dataset) -> None:
    dataset = make_dataset((30, 1, 52), token_dtype=token_dtype)
    options = {"shuffle": shuffle, "drop_remainder": False, "fields": ("tokens", "segment_ids")}
    with numpy_loader(dataset, buffer_size=20, batch_size=4, **options) as loader:
        batches = list(loader)
    tokens = np.concatenate([batch["tokens"] for batch in batches])
    is_row = np.concatenate([batch["segment_ids"] for batch in batches]).any(axis=1)
    assert is_row.sum() == 83 and len(is_row) == 84
    assert (tokens[~is_row] == PAD_ID).all()
    order = np.argsort(tokens[is_row, 0])
    assert np.array_equal(tokens[is_row][order], dataset.tokens)


def test_loader_without_shuffle_keeps_manifest_order(dataset: Dataset) -> None:
    with numpy_loader(dataset, shuffle="none", batch_size=10) as loader:
        tokens = np.concatenate([batch["tokens"] for batch in loader])
    assert np.array_equal(tokens, dataset.tokens)
    assert tokens.dtype == np.int32


@pytest.mark.parametrize("shuffle", ["buffer", "global"])
def test_epochs_are_shuffled_anew_and_seeds_differ(larger: Dataset, shuffle: str) -> None:
    with numpy_loader(larger, shuffle=shuffle, epochs=2) as loader:
        rows = firsts(list(loader))
        per_epoch = loader.steps_per_epoch * 8
    with numpy_loader(larger, shuffle=shuffle, seed=1) as loader:
        other = firsts(list(loader))
    first, second = rows[:per_epoch], rows[per_epoch:]
    for one, two in [(first, second), (first, other), (second, other)]:
        assert (one == two).mean() < 0.02
    assert len(np.unique(first)) == len(np.unique(second)) == per_epoch


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("batch_size", [1, 8, 10, 200])
@pytest.mark.parametrize("drop_remainder", [True, False])
def test_batches_have_one_shape_and_the_promised_number(
    larger: Dataset, shuffle: str, batch_size: int, drop_remainder: bool
) -> None:
    options = {"shuffle": shuffle, "batch_size": batch_size, "drop_remainder": drop_remainder}
    with numpy_loader(larger, epochs=2, **options) as loader:
        batches = list(loader)
        assert len(batches) == len(loader) == 2 * loader.steps_per_epoch
        assert loader.steps_per_epoch == (
            1203 // batch_size if drop_remainder else -(-1203 // batch_size)
        )
    assert {batch["tokens"].shape for batch in batches} == {(batch_size, 8)}
    epoch = batches[: len(batches) // 2]
    masks = [batch.get("loss_mask") for batch in epoch]
    if drop_remainder:
        assert masks == [None] * len(epoch)
    else:
        kept = np.concatenate([mask.any(axis=1) for mask in masks])
        assert kept.sum() == 1203


def test_loader_gives_jax_arrays_of_int32(dataset: Dataset) -> None:
    with Loader(dataset.path, batch_size=4, fields=("tokens", "positions", "loss_mask")) as loader:
        batch = next(loader)
    assert all(isinstance(array, jax.Array) for array in batch.values())
    assert [str(array.dtype) for array in batch.values()] == ["int32", "int32", "bool"]


def test_batches_of_the_caller_are_never_written_to_again(larger: Dataset) -> None:
    with Loader(larger.path, batch_size=4, buffer_size=64) as loader:
        batches = list(loader)
        copies = [np.array(loader.batch_at(step)["tokens"]) for step in range(len(batches))]
    for batch, copy in zip(batches, copies, strict=True):
        assert np.array_equal(batch["tokens"], copy)


@pytest.mark.parametrize("token_dtype", ["uint16", "uint32"])
def test_stored_ids_are_narrow_in_fields_of_ids_and_equal_the_wide_ones(make_dataset, token_dtype):
    dataset = make_dataset((30, 12), token_dtype=token_dtype)
    fields = ("tokens", "targets", "segment_ids", "loss_mask", "labels")
    with numpy_loader(dataset, buffer_size=20, fields=fields) as loader:
        wide = list(loader)
    with numpy_loader(dataset, buffer_size=20, fields=fields, token_dtype="stored") as loader:
        narrow = [*loader]
        at_once = loader.batch_at(3)
    expected = [token_dtype, token_dtype, "int32", "bool", "int32"]
    for batch, other in zip([*narrow, at_once], [*wide, wide[3]], strict=True):
        assert [str(array.dtype) for array in batch.values()] == expected
        for name, array in batch.items():
            assert np.array_equal(array, other[name])
            assert array.flags.c_contiguous and array.flags.writeable


@pytest.mark.parametrize("token_dtype", ["int32", "stored"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_kept_batches_stay_and_may_be_written_to(larger: Dataset, shuffle, token_dtype) -> None:
    options = {"shuffle": shuffle, "token_dtype": token_dtype, "epochs": 2, "prefetch": 2}
    with numpy_loader(larger, **options) as loader:
        expected = [loader.batch_at(step)["tokens"].copy() for step in range(loader.num_steps)]
        kept = []
        for step, batch in enumerate(loader):
            assert np.array_equal(batch["tokens"], expected[step])
            if step % 3 == 0:
                batch["tokens"][:] = 1  # the caller's own memory: no other batch may change
            kept.append(batch["tokens"])
    for step, tokens in enumerate(kept):
        assert np.array_equal(tokens, expected[step] if step % 3 else np.ones_like(tokens))


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_batch_at_equals_iteration_and_leaves_the_position(larger: Dataset, shuffle: str) -> None:
    with numpy_loader(larger, shuffle=shuffle, epochs=2, drop_remainder=False) as loader:
        batches = list(loader)
    with numpy_loader(larger, shuffle=shuffle, epochs=2, drop_remainder=False) as loader:
        next(loader)
        for step in range(0, len(batches), 13):
            found = loader.batch_at(step)
            assert all(np.array_equal(found[name], batches[step][name]) for name in found)
        assert loader.step == 1
        assert np.array_equal(next(loader)["tokens"], batches[1]["tokens"])
        with pytest.raises(IndexError, match=f"step is {len(batches)}, expected 0 to"):
            loader.batch_at(len(batches))


def test_skip_passes_over_batches_without_reading_them(larger: Dataset) -> None:
    with numpy_loader(larger) as loader:
        batches = list(loader)
    with numpy_loader(larger) as loader:
        loader.skip(100)
        assert np.array_equal(next(loader)["tokens"], batches[100]["tokens"])
        loader.skip(3)
        assert np.array_equal(next(loader)["tokens"], batches[104]["tokens"])
        assert loader.source.split.shards.bytes_read < 0.9 * 1203 * 24
        loader.skip(10_000)
        assert list(loader) == []


@pytest.mark.parametrize("hosts", [2, 4, 8])
@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_hosts_together_hold_the_global_batch_and_read_their_share(
    larger: Dataset, shuffle: str, hosts: int
) -> None:
    with numpy_loader(larger, shuffle=shuffle, batch_size=16, buffer_size=160) as loader:
        expected = list(loader)
        record_bytes = 1203 // 16 * 16 * 28  # at most: 8 tokens and 6 slots of 2 bytes
    parts = []
    for host in range(hosts):
        options = {"shuffle": shuffle, "batch_size": 16, "buffer_size": 160}
        with numpy_loader(larger, process_index=host, process_count=hosts, **options) as loader:
            parts.append(list(loader))
            assert loader.source.split.shards.bytes_read <= 1.25 * record_bytes / hosts
    for step, batch in enumerate(expected):
        joined = np.concatenate([part[step]["tokens"] for part in parts])
        assert np.array_equal(joined, batch["tokens"])


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("fields", ["tokens", "maxtext"])
def test_records_read_in_place_are_those_that_array_record_reads(
    make_dataset, shuffle: str, fields: str
) -> None:
    dataset = make_dataset((300, 17, 400), sequence_length=8)
    options = {"batch_size": 7, "shuffle": shuffle, "buffer_size": 90, "fields": fields}
    with Loader(dataset.path, output="numpy", **options) as loader:
        in_place = list(loader)
    shutil.rmtree(dataset.path / naming.CHECKSUMS_DIRECTORY)
    with Loader(dataset.path, output="numpy", **options) as loader:
        for batch, expected in zip(loader, in_place, strict=True):
            assert all(np.array_equal(batch[name], expected[name]) for name in expected)


def test_provenance_names_the_documents_of_each_row(larger: Dataset) -> None:
    with numpy_loader(larger) as loader:
        batch = loader.batch_at(5)
        table = loader.provenance(5).to_pylist()
    assert sorted({document["row"] for document in table}) == list(range(8))
    first = np.concatenate([[0], np.cumsum([shard.records for shard in larger.manifest.shards])])
    for row in range(8):
        documents = [document for document in table if document["row"] == row]
        shard = int(documents[0]["shard"].split("-")[1])
        record = first[shard] + documents[0]["record"]
        assert record == batch["tokens"][row, 0]
        lengths = larger.lengths[record]
        assert [d["tokens"] for d in documents] == lengths[lengths > 0].tolist()
        assert [d["source_row"] for d in documents] == [
            d["record"] * 10 + d["segment"] for d in documents
        ]


def test_bounded_open_shards_give_the_same_batches(larger: Dataset) -> None:
    with numpy_loader(larger, shuffle="global") as loader:
        expected = firsts(list(loader))
    with numpy_loader(larger, shuffle="global", max_open_shards=1, read_threads=4) as loader:
        assert np.array_equal(firsts(list(loader)), expected)
        assert loader.source.split.shards.num_open <= 1


@pytest.mark.parametrize("group_size", [1, 4])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_any_shard_options_are_read(make_dataset, group_size: int, compression: str) -> None:
    dataset = make_dataset(
        (50, 30), shard_options=ShardOptions(group_size=group_size, compression=compression)
    )
    for shuffle in SHUFFLES:
        with numpy_loader(dataset, shuffle=shuffle, buffer_size=24, batch_size=2) as loader:
            assert np.array_equal(np.sort(firsts(list(loader))), np.arange(80))


def test_records_larger_than_a_read_are_read(make_dataset) -> None:
    dataset = make_dataset((3, 2), sequence_length=200_000)
    for shuffle in SHUFFLES:
        with numpy_loader(dataset, shuffle=shuffle, batch_size=1, buffer_size=2) as loader:
            tokens = np.concatenate([batch["tokens"] for batch in loader])
        assert np.array_equal(tokens[np.argsort(tokens[:, 0])], dataset.tokens)


def test_padding_on_the_left_is_honoured(make_dataset) -> None:
    dataset = make_dataset((20,), pad_side="left")
    fields = ("tokens", "segment_ids", "positions")
    with numpy_loader(dataset, shuffle="none", batch_size=20, fields=fields) as loader:
        batch = next(loader)
    filled = dataset.lengths.sum(axis=1)
    assert np.array_equal((batch["segment_ids"] > 0).sum(axis=1), filled)
    assert (batch["segment_ids"][:, -1] > 0).all()
    starts = batch["tokens"][np.arange(20), 16 - filled]
    assert starts.tolist() == list(range(20))


# Mistakes.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0, expected an integer of at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5, expected an integer"),
        ({"shuffle": "full"}, "shuffle is 'full', expected one of buffer, global, none"),
        ({"epochs": 0}, "epochs is 0, expected"),
        ({"buffer_size": 0}, "buffer_size is 0"),
        ({"seed": "x"}, "seed is 'x', expected an integer"),
        ({"fields": ("token",)}, "expected some of tokens"),
        ({"split": "test"}, "no split 'test' in this dataset, expected one of: train"),
        ({"output": "torch"}, "output is 'torch', expected one of jax, numpy"),
        ({"token_dtype": "uint8"}, "token_dtype is 'uint8', expected one of int32, stored"),
        (
            {"token_dtype": "stored", "output": "jax"},
            "token_dtype is 'stored' with output='jax', expected output='numpy'",
        ),
        ({"on_bad_record": "ignore"}, "expected one of raise, skip, substitute"),
        (
            {"process_index": 0, "process_count": 3},
            "batch_size is 8, expected a multiple of process",
        ),
        ({"process_index": 2, "process_count": 2}, "process_index is 2, expected 0 to 1"),
        ({"batch_size": 101}, "100 sequences, expected at least one batch of 101"),
    ],
)
def test_wrong_options_raise_when_the_loader_is_built(dataset, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        numpy_loader(dataset, **options)


def test_unknown_option_raises_and_names_the_nearest(dataset: Dataset) -> None:
    with pytest.raises(
        TypeError, match=r"a Loader has no option bufer_size\. Did you mean buffer_size\?"
    ):
        Loader(dataset.path, batch_size=8, bufer_size=3)


def test_directory_without_dataset_raises(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no dataset\.json"):
        Loader(tmp_path, batch_size=8)


def test_incomplete_dataset_raises(make_dataset) -> None:
    dataset = make_dataset((10,), status="incomplete")
    with pytest.raises(ValueError, match="the dataset is incomplete, expected complete"):
        Loader(dataset.path, batch_size=8)
