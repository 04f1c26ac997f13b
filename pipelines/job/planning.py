"""Options to plan: opens source and tokenizer once, catches mistakes before the job starts."""

from pathlib import PurePosixPath
from typing import Any

import numpy as np

from shardstream.pipelines.job.cores import available_cores, choose_processes
from shardstream.pipelines.job.options import PreprocessOptions, WorkOptions
from shardstream.pipelines.job.runners import is_local, runner_name
from shardstream.shard_format.errors import OptionError
from shardstream.shard_format.record import token_dtype_for
from shardstream.shard_format.storage import Directory, open_directory
from shardstream.sources.count import known_documents, sample_text
from shardstream.sources.overlap import refuse_overlap
from shardstream.sources.redact import redact
from shardstream.sources.resolve import Source, resolve
from shardstream.tokens.tokenizer import Tokenizer, open_tokenizer
from shardstream.transforms.plan import BuildPlan, TokenizerFacts
from shardstream.transforms.stream.plan import StreamPlan

# A shard this large is worth a sequential read, and several can be sorted in memory side by side;
# the smaller it is, the better the threads that build shards are balanced at the end of a job.
TARGET_SHARD_BYTES = 32 << 20
# Text bytes to a token of a usual vocabulary; only the number of shards depends on it.
_TEXT_BYTES_PER_TOKEN = 4.3
# Text bytes to a byte of file, where no footer tells.
_TEXT_BYTES_PER_FILE_BYTE = {".gz": 3.0, ".zst": 3.0, ".bz2": 4.0, ".xz": 4.0}
_TEXT_BYTES_PER_PARQUET_BYTE = 2.0
_TEXT_BYTES_PER_DOCUMENT = 4000
# README: beside 0.5 GB, up to four times a shard for each thread that builds one: as it came, read,
# written, and the copy that an engine keeps (without one 2.8 times measured, one shard of 258 MB).
_BASE_BYTES = 500e6
_SHARDS_IN_MEMORY = 4
# Who keeps what waits to be shuffled, on runners that keep it in memory themselves.
LOCAL_SHUFFLE = {"batch": "files", "stream": "worker"}
# A stream mixes small pieces of many partitions; batch mode's order doesn't depend on them.
_PARTITION_MB = {"batch": 64, "stream": 8}
# Text per tokenizer call. With 512 KB a stream ran at 65 % of batch mode's speed, with 2 MB at 90 %
# (Python's share of a call); a small buffer takes smaller blocks, so that it holds many.
_BLOCK_KB, _LEAST_BLOCK_KB, _BLOCKS_PER_BUFFER = 2048, 64, 128


def make_plan(options: PreprocessOptions, *, writes: bool = True) -> BuildPlan:
    """Returns the plan of a build.

    Args:
        options: of the command.
        writes: try whether the output directory can be written to; leaves nothing behind.

    Raises:
        OptionError: an output that can't be written, or options that exclude each other.
        ValueError: unknown dataset, config, split or column, a tokenizer without the special ids
            asked for, or no documents at all.
    """
    directory = open_directory(options.output.output)
    refuse_overlap(str(directory), options.source)
    source = resolve(options.source)
    refuse_overlap(str(directory), options.source, [file.url for file in source.files])
    tokenizer = open_tokenizer(options.tokenizer)
    if writes:
        check_writable(directory)
    fraction = options.output.validation_fraction
    common = _common(options, source, tokenizer, directory)
    if options.mode == "stream":
        return _stream_plan(options, source, common)
    num_shards = options.output.num_shards or choose_num_shards(source, tokenizer)
    if common["shuffle_via"] == "files" and "multi_processing" not in " ".join(options.beam_args):
        common |= _processes(options.work.processes, common["threads"], source)
    return BuildPlan(
        **common,
        num_shards=num_shards,
        num_validation_shards=max(1, round(num_shards * fraction)) if fraction else 0,
    )


def _processes(asked: int | None, threads: int, source: Source) -> dict[str, int]:
    """Returns between how many processes the work is divided, and the threads of each."""
    processes = asked
    if processes is None:
        processes = choose_processes(threads, estimate_text_bytes(source) if threads > 2 else 0)
    return {"processes": processes, "threads": max(1, threads // processes)}


def _common(
    options: PreprocessOptions, source: Source, tokenizer: Tokenizer, directory: Directory
) -> dict[str, Any]:
    """Returns the fields that both modes' plans have."""
    return dict(
        source=source.options,
        source_identity=source.identity,
        read_spec=source.read_spec,
        tokenizer=options.tokenizer,
        tokenizer_facts=describe_tokenizer(tokenizer),
        packing=options.packing,
        shard_options=options.shards,
        seed=options.output.seed,
        validation_fraction=options.output.validation_fraction,
        output=str(directory),
        max_dead_letter_fraction=options.output.max_dead_letter_fraction,
        block_bytes=_block_kb(options) << 10,
        **_work(options.work, options.beam_args, options.mode),
    )


def _stream_plan(options: PreprocessOptions, source: Source, common: dict[str, Any]) -> StreamPlan:
    stream = options.stream
    if stream.epochs != 1 and common["shuffle_via"] == "engine":
        raise OptionError(
            f"--epochs is {stream.epochs} with --shuffle_via engine, expected 1: an engine reads "
            "in no order, so passes would run into each other. Stream once and pass over the "
            "dataset in training, Loader(..., epochs=N), in another order each time; or run on a "
            "local runner."
        )
    if stream.follow_source:
        # The commit and the files are the log's to tell, one after another as they join.
        changing = ("commit", "num_files", "first_file")
        identity = {k: v for k, v in source.identity.items() if k not in changing}
        where = {
            "location": options.source.dataset,
            "data_files": list(map(redact, options.source.data_files)),
        }
        common = common | {"source": options.source, "source_identity": identity | where}
        if stream.lanes > 1 and common["shuffle_via"] == "worker":
            raise OptionError(
                f"--lanes is {stream.lanes} with --follow_source, expected 1 on a local runner: it "
                "runs lanes one after another, and the first has no end."
            )
    return StreamPlan(
        **common,
        num_shards=0,
        num_validation_shards=0,
        buffer_documents=stream.buffer_documents,
        buffer_bytes=stream.buffer_mb << 20,
        shard_records=stream.shard_records,
        max_shard_latency_secs=stream.max_shard_latency_secs,
        epochs=stream.epochs,
        follow_source=stream.follow_source,
        poll_secs=stream.poll_secs,
        lanes=stream.lanes,
    )


def describe_tokenizer(tokenizer: Tokenizer) -> TokenizerFacts:
    """Returns what the plan keeps of a tokenizer."""
    return TokenizerFacts(
        fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        token_dtype=token_dtype_for(tokenizer.vocab_size),
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.fill_id,
    )


def check_writable(directory: Directory) -> None:
    """Raises OptionError where no file can be made in the output directory."""
    try:
        directory.check_writable()
    except OSError as error:
        raise OptionError(
            f"--output {directory}: can't be written to ({error.strerror or error}). Choose a "
            "directory of your own, on a disk with room."
        ) from error


def choose_num_shards(source: Source, tokenizer: Tokenizer) -> int:
    """Returns the number of train shards, from the size of the source before any of it is read."""
    token_bytes = np.dtype(tokenizer.token_dtype).itemsize
    expected_bytes = estimate_text_bytes(source) / _TEXT_BYTES_PER_TOKEN * token_bytes
    return max(1, -(-int(expected_bytes) // TARGET_SHARD_BYTES))


def expected_shard_bytes(source: Source, facts: TokenizerFacts, num_shards: int) -> int:
    """Returns the bytes of a train shard's tokens, from the size of the source."""
    tokens = estimate_text_bytes(source) / _TEXT_BYTES_PER_TOKEN
    return int(tokens * np.dtype(facts.token_dtype).itemsize / num_shards)


def process_bytes(shard_bytes: int, threads: int) -> int:
    """Returns the memory of a worker process that builds shards of a size on its threads."""
    return int(_BASE_BYTES + _SHARDS_IN_MEMORY * shard_bytes * min(2, threads))


def estimate_text_bytes(source: Source) -> int:
    """Returns the text to expect: file sizes times what formats usually unpack to.

    For parquet the first footer tells how much of the files is the text column.
    """
    file_bytes = sum(file.bytes or 0 for file in source.files)
    text_bytes_per_document: float = _TEXT_BYTES_PER_DOCUMENT
    if source.read_spec.module == "parquet":
        text, rows, size = sample_text(source)
        ratio = text / size if size else _TEXT_BYTES_PER_PARQUET_BYTE
        text_bytes_per_document = text / max(1, rows)
    else:
        suffix = PurePosixPath(source.files[0].name).suffix
        ratio = _TEXT_BYTES_PER_FILE_BYTE.get(suffix, 1.0)
    estimate = int(file_bytes * ratio)
    documents = source.options.max_documents
    if source.read_spec.ranges:  # a sliced split
        known = known_documents(source)
        documents = min((n for n in (documents, known) if n is not None), default=None)
    if documents is not None:
        estimate = min(estimate, int(documents * text_bytes_per_document))
    return estimate


def _block_kb(options: PreprocessOptions) -> int:
    if options.work.block_kb is not None or options.mode == "batch":
        return options.work.block_kb or _BLOCK_KB
    of_buffer = (options.stream.buffer_mb << 10) // _BLOCKS_PER_BUFFER
    return min(_BLOCK_KB, max(_LEAST_BLOCK_KB, of_buffer))


def _work(work: WorkOptions, beam_args: tuple[str, ...], mode: str) -> dict[str, object]:
    local = is_local(beam_args)
    if local and not work.wait:
        raise OptionError(
            f"--no-wait with {runner_name(beam_args)}, expected a runner that goes on without this "
            "process: DataflowRunner, FlinkRunner or SparkRunner."
        )
    via = work.shuffle_via
    if via == "auto":
        via = LOCAL_SHUFFLE[mode] if local else "engine"
    return {
        "shuffle_via": via,
        "partition_bytes": (work.partition_mb or _PARTITION_MB[mode]) << 20,
        "hub_token_secret": work.hub_token_secret,
        "threads": work.threads or (available_cores() if local else 1),
    }
