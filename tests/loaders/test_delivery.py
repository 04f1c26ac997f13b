"""Global jax.Arrays: 8 forced host devices in one process, and 2 and 4 real processes."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from shardstream.loaders import Loader
from shardstream.loaders.delivery import HostDelivery
from shardstream.loaders.iterator import BatchIterator
from shardstream.loaders.options import OrderOptions, ReadOptions
from shardstream.loaders.shards.split import SplitSource
from tests.loaders.conftest import Dataset

ROOT = Path(__file__).parents[2]

# Run with the dataset's path and the layout; prints what it found, raises where it isn't as it should.
EIGHT_DEVICES = """
import sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from shardstream.loaders import Loader
from shardstream.loaders.delivery import HostDelivery
from shardstream.loaders.iterator import BatchIterator
from shardstream.loaders.options import OrderOptions, ReadOptions
from shardstream.loaders.shards.split import SplitSource

path = sys.argv[1]
assert jax.device_count() == 8
with Loader(path, batch_size=16, buffer_size=160, output="numpy", fields="maxtext") as loader:
    expected = list(loader)
layouts = [
    (Mesh(np.array(jax.devices()), ("data",)), P("data")),
    (Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model")), P("data")),
    (Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "sequence")), P("data", "sequence")),
    (Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b")), P(("b", "a"))),
    (Mesh(np.array(jax.devices()), ("data",)), P()),
]
for mesh, spec in layouts:
    sharding = NamedSharding(mesh, spec)
    source = SplitSource(path, "train", OrderOptions(batch_size=16, buffer_size=160), ReadOptions())
    is_narrow = sys.argv[2] == "narrow"  # as on an accelerator
    delivery = HostDelivery(batch_size=16, sequence_length=8, sharding=sharding, travels_narrow=is_narrow)
    with BatchIterator(source, delivery, fields="maxtext") as loader:
        for step, batch in enumerate(loader):
            for name, array in batch.items():
                assert array.shape == (16, 8) and array.dtype == np.int32, (name, array)
                assert array.sharding == sharding and len(array.addressable_shards) == 8
                for shard in array.addressable_shards:
                    assert np.array_equal(shard.data, expected[step][name][shard.index])
        assert step + 1 == len(expected)
try:
    Loader(path, batch_size=12, sharding=NamedSharding(layouts[0][0], P("data")))
except ValueError as error:
    assert "doesn't fit batches of 12 x 8" in str(error), error
else:
    raise AssertionError("12 rows on 8 devices")
print("ok", len(expected))
"""

ONE_OF_MANY = """
import json, sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from shardstream.loaders import Loader

path, address, count, index, state_path = sys.argv[1:]
count, index = int(count), int(index)
jax.distributed.initialize(address, num_processes=count, process_id=index)
assert jax.process_count() == count
with Loader(path, batch_size=16, buffer_size=160, output="numpy", process_index=0, process_count=1) as loader:
    expected = [batch["tokens"] for batch in loader]
devices = np.array(jax.devices())
for mesh, spec in [
    (Mesh(devices.reshape(-1), ("data",)), P("data")),
    (Mesh(devices.reshape(count // 2, -1), ("data", "model")), P("data", None)),
    (Mesh(devices.reshape(-1), ("model",)), P(None, "model")),
]:
    sharding = NamedSharding(mesh, spec)
    with Loader(path, batch_size=16, buffer_size=160, sharding=sharding) as loader:
        loader.set_state(json.load(open(state_path)))
        for step, batch in enumerate(loader, loader.step):
            array = batch["tokens"]
            assert array.shape == (16, 8) and not array.is_fully_addressable
            for shard in array.addressable_shards:
                assert np.array_equal(shard.data, expected[step][shard.index])
        assert step == len(expected) - 1
    total = jax.jit(lambda x: x.sum(), out_shardings=NamedSharding(mesh, P()))(array)
    assert int(total) == expected[-1].sum()
# Without a sharding each process gets its own rows.
with Loader(path, batch_size=16, buffer_size=160, output="numpy") as loader:
    rows = 16 // count
    mine = slice(index * rows, (index + 1) * rows)
    for step, batch in enumerate(loader):
        assert np.array_equal(batch["tokens"], expected[step][mine])
    assert loader.source.split.shards.bytes_read <= 1.25 * 1203 * 28 / count
print("ok", len(expected))
"""


def environment(devices: int) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }


@pytest.mark.parametrize("travel", ["wide", "narrow"])
def test_sharded_batches_on_eight_devices(larger: Dataset, travel: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES, str(larger.path), travel],
        env=environment(8),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "ok 75\n", done.stderr


@pytest.mark.parametrize("processes", [2, 4])
def test_sharded_batches_in_several_processes(larger: Dataset, tmp_path, processes: int) -> None:
    # The state is that of one process; the run goes on in several.
    with Loader(larger.path, batch_size=16, buffer_size=160, output="numpy") as loader:
        loader.skip(40)
        state = tmp_path / "state.json"
        state.write_text(json.dumps(loader.get_state()))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    running = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                ONE_OF_MANY,
                larger.path,
                address,
                str(processes),
                str(i),
                state,
            ],
            env=environment(2),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]
    outputs = [process.communicate(timeout=120) for process in running]
    assert all(output.endswith("ok 75\n") for output, _ in outputs), outputs


def test_leaving_the_interpreter_without_close_ends_at_once(larger: Dataset) -> None:
    code = (
        "import sys; from loaders import Loader\n"
        "loader = Loader(sys.argv[1], batch_size=4, epochs=None, output='numpy')\n"
        "next(loader); print('ok')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(larger.path)],
        env=environment(1),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


class CountingDelivery(HostDelivery):
    """Counts the batches that were prepared and those that were placed."""

    prepared = placed = 0

    def prepare(self, batch):
        self.prepared += 1
        return super().prepare(batch)

    def deliver(self, batch):
        self.placed += 1
        return super().deliver(batch)


def test_next_batch_is_on_its_way_while_one_is_used(larger: Dataset) -> None:
    sharding = NamedSharding(jax.make_mesh((1,), ("data",)), PartitionSpec("data"))
    order = OrderOptions(batch_size=4, shuffle="none")
    delivery = CountingDelivery(batch_size=4, sequence_length=8, sharding=sharding)
    source = SplitSource(larger.path, "train", order, ReadOptions())
    with BatchIterator(source, delivery) as loader:
        loader.start_prefetch()
        while delivery.prepared < 2:  # the first of them is a batch alone
            time.sleep(0.01)
        time.sleep(0.05)
        for step in range(1, 5):
            next(loader)
            assert delivery.placed == step + 1


@pytest.mark.parametrize("token_dtype", ["uint16", "uint32"])
def test_ids_travel_narrow_to_an_accelerator_and_are_widened_there(make_dataset, token_dtype):
    dataset = make_dataset((20,), token_dtype=token_dtype)
    source = SplitSource(
        dataset.path, "train", OrderOptions(batch_size=20, shuffle="none"), ReadOptions()
    )
    # As on an accelerator; the transfer is to the CPU.
    delivery = HostDelivery(batch_size=20, sequence_length=16, travels_narrow=True)
    waiting = delivery.prepare({"tokens": dataset.tokens.astype(token_dtype)})
    assert waiting["tokens"].dtype == token_dtype
    with BatchIterator(source, delivery) as loader:
        batch = next(loader)
    assert batch["tokens"].dtype == np.int32
    assert np.array_equal(batch["tokens"], dataset.tokens)


def test_rows_of_a_process_without_sharding(larger: Dataset) -> None:
    with Loader(larger.path, batch_size=12, process_index=2, process_count=3) as loader:
        assert np.array_equal(loader.rows, [8, 9, 10, 11])
