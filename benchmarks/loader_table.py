"""Group size x compression: what each costs to write, to keep and to read in both shuffles.

python -m benchmarks.loader_table                     # ids of the Python files installed here
python -m benchmarks.loader_table --tokens ids.npy    # your own, uint16[N, L]
"""

import argparse
import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.loader_data import real_sequences, write_dataset
from benchmarks.loader_ours import BUFFER_SIZE, batch_tokens, sequential_read
from shardstream.shard_format.shard_file import COMPRESSIONS, ShardOptions

GROUP_SIZES = (1, 8, 64, 256)
_NUM_SHARDS = 8
_TIMES = 2


def options_table(sequences: np.ndarray, directory: Path, batch_size: int, seconds: float) -> None:
    """Prints a row for each group size and compression."""
    print("group compression      write   size sequential   buffer   global")
    print("                        MB/s  share     Mtok/s   Mtok/s   Mtok/s")
    buffer_size = min(BUFFER_SIZE, len(sequences) // 3)
    for compression, group_size in itertools.product(COMPRESSIONS, GROUP_SIZES):
        root = directory / f"{compression}-{group_size}"
        options = ShardOptions(group_size=group_size, compression=compression)
        start = time.perf_counter()
        manifest = write_dataset(sequences, root, _NUM_SHARDS, options)
        write = sequences.nbytes / 1e6 / (time.perf_counter() - start)
        size = sum(shard.bytes for shard in manifest.shards) / sequences.nbytes
        rates = [_rate(sequential_read(root, 1024), seconds)]
        for shuffle in ("buffer", "global"):
            batches = batch_tokens(root, batch_size, shuffle=shuffle, buffer_size=buffer_size)
            rates.append(_rate(batches, seconds))
        print(
            f"{group_size:5} {compression:11} {write:9.0f} {size:6.2f} {rates[0]:10.0f} "
            f"{rates[1]:8.0f} {rates[2]:8.0f}",
            flush=True,
        )
        shutil.rmtree(root)


def _rate(tokens: Iterator[int], seconds: float) -> float:
    """Returns the best of a few measurements, in Mtok/s."""
    next(tokens)
    best = 0.0
    for _ in range(_TIMES):
        start, count = time.perf_counter(), 0
        while (secs := time.perf_counter() - start) < seconds / _TIMES:
            count += next(tokens)
        best = max(best, count / secs / 1e6)
    return best


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=Path, help=".npy of uint16[N, L], ids of real text")
    parser.add_argument("--sequences", type=int, default=32_768)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement")
    arguments = parser.parse_args()
    if arguments.tokens:
        sequences = np.load(arguments.tokens)
    else:
        sequences = real_sequences(arguments.sequences, arguments.length)
    print(f"# {len(sequences)} sequences of {sequences.shape[1]}, {_NUM_SHARDS} shards")
    with tempfile.TemporaryDirectory() as temporary:
        options_table(sequences, Path(temporary), arguments.batch_size, arguments.seconds)


if __name__ == "__main__":
    main()
