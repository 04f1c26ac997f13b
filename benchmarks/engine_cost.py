"""What a token costs in processor time where the runner's own shuffle carries it (Dataflow, Flink).

    python -m benchmarks.engine_cost

Both halves of the graph run here on one thread, without a runner: read, tokenize, scatter and
serialize; then parse, sort, pack, write and hash. The time is the process's own CPU time, which is
what a vCPU-hour buys where work is plentiful. Few shards, and so many that each document travels
alone, as with a trillion tokens. The runner's own cost is not in it.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
from apache_beam.coders import BytesCoder, TupleCoder, VarIntCoder

from benchmarks.corpus import build_corpus
from shardstream.pipelines.job.options import parse_options
from shardstream.pipelines.job.planning import make_plan
from shardstream.sources.partitions import Partition, list_partitions, split_partition
from shardstream.sources.read import read_blocks
from shardstream.sources.resolve import resolve
from shardstream.tokens.tokenizer import Tokenizer, open_tokenizer
from shardstream.transforms.plan import BuildPlan
from shardstream.transforms.scatter import scatter_block
from shardstream.transforms.shard_documents import BufferPool, reading
from shardstream.transforms.token_blocks import TokenBlock, tokenize_blocks
from shardstream.transforms.write_shard import write_shard
from tests.real_tokenizers import gpt2_directory

_CODER = TupleCoder([VarIntCoder(), BytesCoder()])  # as the worker encodes what it shuffles
_SHARDS = 24  # built, of the usual size


def token_blocks(plan: BuildPlan, tokenizer: Tokenizer) -> Iterator[TokenBlock]:
    """Yields the corpus as tokens, encoded by one thread beside this one."""
    with ThreadPoolExecutor(1) as executor:
        for partition in _partitions(plan):
            blocks = read_blocks(partition, plan.read_spec, block_bytes=plan.block_bytes)
            yield from tokenize_blocks(
                blocks, tokenizer, seed=plan.seed, executor=executor, max_pending=2
            )


def _partitions(plan: BuildPlan) -> Iterator[Partition]:
    for coarse in list_partitions(resolve(plan.source).files, plan.read_spec):
        yield from split_partition(coarse, plan.read_spec, plan.partition_bytes)


def measure_first_half(plan: BuildPlan, tokenizer: Tokenizer) -> tuple[float, float, float]:
    """Returns CPU seconds a million tokens, shuffled bytes a token, documents a piece."""
    start = time.process_time()
    tokens = documents = pieces = shuffled = 0
    for block in token_blocks(plan, tokenizer):
        tokens += block.counts["tokens_in"]
        documents += block.batch.num_rows
        for bucket, piece in scatter_block(block.batch, plan):
            element = _CODER.encode((bucket, piece.serialize().to_pybytes()))
            shuffled += len(element)
            pieces += 1
    seconds = time.process_time() - start
    return seconds / tokens * 1e6, shuffled / tokens, documents / pieces


def measure_second_half(plan: BuildPlan, tokenizer: Tokenizer, documents_a_piece: int) -> float:
    """Returns CPU seconds a million tokens of building shards of the usual size."""
    batches = [block.batch for block in token_blocks(plan, tokenizer)]
    table = pa.Table.from_batches(batches).combine_chunks()
    rows = table.num_rows // _SHARDS
    seconds, tokens = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        plan = dataclasses.replace(plan, output=folder)
        pool = BufferPool()
        for index in range(_SHARDS):
            (batch,) = table.slice(index * rows, rows).to_batches()
            elements = [
                _CODER.encode((0, batch.slice(i, documents_a_piece).serialize().to_pybytes()))
                for i in range(0, rows, documents_a_piece)
            ]
            start = time.process_time()
            pieces = [_CODER.decode(element)[1] for element in elements]
            with reading(pieces, plan.directory, pool, None) as documents:
                result = write_shard(
                    documents,
                    plan,
                    plan.directory,
                    split="train",
                    index=index,
                    name=f"train-{index:05d}.array_record",
                    permutation_id=index,
                )
            seconds += time.process_time() - start
            tokens += result["shard"]["tokens"]
    return seconds / tokens * 1e6


def main() -> None:
    """Prints a line for few and for very many shards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=400)
    args = parser.parse_args()
    files = list(map(str, build_corpus(args.megabytes).parquet_files))
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--dataset", "parquet", "--data_files", *files, "--threads", "1"]
        flags += ["--tokenizer", str(gpt2_directory()), "--output", str(Path(folder) / "out")]
        plan = make_plan(parse_options([*flags, "--shuffle_via", "engine"]))
        tokenizer = open_tokenizer(plan.tokenizer)
        for num_shards in (16, 100_000):
            wide = dataclasses.replace(plan, num_shards=num_shards)
            first, shuffled, width = measure_first_half(wide, tokenizer)
            second = measure_second_half(plan, tokenizer, max(1, round(width)))
            print(
                f"{num_shards:,} shards: {width:.1f} documents a piece, {shuffled:.2f} bytes "
                f"shuffled a token, CPU seconds a million tokens {first:.3f} + {second:.3f}, "
                f"{1 / (first + second):.1f} Mtok/s a core",
                flush=True,
            )


if __name__ == "__main__":
    main()
