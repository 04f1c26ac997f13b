"""Prints what stream mode costs and how well its buffer shuffles.

Run from the repository root, with nothing else running:

    python -m benchmarks.stream speed     [--files=2] [--buffer=100000]   batch and stream in turn
    python -m benchmarks.stream follow    [--files=2]   a loader beside it: its first batch, its end
    python -m benchmarks.stream quality   [--buffer=2000]   against HF's .shuffle(buffer_size)
    python -m benchmarks.stream throttle  [--mb_per_sec=4]  RSS over a stream into a slow store

The corpus is benchmarks.corpus' (`python -m benchmarks.corpus --megabytes 400`).
"""

import argparse
import json
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
    from shardstream.pipelines.process import set_up_process

    set_up_process()
    from shardstream.pipelines.job.options import parse_options
    from shardstream.pipelines.preprocess import preprocess
    from shardstream.shard_format.commit_log import read_commits
    from shardstream.shard_format.storage import open_directory
    from shardstream.transforms.stream import publish as stream_publish

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
    commits = list(read_commits(open_directory(options.output.output)))
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
    from shardstream.tokens.process_memory import resident_bytes

    while not stop.wait(0.1):
        samples.append((resident_bytes() or 0) >> 20)


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


def measure_follow(files: Sequence[Path], runner: str) -> None:
    """How soon a loader that follows has batches, and how far behind the pipeline it ends."""
    from shardstream.loaders import Loader
    from shardstream.shard_format import naming
    from shardstream.shard_format.commit_log import read_commits
    from shardstream.shard_format.storage import open_directory

    with tempfile.TemporaryDirectory(dir=Path.home() / ".cache") as folder:
        argv = ["--dataset", "parquet", "--data_files", *map(str, files), "--no-progress"]
        argv += ["--tokenizer", str(TOKENIZER), "--output", folder, "--mode", "stream"]
        command = [
            sys.executable,
            "-m",
            "shardstream.pipelines.preprocess",
            *argv,
            "--runner",
            runner,
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not Path(folder, naming.MANIFEST).exists() and process.poll() is None:
            time.sleep(0.01)
        with Loader(folder, batch_size=64, follow=True) as loader:
            next(loader)["tokens"].block_until_ready()
            first_batch = time.time()
            tokens = loader.sequence_length * 64 * (1 + sum(1 for _ in loader))
            end = time.time()
        process.wait()
        commit = next(iter(read_commits(open_directory(folder))))
        committed = Path(folder, naming.commit_name(0)).stat().st_mtime
        completed = Path(folder, naming.MANIFEST).stat().st_mtime
    print(
        f"first shard {commit.seconds:.2f} s after reading starts (goal 3), first batch of a "
        f"following loader {first_batch - committed:.2f} s after that (goal 1); its last, after "
        f"{tokens / 1e6:.1f} M tokens, {end - completed:.2f} s after the manifest"
    )


def measure_quality(files: Sequence[Path], buffer: int, runner: str) -> None:
    """The order out of an ordered source: ours, and datasets' at the same buffer size."""
    import datasets
    import pyarrow.parquet as pq

    from shardstream.shard_format.manifest import read_manifest
    from shardstream.shard_format.storage import open_directory
    from tests.pipeline_runs import read_order

    rows = [pq.ParquetFile(path).metadata.num_rows for path in files]
    first = np.concatenate([[0], np.cumsum(rows)])
    with tempfile.TemporaryDirectory(dir=Path.home() / ".cache") as folder:
        flags = ["--mode", "stream", "--buffer_documents", buffer, "--runner", runner]
        run_job(Path(folder), files, *flags)
        manifest = read_manifest(open_directory(folder))
        shards = np.cumsum([shard.documents for shard in manifest.shards])
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
    names = ("displacement", "neighbours", "mixing", "per shard", "local spread")
    print(f"{'':10} " + " ".join(f"{name:>12}" for name in names))
    orders = (("ours", ours), ("HF shuffle", hf), ("HF 1 input", hf_1), ("uniform", uniform))
    for name, order in orders:
        figures = describe_order(order, first, shards / shards[-1])
        print(f"{name:10} " + " ".join(f"{figure:12.4f}" for figure in figures))
    print(
        "displacement  mean |place after - place before| / documents\n"
        "neighbours    documents followed by their source's next one, of all\n"
        "mixing        mean total variation of files in 500 documents from all, 0 is best\n"
        f"per shard     the same in the {len(shards)} parts that our shards are, by documents\n"
        "local spread  standard deviation of source places in 500 documents / in all"
    )


def describe_order(
    order: np.ndarray, first: np.ndarray, shards: np.ndarray, window: int = 500
) -> list[float]:
    """Returns the figures of one order.

    Args:
        order: int64[n], places in the source.
        first: int64[files + 1], where each file begins.
        shards: float[shards], their ends as shares of n.
        window: documents.
    """
    n = len(order)
    if sorted(order.tolist()) != list(range(n)):
        raise AssertionError(f"{n} places, not each of 0 to {n - 1} once")
    displacement = np.abs(order - np.arange(n)).mean() / n
    neighbours = np.count_nonzero(np.diff(order) == 1) / n
    file = np.searchsorted(first, order, side="right") - 1
    whole = np.bincount(file, minlength=len(first) - 1) / n

    def variation(part: np.ndarray) -> float:
        share = np.bincount(part, minlength=len(whole)) / len(part)
        return float(np.abs(share - whole).sum() / 2)

    windows = np.split(np.arange(n), range(window, n, window))[: n // window]
    mixing = np.mean([variation(file[part]) for part in windows])
    spread = np.mean([order[part].std() for part in windows]) / np.arange(n).std()
    parts = [part for part in np.split(file, (shards[:-1] * n).astype(int)) if len(part)]
    per_shard = np.average([variation(p) for p in parts], weights=[len(p) for p in parts])
    return [float(x) for x in (displacement, neighbours, mixing, per_shard, spread)]


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
    parser.add_argument("what", choices=("speed", "follow", "quality", "throttle"))
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
    elif flags.what == "follow":
        measure_follow(files, flags.runner)
    elif flags.what == "quality":
        measure_quality(files, flags.buffer or 2000, flags.runner)
    else:
        measure_throttle(files, flags.mb_per_sec, flags.runner)


if __name__ == "__main__":
    main()
