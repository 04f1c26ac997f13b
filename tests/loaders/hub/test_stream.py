"""`loaders.stream` over local files: each document once, an order that is arithmetic, exact states."""

import gc
import json
import sys
import threading
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from shardstream import loaders
from shardstream.loaders.fields import FIELD_SETS
from tests.loaders.hub.conftest import DEAD_ROWS, Streams, all_documents, document

Same = Callable[..., None]


@pytest.mark.parametrize("packing", ["none", "best_fit", "pad"])
def test_every_document_comes_once_an_epoch(streams: Streams, packing: str) -> None:
    with streams.open(packing=packing, sequence_length=64, drop_remainder=False) as stream:
        found = streams.numbers(stream)
        assert sorted(found) == all_documents()
        assert found != all_documents()
        assert stream.stats()["documents"] == len(all_documents())
        assert stream.stats()["dead_letters/null_text"] == DEAD_ROWS


def test_concat_keeps_every_token_and_pads_a_unit_in_256(streams: Streams) -> None:
    with streams.open(drop_remainder=False) as stream:
        segments = [batch["segment_ids"] for batch in stream]
        assert sum(int((ids > 0).sum()) for ids in segments) == stream.stats()["tokens"]
        rows = np.concatenate(segments)
        partial = ((rows == 0).any(axis=1) & (rows > 0).any(axis=1)).sum()
        assert partial <= len(rows) / 256 + 6  # and one at the end of each file


def test_no_buffer_keeps_the_order_of_the_source(streams: Streams) -> None:
    with streams.open(buffer_size=0, packing="none", drop_remainder=False) as stream:
        assert streams.numbers(stream) == all_documents()


def test_first_documents_are_those_of_take(streams: Streams) -> None:
    window = {"skip_documents": 395, "max_documents": 10, "batch_size": 2}
    with streams.open(packing="none", drop_remainder=False, **window) as stream:
        wanted = [*range(395, 400), *range(1000, 1005)]
        assert sorted(streams.numbers(stream)) == wanted


def test_first_documents_of_files_that_cannot_be_entered(
    streams: Streams, same: Same, tmp_path: Path
) -> None:
    files = [tmp_path / f"part-{i}.jsonl" for i in range(3)]
    for index, file in enumerate(files):
        rows = [{"text": None if i == 40 else document(1000 * index + i)} for i in range(100)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"skip_documents": 90, "max_documents": 180, "packing": "none", "batch_size": 8}
    options |= {"drop_remainder": False, "sequence_length": 128}
    wanted = [*range(90, 100), *range(1000, 1100), *range(2000, 2070)]
    wanted = [number for number in wanted if number % 1000 != 40]
    batches, states = [], []
    with streams.open(map(str, files), **options, dataset="json") as stream:
        for batch in stream:
            batches.append(batch)
            states.append(stream.get_state())
        assert sorted(streams.numbers(batches)) == wanted
        assert stream.stats()["dead_letters/null_text"] == 2
        for step in range(0, len(states), 5):
            stream.set_state(states[step])
            same(stream.take(3), batches[step + 1 : step + 4])


def test_epochs_are_permuted_anew_and_remainders_dropped(streams: Streams) -> None:
    with streams.open(packing="none", sequence_length=128, epochs=2) as stream:
        numbers = [streams.numbers([batch]) for batch in stream]
        assert stream.step == len(numbers) == 2 * (len(all_documents()) // 64)
    half = len(numbers) // 2
    first, second = (list(chain(*part)) for part in (numbers[:half], numbers[half:]))
    assert len(set(first)) == len(first) == len(set(second)) == len(second) == half * 64
    assert first != second
    # Neighbours of one epoch are no neighbours in the next.
    assert len(set(pairwise(first)) & set(pairwise(second))) < 0.02 * len(first)


def test_order_depends_on_seed_alone_not_on_threads_prefetch_or_cache(
    streams: Streams, same: Same, tmp_path: Path
) -> None:
    with streams.open(epochs=2) as stream:
        batches = list(stream)
    for options in (
        {"prefetch": 1, "threads": 1},
        {"cache_dir": tmp_path},
        {"cache_dir": tmp_path, "threads": 3},  # now from the cache
    ):
        with streams.open(epochs=2, **options) as stream:
            same(stream, batches)
    with streams.open(epochs=2, seed=1) as stream:
        other = list(stream.take(3))
    assert any((a["tokens"] != b["tokens"]).any() for a, b in zip(batches, other, strict=False))


def test_state_of_every_step_resumes_the_same_tail(streams: Streams, same: Same) -> None:
    options = {"epochs": 3, "batch_size": 128, "drop_remainder": False, "packing": "best_fit"}
    states, batches = [], []
    with streams.open(**options) as stream:
        states.append(stream.get_state())
        for batch in stream:
            batches.append(batch)
            states.append(stream.get_state())
    texts = [json.dumps(state) for state in states]
    assert max(map(len, texts)) < 1000
    with streams.open(**options) as resumed:
        for step in np.random.default_rng(0).permutation(len(texts)).tolist():
            resumed.set_state(json.loads(texts[step]))
            same(resumed.take(2), batches[step : step + 2])
            assert resumed.step == min(step + 2, len(batches))
        resumed.set_state(json.loads(texts[5]))
        same(resumed, batches[5:])


def test_state_golden(streams: Streams) -> None:
    with streams.open(shares=2, process_count=1, process_index=0) as stream:
        first = stream.get_state()
        next(stream)
        state = stream.get_state()
        assert state["fingerprint"] == stream.source.opened.fingerprint
        assert repr(stream).startswith(f"HubStream('parquet' at {stream.commit}, tokenizer=")
        assert repr(stream).endswith(
            "buffer_size=500, seed=0, fields=('tokens', 'segment_ids')): step 1"
        )
    assert first["positions"] == {"0": [0, 0, 0, None], "1": [0, 0, 0, None]}
    assert {name: state[name] for name in state if name not in ("positions", "fingerprint")} == {
        "version": 1,
        "seed": 0,
        "batch_size": 64,
        "shuffle_buffer": 500,  # the key that states have always had
        "lanes": 4,
        "shares": 2,
        "drop_remainder": True,
        "step": 1,
        "num_bad_records": 0,
        "bad_records": [],
    }


def test_state_taken_after_resuming_is_as_good(streams: Streams, same: Same) -> None:
    with streams.open() as stream:
        batches = list(stream)
    state = None
    for step in range(0, len(batches), 7):
        with streams.open() as stream:
            if state:
                stream.set_state(state)
            same(stream.take(7), batches[step : step + 7])
            state = stream.get_state()


def test_resume_reads_no_more_than_the_buffer_again(streams: Streams) -> None:
    options = {"packing": "pad", "sequence_length": 64, "buffer_size": 256, "lanes": 2}
    with streams.open(**options, prefetch=1) as stream:
        list(stream.take(30))
        state = stream.get_state()
    with streams.open(**options, prefetch=1) as stream:
        stream.set_state(state)
        next(stream)
        read = stream.stats()["documents"]
    # The buffer, a unit a lane and one made ahead for each reader, and 200 rows of a block; the
    # epoch has 2,397 and 1,920 lie behind.
    sequences = state["positions"]["0"][3][0]
    assert 1920 - sequences <= 256 + 256
    assert read < 256 + 256 + (2 + 2) * 256 + 200 + 400


def test_skip_passes_over_batches_and_take_stops(streams: Streams, same: Same) -> None:
    with streams.open() as stream:
        batches = list(stream.take(12))
    with streams.open() as stream:
        same(stream.take(2), batches[:2])
        stream.skip(7)
        same(stream.take(2), batches[9:11])
        assert stream.step == 11
        with pytest.raises(NotImplementedError, match="set_state"):
            stream.batch_at(3)


def test_hosts_split_the_work_and_the_batches_stay_the_same(streams: Streams, same: Same) -> None:
    options = {"shares": 4, "epochs": None, "packing": "none", "sequence_length": 128}
    with streams.open(**options, process_index=0, process_count=1) as stream:
        whole = list(stream.take(24))
    numbers = []
    for count in (2, 4):
        for index in range(count):
            rows = slice(index * 64 // count, (index + 1) * 64 // count)
            wanted = [{name: a[rows] for name, a in batch.items()} for batch in whole]
            with streams.open(**options, process_index=index, process_count=count) as stream:
                mine = list(stream.take(20))
                same(mine, wanted[:20])
                state = stream.get_state()
                same(stream.take(4), wanted[20:])
                stream.set_state(state)
                same(stream.take(4), wanted[20:])
            if count == 4:
                numbers.append(streams.numbers(mine))
    # 320 rows a host, within its first epoch: each host reads documents of its own.
    assert len(set(chain(*numbers))) == sum(map(len, numbers)) == 20 * 64


def test_state_of_another_host_resumes_by_reading_from_the_start(
    streams: Streams, same: Same, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"shares": 2, "epochs": None}
    with streams.open(**options, process_index=0, process_count=2) as stream:
        list(stream.take(6))
        state = stream.get_state()
    with streams.open(**options, process_index=0, process_count=1) as stream:
        list(stream.take(6))
        tail = list(stream.take(3))
        stream.set_state(state)
        same(stream.take(3), tail)
    assert "no position of share [1]" in caplog.text


def test_hosts_without_an_end_in_common_are_refused(streams: Streams) -> None:
    with pytest.raises(ValueError, match="expected None where each host reads a share"):
        streams.open(process_index=0, process_count=2)
    with streams.open(process_index=0, process_count=2, shares=1) as stream:
        assert next(stream)["tokens"].shape == (32, 32)


def test_shares_that_end_early_leave_empty_rows(streams: Streams) -> None:
    options = {"shares": 4, "fields": ("tokens",), "packing": "none", "sequence_length": 128}
    with streams.open(**options, process_index=0, process_count=1) as stream:
        assert stream.fields == ("tokens", "loss_mask")
        last = list(stream)[-1]
    assert not last["loss_mask"].any(axis=1).all()  # 6 files in 4 shares


def test_delivers_to_devices_with_a_sharding_and_all_fields(streams: Streams) -> None:
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    with streams.open(sharding=sharding, output="jax", fields="maxtext") as stream:
        batch = next(stream)
    assert tuple(batch) == FIELD_SETS["maxtext"]
    assert batch["inputs"].sharding == sharding
    assert (batch["inputs"].shape, batch["inputs"].dtype) == ((64, 32), np.int32)
    with streams.open(output="jax", fields="hf") as stream:
        batch = next(stream)
    assert isinstance(batch["labels"], jax.Array)
    shown = np.asarray(batch["attention_mask"]) == 1
    np.testing.assert_array_equal(np.asarray(batch["labels"])[shown], batch["input_ids"][shown])


def test_mistakes_are_named(streams: Streams, tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match=r"a stream has no option bufer_size\. Did you mean buffer_s"
    ):
        streams.open(bufer_size=3)
    with pytest.raises(TypeError, match="no option shuffle_buffer any more: it is buffer_size"):
        streams.open(shuffle_buffer=3)
    with pytest.raises(ValueError, match="expected a multiple of shares=3"):
        streams.open(shares=3)
    with pytest.raises(ValueError, match="has no column 'body', expected one of n, text"):
        streams.open(text_column="body")
    with streams.open() as stream, streams.open(seed=3) as other:
        with pytest.raises(ValueError, match="the state has seed=3, this stream 0"):
            stream.set_state(other.get_state())
        with pytest.raises(TypeError, match="without a known end"):
            len(stream)
    with streams.open(packing="none") as stream:
        state = stream.get_state()
    with streams.open() as stream, pytest.raises(ValueError, match="tokenizer or packing"):
        stream.set_state(state)


def test_epoch_without_a_whole_batch_is_an_error(streams: Streams, tmp_path: Path) -> None:
    path = tmp_path / "dead.parquet"
    pq.write_table(pa.table({"text": [None, "one"]}), path)
    with streams.open([str(path)], epochs=None) as stream:
        with pytest.raises(ValueError, match="fewer than 64 sequences"):
            next(stream)
        assert stream.stats()["dead_letters/null_text"] == 1
    with streams.open([str(path)], drop_remainder=False, batch_size=4) as stream:
        assert [int((b["segment_ids"] > 0).any(axis=1).sum()) for b in stream] == [1]


def test_broken_file_raises_with_its_name_and_row(streams: Streams, tmp_path: Path) -> None:
    path = tmp_path / "broken.parquet"
    pq.write_table(
        pa.table({"text": [f"text {i}" for i in range(5000)]}), path, row_group_size=1000
    )
    data = bytearray(path.read_bytes())
    middle = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    data[middle : middle + 60] = b"\xff" * 60
    path.write_bytes(data)
    with (
        streams.open([str(path)], buffer_size=0) as stream,
        pytest.raises(loaders.StreamError, match=r"broken.parquet, row 2000: can't be read"),
    ):
        list(stream)


def test_missing_packages_are_named_with_the_extra(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"needs transformers: pip install 'shardstream\[hub\]'"):
        streams.open()


def test_close_ends_every_thread_and_a_closed_stream_says_so(streams: Streams) -> None:
    stream = streams.open(epochs=None)
    list(stream.take(3))
    assert any(thread.name.startswith("shardstream") for thread in threading.enumerate())
    stream.close()
    assert not any(thread.name.startswith("shardstream") for thread in threading.enumerate())
    with pytest.raises(ValueError, match="this loader is closed"):
        next(stream)


def test_forgotten_stream_ends_its_threads(streams: Streams) -> None:
    stream = streams.open(epochs=None)
    next(stream)
    del stream
    gc.collect()
    assert not any(thread.name.startswith("shardstream") for thread in threading.enumerate())
