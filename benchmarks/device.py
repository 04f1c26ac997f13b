"""What input costs a training step on the device that JAX finds: with our loader, and without.

    python -m benchmarks.device                  # a GPU or TPU; --width 64 --batch_size 8 for a CPU

A language model of one hidden layer trains on batches that come in three ways, in turn: the same
one again and again, already on the device (what no loader can beat); from the loader, which places
batches ahead of need; and from the loader's host batches, placed when they are wanted, as a loop
does that knows of no prefetch. Before that, every array of `--check` batches is compared on the
device with the host's, while memory is used again behind it as fast as it can be.
"""

import argparse
import functools
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.loader_data import random_sequences, write_dataset
from shardstream.loaders import Loader

VOCABULARY = 50_257
FIELDS = ("inputs", "targets", "loss_mask")
Batches = Iterator[dict[str, Any]]


def make_step(width: int) -> tuple[Any, Callable[[Any, dict[str, Any]], Any]]:
    """Returns parameters and a jitted training step, parameters and batch → parameters."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(VOCABULARY, width), (width, 4 * width), (4 * width, width)]
    parameters = [
        jax.random.normal(key, shape, jnp.bfloat16) * 0.02
        for key, shape in zip(keys, shapes, strict=True)
    ]

    def loss(parameters: list[jax.Array], batch: dict[str, jax.Array]) -> jax.Array:
        table, up, down = parameters
        hidden = table[batch["inputs"]]
        hidden = hidden + jax.nn.gelu(hidden @ up) @ down
        # Against the targets alone, not the vocabulary: input is to be the larger part here.
        agreement = jnp.sum(hidden * table[batch["targets"]], axis=-1, dtype=jnp.float32)
        return -jnp.mean(jax.nn.log_sigmoid(agreement) * batch["loss_mask"])

    @functools.partial(jax.jit, donate_argnums=0)
    def step(parameters: list[jax.Array], batch: dict[str, jax.Array]) -> list[jax.Array]:
        gradients = jax.grad(loss)(parameters, batch)
        return [p - 0.01 * g for p, g in zip(parameters, gradients, strict=True)]

    return parameters, step


def check(root: Path, count: int, common: dict[str, Any], sharding: NamedSharding) -> None:
    """Compares batches on the device with the host's; raises where one differs."""

    @jax.jit
    def weigh(array: jax.Array) -> jax.Array:
        place = jnp.arange(array.size, dtype=jnp.uint32).reshape(array.shape)
        return jnp.sum(array.astype(jnp.uint32) * (2 * place + 1), dtype=jnp.uint32)

    with Loader(root, sharding=sharding, **common) as placed:
        sums = [{n: weigh(a) for n, a in b.items()} for b in itertools.islice(placed, count)]
    with Loader(root, output="numpy", **common) as host:
        pairs = zip(sums, itertools.islice(host, count), strict=True)
        for step, (found, batch) in enumerate(pairs):
            for name, array in batch.items():
                odd = 2 * np.arange(array.size, dtype=np.uint32).reshape(array.shape) + 1
                expected = np.sum(array.astype(np.uint32) * odd, dtype=np.uint32)
                if int(found[name]) != expected:
                    raise AssertionError(f"step {step}: {name} on the device is another array")
    print(f"{count} batches on {jax.devices()[0].device_kind} are the host's, every array")


def ways(
    root: Path, common: dict[str, Any], sharding: NamedSharding
) -> dict[str, Callable[[], Batches]]:
    """Returns the three ways in which batches come."""

    def resident() -> Batches:
        with Loader(root, sharding=sharding, **common) as loader:
            return itertools.repeat(next(loader))

    def from_loader() -> Batches:
        with Loader(root, sharding=sharding, **common) as loader:
            yield from loader

    def placed_when_wanted() -> Batches:
        with Loader(root, output="numpy", **common) as loader:
            for batch in loader:
                yield jax.block_until_ready(jax.device_put(batch, sharding))

    return {
        "resident on the device": resident,
        "from the loader": from_loader,
        "placed when wanted": placed_when_wanted,
    }


def time_steps(batches: Batches, step: Callable, parameters: Any, count: int) -> float:
    """Returns the milliseconds of a step, the mean of count steps after some to warm up."""
    parameters = jax.tree.map(jnp.copy, parameters)
    for batch in itertools.islice(batches, 10):
        parameters = step(parameters, batch)
    jax.block_until_ready(parameters)
    start = time.perf_counter()
    for batch in itertools.islice(batches, count):
        parameters = step(parameters, batch)
    jax.block_until_ready(parameters)
    return (time.perf_counter() - start) / count * 1e3


def main() -> None:
    """Prints the check and the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--width", type=int, default=128, help="of the model; sizes the step")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", type=int, default=1000, help="batches to compare")
    parser.add_argument("--sequences", type=int, default=32_768)
    arguments = parser.parse_args()
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    common = {"batch_size": arguments.batch_size, "fields": FIELDS, "epochs": None}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "data"
        write_dataset(random_sequences(arguments.sequences, arguments.length), root, 16)
        check(root, arguments.check, common, sharding)
        parameters, step = make_step(arguments.width)
        found: dict[str, list[float]] = {}
        for _ in range(arguments.rounds):
            for name, batches in ways(root, common, sharding).items():
                elapsed = time_steps(batches(), step, parameters, arguments.steps)
                found.setdefault(name, []).append(elapsed)
    tokens = arguments.batch_size * arguments.length
    base = statistics.median(found["resident on the device"])
    for name, times in found.items():
        median = statistics.median(times)
        rate = tokens / median / 1e3
        print(f"{name:24} {median:7.3f} ms a step, {median / base:5.3f} x, {rate:7.1f} Mtok/s")


if __name__ == "__main__":
    main()
