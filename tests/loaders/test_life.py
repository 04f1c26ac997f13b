"""What a loader takes and leaves: threads, files, memory, bytes read; stalls and errors."""

import contextlib
import gc
import logging
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from shardstream.loaders import Loader
from shardstream.loaders.delivery import HostDelivery
from shardstream.loaders.iterator import BatchIterator
from shardstream.loaders.options import OrderOptions, ReadOptions
from shardstream.loaders.shards.rows import Rows
from shardstream.loaders.shards.split import SplitSource
from tests.loaders.conftest import Dataset

SHUFFLES = ["buffer", "global", "none"]


def numpy_loader(dataset: Dataset, **options) -> Loader:
    return Loader(dataset.path, **{"batch_size": 8, "buffer_size": 64, "output": "numpy"} | options)


def threads_of_loaders() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("shardstream")]


def test_nothing_is_left_after_close_end_or_garbage_collection(larger: Dataset) -> None:
    loader = numpy_loader(larger)
    next(loader)
    assert threads_of_loaders()
    loader.close()
    loader.close()
    assert not threads_of_loaders()
    with pytest.raises(ValueError, match="this loader is closed"):
        next(loader)
    for _ in numpy_loader(larger):
        pass
    assert not threads_of_loaders()
    loader = numpy_loader(larger, epochs=None)
    next(loader)
    del loader
    gc.collect()
    assert not threads_of_loaders()


def open_files() -> list[str]:
    names = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.append(str(descriptor.readlink()))
    return [name for name in names if name.endswith(".array_record")]


def shared_memory() -> set[str]:
    """What this process maps of it; other tests' libraries keep locks there."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if "/dev/shm" in line}


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_no_file_nor_shared_memory_is_left_after_close(larger: Dataset, shuffle: str) -> None:
    before = shared_memory()
    with numpy_loader(larger, shuffle=shuffle) as loader:
        next(loader)
        loader.batch_at(70)
        assert open_files()
    assert not open_files()
    assert shared_memory() == before
    assert sorted(path.name for path in larger.path.iterdir()) == sorted(
        [*(s.file for s in larger.manifest.shards), "checksums", "dataset.json", "provenance"]
    )


@pytest.mark.parametrize("fields", [("tokens",), ("tokens", "segment_ids")])
def test_buffer_bytes_bounds_the_memory_that_the_buffer_takes(make_dataset, fields) -> None:
    dataset = make_dataset((1500, 1500), sequence_length=512)
    with numpy_loader(dataset, buffer_size=1000, fields=fields, prefetch=1) as loader:
        next(loader)
        loader.close()
    tracemalloc.start()
    with numpy_loader(dataset, buffer_size=1000, fields=fields, prefetch=1) as loader:
        assert 1000 * 1024 <= loader.buffer_bytes <= 1500 * 1048
        for _ in loader:
            pass
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Beside the buffer: a chunk and its fields, two blocks being read.
    assert loader.buffer_bytes < peak < 3 * loader.buffer_bytes


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_close_gives_the_memory_of_batches_back(make_dataset, shuffle: str) -> None:
    dataset = make_dataset((1500, 1500), sequence_length=512)
    tracemalloc.start()
    loader = numpy_loader(dataset, shuffle=shuffle, buffer_size=1000)
    for _ in loader:
        pass
    held = tracemalloc.get_traced_memory()[0]
    loader.close()
    gc.collect()
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held > 2_000_000 and left < 500_000


def bytes_read() -> int:
    """What this process read by system calls, from the page cache too."""
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["rchar"])


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("hosts", [2, 4])
def test_a_host_reads_no_more_than_its_share_from_the_files(make_dataset, shuffle, hosts) -> None:
    dataset = make_dataset((1500, 1500), sequence_length=2048)
    options = {"shuffle": shuffle, "batch_size": 16, "buffer_size": 400}
    for host in range(hosts):
        before = bytes_read()
        with numpy_loader(dataset, process_index=host, process_count=hosts, **options) as loader:
            for _ in loader:
                pass
        # Beside records: ArrayRecord reads the last megabyte of a file to open it.
        assert bytes_read() - before <= 1.25 * 3000 * 4112 / hosts + 2 * 1.01 * 2**20


def test_no_end_has_no_length_and_goes_on(dataset: Dataset) -> None:
    with numpy_loader(dataset, epochs=None, batch_size=50) as loader:
        rows = np.concatenate([next(loader)["tokens"][:, 0] for _ in range(10)])
        with pytest.raises(TypeError, match="no length"):
            len(loader)
        assert loader.epoch == 5
    assert np.array_equal(np.bincount(rows), np.full(100, 5))


class SlowSource(SplitSource):
    """Waits before it gives rows, and says so."""

    def batches(self, reading):
        time.sleep(0.3)
        yield from super().batches(reading)

    def waiting_for(self):
        return ["reading train-00000-of-00005.array_record", "reading another"]


def test_stall_is_logged_with_its_cause(larger: Dataset, caplog) -> None:
    source = SlowSource(larger.path, "train", OrderOptions(batch_size=8), ReadOptions())
    delivery = HostDelivery(batch_size=8, sequence_length=8, output="numpy")
    with (
        caplog.at_level(logging.WARNING, "shardstream.loaders"),
        BatchIterator(source, delivery, stall_secs=0.1) as loader,
    ):
        next(loader)
    assert "no batch for 0.1 s: reading train-00000-of-00005.array_record; reading" in caplog.text


def test_reads_under_way_are_named_while_they_last(larger: Dataset) -> None:
    source = SplitSource(larger.path, "train", OrderOptions(batch_size=8), ReadOptions())
    seen = []

    class Watching(Rows):
        """Notes what is being read while records are put into place."""

        def put(self, rows, tokens, lengths):
            seen.extend(source.waiting_for())

    rows = source.split.shards.make_rows(2, lengths=False)
    source.split.shards.read_records(
        np.array([303, 304]), Watching(rows.tokens, None), np.arange(2)
    )
    assert seen == ["reading train-00001-of-00005.array_record, records 3 to 4"]
    assert source.waiting_for() == []
    source.close()


def test_reader_errors_reach_the_caller_again_and_again(make_dataset) -> None:
    dataset = make_dataset((50,))
    (dataset.path / dataset.manifest.shards[0].file).unlink()
    with numpy_loader(dataset) as loader:
        for _ in range(2):
            with pytest.raises(ValueError, match=r"expected \d+ bytes .*, there is no such file"):
                next(loader)
