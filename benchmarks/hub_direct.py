"""Hub to batches without a pipeline, the classic recipe and batch mode, from one loopback hub.

    python -m benchmarks.hub_direct [--num_files=4] [--rounds=2] [--sequence_length=512]

    classic   load_dataset(streaming=True).shuffle(10k) → map(tokenize, batched, truncation, padding
              to 512) → islice → jnp.stack: design.md section 11, as its users write it
    stream    loaders.stream: the same fields (input_ids, attention_mask) as jnp batches, the whole
              dataset once, its buffer of 10k sequences
    batch     pipelines.preprocess of the same files from the same hub into shards

Each is a process of its own, in turn, `--rounds` times; the best counts. Imports and opening the
tokenizer are left out of all three times; opening the dataset is in ours and in batch mode's.
Tokens are those of documents: padding is not counted on any side, nor what the recipe cuts off
behind 512 tokens. The recipe is given its steady state (its clock starts with its first batch, when
its buffer is full) and arrays rather than lists to stack; our clock starts before the dataset is
opened.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus import build_corpus

DATASET = "bench/corpus"
BATCH_SIZE = 64
BUFFER = 10_000
CLASSIC_SECS = 20.0


def classic(tokenizer: str, length: int) -> dict[str, Any]:
    """The recipe; returns its steady rate and the time to its first batch."""
    import jax.numpy as jnp
    from datasets import load_dataset
    from transformers import AutoTokenizer

    opened = AutoTokenizer.from_pretrained(tokenizer)
    opened.pad_token = opened.eos_token

    def tokenize(rows: dict[str, list[str]]) -> dict[str, Any]:
        return opened(rows["text"], truncation=True, max_length=length, padding="max_length")

    def batches() -> Iterator[dict[str, Any]]:
        stream = load_dataset(DATASET, split="train", streaming=True)
        columns = stream.column_names or ["id", "text"]
        stream = stream.shuffle(seed=42, buffer_size=BUFFER)
        rows = iter(stream.map(tokenize, batched=True, batch_size=1000, remove_columns=columns))
        while part := list(itertools.islice(rows, BATCH_SIZE)):
            yield {
                name: jnp.stack([np.asarray(row[name], np.int32) for row in part])
                for name in ("input_ids", "attention_mask")
            }

    start = time.monotonic()
    iterator = batches()
    next(iterator)
    first = time.monotonic()
    tokens = sequences = 0
    for batch in iterator:
        tokens += int(batch["attention_mask"].sum())
        sequences += len(batch["input_ids"])
        if time.monotonic() - first > CLASSIC_SECS:
            break
    seconds = time.monotonic() - first
    return {"tokens": tokens, "seconds": seconds, "sequences": sequences, "first": first - start}


def stream(tokenizer: str, length: int) -> dict[str, Any]:
    """Hub-direct, the whole dataset once."""
    from shardstream import loaders
    from shardstream.tokens.options import TokenizerOptions
    from shardstream.tokens.tokenizer import open_tokenizer

    open_tokenizer(TokenizerOptions(tokenizer=tokenizer))
    import datasets  # noqa: F401

    start = time.monotonic()
    opened = loaders.stream(
        DATASET,
        tokenizer=tokenizer,
        batch_size=BATCH_SIZE,
        sequence_length=length,
        buffer_size=BUFFER,
        fields=("input_ids", "attention_mask"),
    )
    tokens = sequences = 0
    first = None
    for batch in opened:
        batch["input_ids"].block_until_ready()
        first = first or time.monotonic()
        tokens += int(batch["attention_mask"].sum())
        sequences += len(batch["input_ids"])
    seconds = time.monotonic() - start
    assert first is not None
    return {
        "tokens": tokens,
        "seconds": seconds,
        "sequences": sequences,
        "first": first - start,
        "first_at": first,
        "read": opened.stats(),
    }


def batch(tokenizer: str, length: int) -> dict[str, Any]:
    """Batch mode into a temporary directory; its own clock."""
    from transformers import AutoTokenizer  # noqa: F401

    from shardstream.pipelines.job.options import parse_options
    from shardstream.pipelines.preprocess import preprocess
    from shardstream.pipelines.process import set_up_process

    set_up_process()
    with tempfile.TemporaryDirectory(prefix="hub-direct-") as folder:
        argv = ["--dataset", DATASET, "--tokenizer", tokenizer, "--output", folder]
        argv += ["--sequence_length", str(length), "--no-progress"]
        options = parse_options(argv)
        start = time.monotonic()
        manifest = preprocess(options)
        seconds = time.monotonic() - start
    return {
        "tokens": manifest.totals["tokens_in"],
        "seconds": seconds,
        "sequences": sum(shard.records for shard in manifest.shards),
        "runner": manifest.run["runner"],
    }


SIDES = {"classic": classic, "stream": stream, "batch": batch}


def run_side(name: str, tokenizer: str, length: int, environment: dict[str, str]) -> dict[str, Any]:
    """Runs a side in a process of its own; adds its peak memory."""
    command = [sys.executable, "-m", "benchmarks.hub_direct", f"--inside={name}"]
    command += [f"--tokenizer={tokenizer}", f"--sequence_length={length}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def measure(files: list[Path], tokenizer: str, length: int, rounds: int) -> None:
    """Runs all sides against one hub and prints the table and the ratios."""
    from tests.loopback_hub import Hub, hub_environment

    best: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="hub-") as root:
        folder = Path(root) / "datasets" / DATASET
        folder.mkdir(parents=True)
        for file in files:
            (folder / f"train-{file.name}").symlink_to(file)
        with Hub(root) as hub:
            environment = {**os.environ, **hub_environment(hub), "JAX_PLATFORMS": "cpu"}
            for _ in range(rounds):
                for name in SIDES:
                    hub.reset_log()
                    found = run_side(name, tokenizer, length, environment)
                    if name == "stream":
                        data = [
                            request.started
                            for request in hub.requests
                            if request.method == "GET" and request.path.endswith(".parquet")
                        ]
                        found["after_bytes"] = found["first_at"] - min(data)
                        found["requests"] = len(hub.requests)
                        found["megabytes"] = hub.bytes_sent(".parquet") / 1e6
                    rate = found["tokens"] / found["seconds"]
                    if name not in best or rate > best[name]["rate"]:
                        best[name] = found | {"rate": rate}
    print(
        f"{len(files)} files, L={length}, B={BATCH_SIZE}, buffer {BUFFER:,}; {os.cpu_count()} cores"
    )
    for name, found in best.items():
        full = found["tokens"] / found["sequences"] / length
        first = f", first batch after {found['first']:.2f} s" if "first" in found else ""
        print(
            f"{name:8} {found['rate'] / 1e6:7.3f} Mtok/s of documents ({found['tokens'] / 1e6:.1f} "
            f"Mtok, {found['sequences']:,} sequences {full:.0%} full, {found['seconds']:.1f} s), "
            f"peak RSS {found['peak_rss_mb']} MB{first}"
        )
    ours = best["stream"]
    print(
        f"stream   first batch {ours['after_bytes']:.2f} s after the first bytes of data (goal 1), "
        f"{ours['requests']} requests, {ours['megabytes']:.1f} MB, read {ours['read']}"
    )
    print(f"stream / classic {ours['rate'] / best['classic']['rate']:.0f} x (goal 50)")
    print(f"stream / batch mode {ours['rate'] / best['batch']['rate']:.0%} (goal 30 %)")


def main() -> None:
    """Measures, or runs one side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", help="directory; by default GPT-2's")
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--num_files", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sequence_length", type=int, default=512)
    parser.add_argument("--inside", choices=sorted(SIDES), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.inside:
        found = SIDES[flags.inside](flags.tokenizer, flags.sequence_length)
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(json.dumps(found | {"peak_rss_mb": peak}))
        return
    if flags.tokenizer is None:
        from tests.real_tokenizers import gpt2_directory

        flags.tokenizer = str(gpt2_directory())
    files = list(build_corpus(flags.megabytes).parquet_files)[: flags.num_files]
    measure(
        [file.resolve() for file in files], flags.tokenizer, flags.sequence_length, flags.rounds
    )


if __name__ == "__main__":
    main()
