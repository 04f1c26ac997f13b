"""`--plan`: what a job would do and cost, from footers and one sampled block, without running it.

Sizes and the number of shards are the plan's own. Tokens come from one block of the source,
tokenized here, so they are as good as that block is typical. Times are measured rates of this
project's code on one machine: trust their order of magnitude, and the shares of a bill.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import pyarrow as pa

from shardstream.pipelines.job.dataflow import is_dataflow, machine_type
from shardstream.pipelines.job.failures import planning
from shardstream.pipelines.job.options import PreprocessOptions
from shardstream.pipelines.job.planning import estimate_text_bytes, make_plan, process_bytes
from shardstream.pipelines.job.runners import is_local, runner_name
from shardstream.shard_format.errors import OptionError
from shardstream.sources.count import known_documents
from shardstream.sources.partitions import Partition, list_partitions, split_partition
from shardstream.sources.read import TextBlock, read_blocks
from shardstream.sources.resolve import Source, resolve
from shardstream.tokens.tokenizer import open_tokenizer
from shardstream.transforms.hub_token import use_hub_token
from shardstream.transforms.plan import BuildPlan
from shardstream.transforms.scatter import scatter_block
from shardstream.transforms.stream.plan import StreamPlan
from shardstream.transforms.token_blocks import tokenize_block

# CPU seconds a million tokens, the whole command with its start: 16.4 s for 128.8 M tokens, GPT-2
# ids, one virtual core of an AMD EPYC. The project's own functions take 0.040 of it, 0.045 where
# each document travels alone (python -m benchmarks.engine_cost); the rest is Beam's worker.
CORE_SECS_PER_MTOK = 0.127
RATE_SOURCE = (
    "0.127 CPU s a million tokens, measured on FnApiRunner --shuffle_via engine --threads 1"
)
# Fetching from hub or store, the engine's own share and idle workers; not measured, so a range.
OVERHEAD = (1, 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a job would do.

    Attributes:
        num_files: of the source.
        num_partitions: units of reading, as the first file splits.
        documents: expected.
        text_bytes: expected.
        tokens: expected.
        num_shards: of all splits; 0 for a stream, whose shards close as they fill.
        shard_bytes: of a shard.
        documents_per_piece: of a bucket that travel together.
        shuffled_bytes: through the engine's shuffle; through temporary files on local runners.
        process_bytes: of memory, each worker process.
        core_hours: of a core that is always busy.
    """

    num_files: int
    num_partitions: int
    documents: int
    text_bytes: int
    tokens: int
    num_shards: int
    shard_bytes: int
    documents_per_piece: float
    shuffled_bytes: int
    process_bytes: int
    core_hours: float


def describe_plan(options: PreprocessOptions) -> str:
    """Returns what a build with these options would do, for people; writes nothing.

    Raises:
        OptionError: an option is wrong.
    """
    use_hub_token(options.work.hub_token_secret)
    with planning():
        plan = make_plan(options, writes=False)
    return describe_estimate(plan, options.beam_args)


def estimate(plan: BuildPlan) -> Estimate:
    """Returns what the plan's job would do; reads footers and one block."""
    source = resolve(plan.source)
    first = next(list_partitions(source.files[:1], dataclasses.replace(plan.read_spec, ranges=())))
    partitions = list(split_partition(first, plan.read_spec, plan.partition_bytes))
    sample = _first_block(partitions, plan)
    tokens = tokenize_block(sample, open_tokenizer(plan.tokenizer), seed=plan.seed)
    sample_text = max(1, tokens.counts["text_bytes"])
    text_bytes = estimate_text_bytes(source)
    scale = text_bytes / sample_text
    pieces = _pieces(plan, tokens.batch)
    width = tokens.batch.num_rows / max(1, len(pieces))
    num_tokens = int(tokens.counts["tokens_in"] * scale)
    token_bytes = 2 if plan.tokenizer_facts.token_dtype == "uint16" else 4
    shard_bytes = _shard_bytes(plan, num_tokens * token_bytes)
    return Estimate(
        num_files=len(source.files),
        num_partitions=_num_partitions(source, partitions),
        documents=_num_documents(source, int(sample.num_read * scale)),
        text_bytes=text_bytes,
        tokens=num_tokens,
        num_shards=plan.num_buckets,
        shard_bytes=shard_bytes,
        documents_per_piece=width,
        shuffled_bytes=int(sum(pieces) * scale),
        process_bytes=process_bytes(shard_bytes, plan.threads),
        core_hours=num_tokens / 1e6 * CORE_SECS_PER_MTOK / 3600,
    )


def describe_estimate(plan: BuildPlan, beam_args: Sequence[str]) -> str:
    """Returns the estimate of a plan, for people."""
    found = estimate(plan)
    runner = runner_name(beam_args)
    via = {
        "engine": "through the runner's shuffle",
        "files": "through temporary files",
        "worker": "inside one process",
    }[plan.shuffle_via]
    shards = (
        f"as the buffer fills, about {found.shard_bytes / 1e6:,.0f} MB each"
        if isinstance(plan, StreamPlan)
        else f"{found.num_shards:,} of about {found.shard_bytes / 1e6:,.1f} MB"
    )
    low, high = (found.core_hours * factor for factor in OVERHEAD)
    lines = [
        f"{plan.directory}: plan {plan.fingerprint[:16]}, nothing was run",
        f"  runner      {runner}, {plan.threads} thread{'s'[: plan.threads > 1]} a process",
        f"  source      {found.num_files:,} files, about {found.num_partitions:,} partitions, "
        f"{found.documents:,} documents, {found.text_bytes / 1e9:,.3f} GB of text",
        f"  tokens      about {found.tokens:,} (from one block of the source)",
        f"  shards      {shards}",
        f"  shuffle     about {found.shuffled_bytes / 1e9:,.3f} GB {via}, "
        f"{found.documents_per_piece:,.1f} documents a piece",
        f"  memory      about {found.process_bytes / 1e9:,.1f} GB a worker process",
        f"  work        {found.core_hours:,.3g} core hours ({RATE_SOURCE})",
    ]
    if not is_local(beam_args):
        lines.append(
            f"  vCPU hours  {low:,.3g} to {high:,.3g}: the work, {OVERHEAD[0]} to {OVERHEAD[1]} "
            "times for network, engine and idle workers (assumed, not measured)"
        )
    if is_dataflow(beam_args):
        lines.append(
            f"  machines    {machine_type(plan)} unless --worker_machine_type says otherwise"
        )
    return "\n".join(lines)


def _first_block(partitions: Sequence[Partition], plan: BuildPlan) -> TextBlock:
    blocks = itertools.chain.from_iterable(
        read_blocks(partition, plan.read_spec, block_bytes=plan.block_bytes)
        for partition in partitions
    )
    block = next((block for block in blocks if len(block.rows)), None)
    if block is None:
        raise OptionError(
            f"{plan.source.dataset}: its first file has no documents to estimate from"
        )
    return block


def _num_documents(source: Source, as_sampled: int) -> int:
    """Returns the documents to expect: from the card or the footers, else as sampled."""
    options, known = source.options, known_documents(source)
    found = as_sampled if known is None else max(0, known - options.skip_documents)
    return found if options.max_documents is None else min(found, options.max_documents)


def _pieces(plan: BuildPlan, batch: pa.RecordBatch) -> list[int]:
    """Returns the bytes of each piece in which a block would be shuffled."""
    if isinstance(plan, StreamPlan):
        return [batch.nbytes]
    return [len(piece.serialize()) for _, piece in scatter_block(batch, plan)]


def _shard_bytes(plan: BuildPlan, total_bytes: int) -> int:
    if not isinstance(plan, StreamPlan):
        return total_bytes // plan.num_shards
    if plan.shard_records is not None:
        return plan.shard_records * plan.packing.sequence_length * 2
    return min(plan.buffer_bytes // 4, total_bytes)


def _num_partitions(source: Source, first_file: Sequence[Partition]) -> int:
    """Returns the partitions of the whole source, each file splitting as the first does."""
    first_bytes = source.files[0].bytes
    if len(first_file) == 1 or not first_bytes:
        return len(source.files) * len(first_file)
    return sum(
        max(1, round(len(first_file) * (file.bytes or first_bytes) / first_bytes))
        for file in source.files
    )
