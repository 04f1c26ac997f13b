"""Prints what stream mode costs and how well its buffer shuffles.

Run from the repository root, with nothing else running:

    python -m benchmarks.stream speed     [--files=2] [--buffer=100000]   batch and stream in turn
    RSS python -m benchmarks.stream quality   [--buffer=2000]   against HF's .shuffle(buffer_size)
    python -m benchmarks.stream throttle  [--mb_per_sec=4]  RSS over a stream into a slow store

The corpus is benchmarks.corpus' (`python -m benchmarks.corpus --megabytes 400`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

CORPUS = Path.home() / ".cache/shardstream-bench/corpus-400mb"
TOKENIZER = Path.home() / ".cache/shardstream-tests/gpt2"


def run_job(output: Path, files: Sequence[Path], *flags: object, throttle: float = 0.0) -> dict:
    """Builds a dataset in a process of its own; returns its manifest's figures and peak RSS."""
    argv = ["--dataset", "parquet", "--data_files", *map(str, files), "--no-progress"]
    argv += ["--tokenizer", str(TOKENIZER), "--output", str(output), *map(str, flags)]
    command = [sys.executable, "-m", "benchmarks.stream", "job", f"--throttle={throttle}", *argv]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def job(argv: Sequence[str], throttle: float) -> None:
    """What run_job's process does: one build, then a line of JSON."""
    from pipelines.options import parse_options
    from pipelines.preprocess import preprocess
    from shard_format.commit_log import read_commits
    from shard_format.storage import Directory
    from transforms import stream_publish

    if throttle:
        write = stream_publish.write_stream_shard

        def slowly(*args: object) -> object:
            entry = write(*args)
            time.sleep(entry.shard.bytes / 1e6 / throttle)
            return entry

        stream_publish.write_stream_shard = slowly
    samples: list[int] = []
    stop = threading.Event()
    threading.Thread(target=_watch_rss, args=(samples, stop), daemon=True).start()
    options = parse_options(argv)
    manifest = preprocess(options)
    stop.set()
    commits = list(read_commits(Directory(options.output.output)))
    figures = {
        "tokens": manifest.totals["tokens_in"],
        "seconds": manifest.run["seconds"],
        "runner": manifest.run["runner"],
        "shards": len(manifest.shards),
        "first_shard_secs": commits[0].seconds if commits else None,
        "rss_mb": samples,
    }
    print(json.dumps(figures))


def _watch_rss(samples: list[int], stop: threading.Event) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    while not stop.wait(0.1):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        samples.append(pages * page >> 20)


def measure_speed(files: Sequence[Path], runner: str, rounds: int, buffer: int) -> None:
    """Batch and stream by turns over the same files, best of each."""
    best: dict[str, dict] = {}
    for _ in range(rounds):
        for mode in ("batch", "stream"):
            with tempfile.TemporaryDirectory(dir=Path.home() / ".cache") as folder:
                flags = ["--mode", mode, "--runner", runner]
                flags += ["--buffer_documents", buffer] if mode == "stream" else []
                found = run_job(Path(folder), files, *flags)
            if mode not in best or found["seconds"] < best[mode]["seconds"]:
                best[mode] = found
    for mode, found in best.items():
        rate = found["tokens"] / found["seconds"] / 1e6
        first = f", first shard {found['first_shard_secs'] or 0:.2f} s after reading starts"
        print(
            f"{mode:7} {found['runner']} {rate:6.2f} Mtok/s ({found['tokens'] / 1e6:.1f} M tokens, "
            f"{found['seconds']:.1f} s), {found['shards']} shards, "
            f"peak RSS {max(found['rss_mb'])} MB" + (first if mode == "stream" else "")
        )
    ratio = best["batch"]["seconds"] / best["stream"]["seconds"]
    print(f"stream / batch {100 * ratio:.0f} % (goal 70 %)")


def measure_quality(files: Sequence[Path], buffer: int, runner: str) -> None:
    """The order out of an ordered source: ours, and datasets' at the same buffer size."""
    import datasets
    import pyarrow.parquet as pq

    from tests.pipeline_runs import read_order

    rows = [pq.ParquetFile(path).metadata.num_rows for path in files]
    first = np.concatenate([[0], np.cumsum(rows)])
    with tempfile.TemporaryDirectory(dir=Path.home() / ".cache") as folder:
        flags = ["--mode", "stream", "--buffer_documents", buffer, "--runner", runner]
        run_job(Path(folder), files, *flags)
        ours = np.array([first[partition] + row for partition, row in read_order(Path(folder))])
    stream = datasets.load_dataset(
        "parquet", data_files=[str(f) for f in files], split="train", streaming=True
    )
    ids = [i for path in files for i in pq.read_table(path, columns=["id"])["id"].to_pylist()]
    place = {name: number for number, name in enumerate(ids)}
    stream = stream.select_columns(["id"])
    shuffled = stream.shuffle(seed=42, buffer_size=buffer)
    hf = np.array([place[row["id"]] for row in shuffled])
    shuffled = stream.shuffle(seed=42, buffer_size=buffer, max_buffer_input_shards=1)
    hf_1 = np.array([place[row["id"]] for row in shuffled])
    uniform = np.random.default_rng(0).permutation(int(first[-1]))
    print(f"{int(first[-1]):,} documents in {len(files)} files, buffer of {buffer:,} documents")
    print(f"{'':10} {'displacement':>13} {'neighbours':>11} {'mixing':>7} {'local spread':>13}")
    orders = (("ours", ours), ("HF shuffle", hf), ("HF 1 input", hf_1), ("uniform", uniform))
    for name, order in orders:
        print(f"{name:10} " + " ".join(describe_order(order, first)))
    print(
        "displacement  mean |place after - place before| / documents\n"
        "neighbours    documents followed by their source's next one, of all\n"
        "mixing        mean total variation of files in 500 documents from all, 0 is best\n"
        "local spread  standard deviation of source places in 500 documents / in all"
    )


def describe_order(order: np.ndarray, first: np.ndarray, window: int = 500) -> list[str]:
    """Returns the figures of one order, as text."""
    n = len(order)
    if sorted(order.tolist()) != list(range(n)):
        raise AssertionError(f"{n} places, not each of 0 to {n - 1} once")
    displacement = np.abs(order - np.arange(n)).mean() / n
    neighbours = np.count_nonzero(np.diff(order) == 1) / n
    file = np.searchsorted(first, order, side="right") - 1
    whole = np.bincount(file, minlength=len(first) - 1) / n
    mixing, spread = [], []
    for begin in range(0, n - window + 1, window):
        part = slice(begin, begin + window)
        share = np.bincount(file[part], minlength=len(whole)) / window
        mixing.append(np.abs(share - whole).sum() / 2)
        spread.append(order[part].std() / np.arange(n).std())
    return [
        f"{displacement:13.3f}",
        f"{neighbours:11.4f}",
        f"{np.mean(mixing):7.3f}",
        f"{np.mean(spread):13.3f}",
    ]


def measure_throttle(files: Sequence[Path], mb_per_sec: float, runner: str) -> None:
    """RSS in tenths of a stream whose shards take long to write."""
    with tempfile.TemporaryDirectory(dir=Path.home() / ".cache") as folder:
        flags = ["--mode", "stream", "--buffer_documents", 4000, "--runner", runner]
        found = run_job(Path(folder), files, *flags, throttle=mb_per_sec)
    parts = np.array_split(np.array(found["rss_mb"]), 10)
    print(
        f"{found['tokens'] / 1e6:.1f} M tokens in {found['seconds']:.1f} s at {mb_per_sec:g} MB/s; "
        "peak RSS in tenths of the time, MB: " + " ".join(str(int(part.max())) for part in parts)
    )


def main() -> None:
    if sys.argv[1:2] == ["job"]:
        job(sys.argv[3:], float(sys.argv[2].split("=")[1]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("speed", "quality", "throttle"))
    parser.add_argument("--files", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--buffer", type=int, help="documents")
    parser.add_argument("--mb_per_sec", type=float, default=4.0)
    parser.add_argument("--runner", default="FnApiRunner")
    flags = parser.parse_args()
    files = sorted(CORPUS.glob("*.parquet"))[: flags.files]
    if not files:
        raise SystemExit(f"{CORPUS}: no corpus; run python -m benchmarks.corpus --megabytes 400")
    if flags.what == "speed":
        measure_speed(files, flags.runner, flags.rounds, flags.buffer or 100_000)
    elif flags.what == "quality":
        measure_quality(files, flags.buffer or 2000, flags.runner)
    else:
        measure_throttle(files, flags.mb_per_sec, flags.runner)


if __name__ == "__main__":
    main()
