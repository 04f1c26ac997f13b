"""Shards to shuffled host batches: ours, Grain's, LitData's, MosaicML's and a plain read.

    python -m benchmarks.loader                          # ours and the plain read, start, resume
    python -m benchmarks.loader --peers_python VENV/bin/python    # and the peers

All contenders read the same sequences (uniform random ids: the speed of none of these depends on
them) on the same machine in one run; each is swept over its settings, its two best race in turn,
each in a process of its own, and the median counts. What peers need: `loader_peers.py`. With
--data, data and sweep are kept there, and a second run goes straight to the race.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.loader_data import random_sequences, write_dataset
from benchmarks.loader_race import Field, race, race_arguments, sweep
from benchmarks.loader_start import measure_start

GOALS = [
    ("ours buffer", "sequential read", 0.8),
    ("ours buffer", "grain", 10),
    ("ours global", "grain", 5),
    ("ours buffer", "litdata", 4),
    ("ours buffer", "mosaicml", 20),
]


def compare(arguments: argparse.Namespace) -> None:
    """Prints the table of speeds and the ratios that the README states."""
    fields = [Field("benchmarks.loader_ours", sys.executable, arguments)]
    if arguments.peers_python:
        fields.append(Field("benchmarks.loader_peers", arguments.peers_python, arguments))
    kept = arguments.data / "sweep.json"
    if not kept.exists():
        kept.write_text(json.dumps(sweep(fields, min(1.0, arguments.seconds))))
    finalists = json.loads(kept.read_text())
    results = race(fields, finalists, rounds=arguments.rounds, seconds=arguments.seconds)
    print(f"\n{'contender':18} {'median':>8} {'best':>8}  Mtok/s, setting")
    for name, result in results.items():
        rates = f"{result.median / 1e6:8.1f} {result.best / 1e6:8.1f}"
        print(f"{name:18} {rates}  {result.setting}")
    for ours, peer, goal in GOALS:
        if peer in results:
            by_median = results[ours].median / results[peer].median
            by_best = results[ours].best / results[peer].best
            print(f"{ours} / {peer}: {by_median:.2f}, by best {by_best:.2f} (goal {goal})")


def make_data(arguments: argparse.Namespace) -> None:
    """Writes the sequences in every contender's format, unless they are there."""
    data, shape = arguments.data, (arguments.sequences, arguments.length)
    kept = data / "sequences.npy"
    if not kept.exists():
        sequences = random_sequences(*shape)
        write_dataset(sequences, data / "ours", arguments.shards)
        np.save(kept, sequences)
    elif np.load(kept, mmap_mode="r").shape != shape:
        raise SystemExit(f"{kept} has other sequences than {shape}: give --data another place")
    if arguments.peers_python:
        command = [arguments.peers_python, "-m", "benchmarks.loader_peers", "--write"]
        subprocess.run([*command, "--data", str(data)], check=True)


def main() -> None:
    """Runs the race, then the measurements of start and resume."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], parents=[race_arguments()])
    parser.add_argument("--peers_python", help="interpreter of the peers' environment")
    parser.add_argument("--sequences", type=int, default=65_536)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["race", "start"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        arguments.data = (arguments.data or Path(temporary)).absolute()
        arguments.data.mkdir(parents=True, exist_ok=True)
        make_data(arguments)
        if arguments.only != "start":
            compare(arguments)
        if arguments.only != "race":
            measure_start(arguments.data / "ours", arguments.batch_size)


if __name__ == "__main__":
    main()
