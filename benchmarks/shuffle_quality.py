"""How well orders mix: ours, Hugging Face's buffer, Grain's window shuffle, a uniform permutation.

    python -m benchmarks.shuffle_quality                       # a made-up dataset of 50 shards
    python -m benchmarks.shuffle_quality --dataset out/        # your own, as a loader would read it

Each buffer holds the same number of sequences and reads the same shards. The peers' orders are
computed by their published algorithms: HF fills a buffer from 10 shards in turn, lets a random half
leave and refills (datasets 5.2, `BufferShuffledExamplesIterable`); Grain permutes windows of a
stream one after the other (`WindowShuffleIterDataset`). `--real` drives the installed libraries
instead.
"""

import argparse
import dataclasses
import itertools
from pathlib import Path

import numpy as np

from benchmarks.mixing import Mixing, measure
from shardstream.loaders.order.buffer import BufferOrder, geometry_for
from shardstream.loaders.order.epochs import GlobalOrder, Order
from shardstream.shard_format.keys import chain
from shardstream.shard_format.manifest import read_manifest
from shardstream.shard_format.storage import open_directory


def uniform(shard_sizes: np.ndarray, seed: int) -> np.ndarray:
    """A permutation of NumPy's."""
    return np.random.default_rng(seed).permutation(int(shard_sizes.sum()))


def shard_stream(shard_sizes: np.ndarray, seed: int) -> np.ndarray:
    """Shards in a shuffled order, each read from its begin to its end."""
    first = np.concatenate([[0], np.cumsum(shard_sizes)])
    order = np.random.default_rng(seed).permutation(len(shard_sizes))
    return np.concatenate([np.arange(first[i], first[i + 1]) for i in order])


def hf_buffer(shard_sizes: np.ndarray, buffer_size: int, seed: int) -> np.ndarray:
    """Hugging Face's buffer (datasets 5.2): 10 shards in turn, half of the buffer leaves."""
    generator = np.random.default_rng(seed)
    first = np.concatenate([[0], np.cumsum(shard_sizes)])
    groups = np.array_split(generator.permutation(len(shard_sizes)), min(10, len(shard_sizes)))
    lanes = [np.concatenate([np.arange(first[i], first[i + 1]) for i in group]) for group in groups]
    turn = np.concatenate([np.arange(len(lane)) for lane in lanes])
    stream = np.concatenate(lanes)[np.argsort(turn, kind="stable")]
    kept, out = stream[:0], []
    keep = buffer_size // 2
    while len(stream):
        taken, stream = np.split(stream, [buffer_size - len(kept)])
        held = generator.permutation(np.concatenate([kept, taken]))
        leaving = len(held) - keep if len(held) >= buffer_size else 0
        out.append(held[:leaving])
        kept = held[leaving:]
    return np.concatenate([*out, generator.permutation(kept)])


def grain_window(shard_sizes: np.ndarray, window_size: int, seed: int) -> np.ndarray:
    """Grain's window shuffle over shuffled shards."""
    stream = shard_stream(shard_sizes, seed)
    generator = np.random.default_rng(seed)
    windows = range(0, len(stream), window_size)
    return np.concatenate([generator.permutation(stream[a : a + window_size]) for a in windows])


def real_hf_buffer(shard_sizes: np.ndarray, buffer_size: int, seed: int) -> np.ndarray:
    """The installed `datasets`' own shuffle of a stream of the same shards."""
    import datasets

    first = np.concatenate([[0], np.cumsum(shard_sizes)]).tolist()
    ranges = list(itertools.pairwise(first))

    def records(ranges: list) -> object:
        for begin, end in ranges:
            for record in range(begin, end):
                yield {"record": record}

    stream = datasets.IterableDataset.from_generator(records, gen_kwargs={"ranges": ranges})
    return np.array([row["record"] for row in stream.shuffle(seed=seed, buffer_size=buffer_size)])


def real_grain_window(shard_sizes: np.ndarray, window_size: int, seed: int) -> np.ndarray:
    """The installed Grain's window shuffle of the same stream."""
    import grain

    stream = grain.MapDataset.source(shard_stream(shard_sizes, seed)).to_iter_dataset()
    shuffled = grain.experimental.WindowShuffleIterDataset(
        stream, window_size=window_size, seed=seed
    )
    return np.array(list(shuffled))


def ours(order: Order) -> np.ndarray:
    """Our order of an epoch, computed as a loader does, without reading."""
    steps, rows = order.num_records // order.batch_size, np.arange(order.batch_size)
    parts = [
        order.records(0, begin, min(steps, begin + 512), rows).ravel()
        for begin in range(0, steps, 512)
    ]
    return np.concatenate(parts)


def main() -> None:
    """Prints a row an order."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--sequences", type=int, default=400_000)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--record_bytes", type=int, default=4112)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--buffer_size", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3, help="orders to average over")
    parser.add_argument("--real", action="store_true", help="peers by their installed libraries")
    arguments = parser.parse_args()
    record_bytes = arguments.record_bytes
    sizes = np.full(arguments.shards, arguments.sequences // arguments.shards)
    if arguments.dataset:
        manifest = read_manifest(open_directory(arguments.dataset))
        shards = manifest.shards_of(arguments.split)
        sizes = np.array([shard.records for shard in shards])
        record_bytes = max(manifest.layout(shard).record_bytes for shard in shards)
    num_records, batch_size = int(sizes.sum()), arguments.batch_size
    size = min(arguments.buffer_size, num_records // 2)
    geometry = geometry_for(num_records, batch_size, size, record_bytes)
    hf, grain = (real_hf_buffer, real_grain_window) if arguments.real else (hf_buffer, grain_window)
    orders = {
        "uniform": lambda seed: uniform(sizes, seed),
        "ours, buffer": lambda seed: ours(BufferOrder(geometry, chain(seed))),
        "ours, global": lambda seed: ours(GlobalOrder(num_records, batch_size, chain(seed))),
        "HF buffer": lambda seed: hf(sizes, size, seed),
        "Grain window": lambda seed: grain(sizes, size, seed),
    }
    print(
        f"{num_records} sequences, {len(sizes)} shards, batches of {batch_size}, buffers of {size} "
        f"sequences (ours: {geometry.capacity} with what is read ahead, "
        f"{geometry.capacity * record_bytes / 1e6:.0f} MB), mean of {arguments.seeds} seeds"
    )
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    names = [field.name for field in dataclasses.fields(Mixing)]
    print(f"{'order':14}" + "".join(f"{name:>21}" for name in names))
    for name, order_of in orders.items():
        figures = []
        for seed in range(arguments.seeds):
            records = order_of(seed)
            records = records[: len(records) // batch_size * batch_size].reshape(-1, batch_size)
            figures.append(dataclasses.astuple(measure(records, shard_of)))
        means = np.mean(figures, axis=0)
        print(f"{name:14}" + "".join(f"{value:21.6f}" for value in means), flush=True)


if __name__ == "__main__":
    main()
