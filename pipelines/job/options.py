"""Flags to frozen dataclasses: the one place that reads argv.

Every flag is a field of an options dataclass, so the same options can be built in Python without a
command line; the help groups them by the dataclass they fill.
"""

import argparse
import dataclasses
from collections.abc import Sequence

from shardstream.pipelines.job.stream_options import StreamOptions
from shardstream.shard_format.shard_file import COMPRESSIONS, ShardOptions
from shardstream.sources.options import SourceOptions
from shardstream.tokens.options import ENGINES, SPECIAL_TOKENS_IN_TEXT, TokenizerOptions
from shardstream.tokens.packing.options import PACKINGS, PAD_SIDES, TRUNCATIONS
from shardstream.tokens.packing.pack import PackingOptions
from shardstream.transforms.hub_token import check_secret_name

MODES = ("batch", "stream")
SHUFFLE_VIA = ("auto", "files", "worker", "engine")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where the dataset goes and how it is cut into shards.

    Attributes:
        output: dataset directory: a path, gs://bucket/prefix or s3://bucket/prefix.
        overwrite: remove what is there and start again.
        seed: of the shuffle.
        num_shards: of the train split; None chooses from the size of the source.
        validation_fraction: of documents to hold out.
        max_dead_letter_fraction: of documents, above which the job stops.
    """

    output: str
    overwrite: bool = False
    seed: int = 0
    num_shards: int | None = None
    validation_fraction: float = 0.0
    max_dead_letter_fraction: float = 0.01

    def __post_init__(self) -> None:
        if self.num_shards is not None and not 1 <= self.num_shards < 10**6:
            raise ValueError(f"--num_shards is {self.num_shards}, expected 1 to 999999")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                f"--validation_fraction is {self.validation_fraction}, expected 0 or more and "
                f"below 1"
            )
        if not 0 <= self.max_dead_letter_fraction <= 1:
            raise ValueError(
                f"--max_dead_letter_fraction is {self.max_dead_letter_fraction}, expected 0 to 1"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """How the work is done; nothing here changes a byte of the output.

    Attributes:
        shuffle_via: "files" (batch) or "worker" (stream), "engine", or "auto", by runner.
        partition_mb: text a partition holds; None: 64 in batch mode, 8 in a stream.
        block_kb: text per tokenizer call; None: 2048, less in a stream with a small buffer.
        threads: cores to use; None: all that there are on a local runner, one a worker elsewhere.
        processes: that a local batch job divides its cores between; None: by the size of the source.
        progress: show progress.
        wait: for the job to end; False leaves it to the engine.
        plan_only: print what the job would do, and don't run it.
        hub_token_secret: Secret Manager name of the hub's token, for workers on Dataflow.
    """

    shuffle_via: str = "auto"
    partition_mb: int | None = None
    block_kb: int | None = None
    threads: int | None = None
    processes: int | None = None
    progress: bool = True
    wait: bool = True
    plan_only: bool = False
    hub_token_secret: str | None = None

    def __post_init__(self) -> None:
        if self.hub_token_secret is not None:
            check_secret_name(self.hub_token_secret)
        for name, value in (
            ("partition_mb", self.partition_mb),
            ("block_kb", self.block_kb),
            ("threads", self.threads),
            ("processes", self.processes),
        ):
            if value is not None and value < 1:
                raise ValueError(f"--{name} is {value}, expected at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreprocessOptions:
    """All options of `python -m pipelines.preprocess`; `beam_args` goes to the runner."""

    mode: str = "batch"
    stream: StreamOptions = dataclasses.field(default_factory=StreamOptions)

    source: SourceOptions
    tokenizer: TokenizerOptions
    packing: PackingOptions
    shards: ShardOptions
    output: OutputOptions
    work: WorkOptions
    beam_args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mode == "batch":
            if self.work.shuffle_via == "worker":
                raise ValueError(
                    "--shuffle_via worker is for --mode stream, expected files or engine"
                )
            if self.stream != StreamOptions():
                changed = next(
                    field.name
                    for field in dataclasses.fields(self.stream)
                    if getattr(self.stream, field.name) != field.default
                )
                raise ValueError(
                    f"--{changed} is for --mode stream; give that too, or leave it out"
                )
            return
        if self.work.shuffle_via == "files":
            raise ValueError("--shuffle_via files is for --mode batch, expected worker or engine")
        if self.output.num_shards is not None:
            raise ValueError("--num_shards is for --mode batch; a stream has --shard_records")
        if self.output.validation_fraction and self.stream.epochs != 1:
            raise ValueError(
                f"--validation_fraction with --epochs {self.stream.epochs}, expected 1 epoch: "
                "held-out documents must not come again"
            )
        windowed = self.source.skip_documents or self.source.max_documents is not None
        if self.stream.follow_source and windowed:
            raise ValueError(
                "--follow_source with --skip_documents or --max_documents, expected neither: which "
                "documents are the first isn't known while files are still to come"
            )


def parse_options(argv: Sequence[str]) -> PreprocessOptions:
    """Returns the options in argv; flags it doesn't know are Beam's.

    Raises:
        ValueError: a value is out of range. argparse itself exits on malformed flags.
    """
    parser = make_parser()
    flags, beam_args = parser.parse_known_args(argv)
    _refuse_stray_flags(parser, beam_args)
    return PreprocessOptions(
        source=SourceOptions(
            dataset=flags.dataset,
            config=flags.config,
            split=flags.split,
            data_files=tuple(flags.data_files),
            revision=flags.revision,
            text_column=flags.text_column,
            text_template=_unescape(flags.text_template),
            skip_documents=flags.skip_documents,
            max_documents=flags.max_documents,
        ),
        tokenizer=TokenizerOptions(
            tokenizer=flags.tokenizer,
            revision=flags.tokenizer_revision,
            engine=flags.tokenizer_engine,
            add_bos=flags.bos,
            add_eos=flags.eos,
            special_tokens_in_text=flags.special_tokens_in_text,
            audit_every=flags.audit_every,
        ),
        packing=PackingOptions(
            packing=flags.packing,
            sequence_length=flags.sequence_length,
            truncation=flags.truncation,
            pad_side=flags.pad_side,
            keep_eos=flags.keep_eos,
        ),
        shards=ShardOptions(group_size=flags.group_size, compression=flags.compression),
        output=OutputOptions(
            output=flags.output,
            overwrite=flags.overwrite,
            seed=flags.seed,
            num_shards=flags.num_shards,
            validation_fraction=flags.validation_fraction,
            max_dead_letter_fraction=flags.max_dead_letter_fraction,
        ),
        work=WorkOptions(
            shuffle_via=flags.shuffle_via,
            partition_mb=flags.partition_mb,
            block_kb=flags.block_kb,
            threads=flags.threads,
            processes=flags.processes,
            progress=flags.progress,
            wait=flags.wait,
            plan_only=flags.plan,
            hub_token_secret=flags.hub_token_secret,
        ),
        mode=flags.mode,
        stream=StreamOptions(
            buffer_documents=flags.buffer_documents,
            buffer_mb=flags.buffer_mb,
            shard_records=flags.shard_records,
            max_shard_latency_secs=flags.max_shard_latency_secs,
            epochs=flags.epochs,
            follow_source=flags.follow_source,
            poll_secs=flags.poll_secs,
            lanes=flags.lanes,
        ),
        beam_args=tuple(beam_args),
    )


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's own flags."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.preprocess",
        description="Turns a Hugging Face streaming dataset into shuffled ArrayRecord shards of "
        "token sequences. Other flags go to Apache Beam (--runner, --direct_num_workers, ...).",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    switch = argparse.BooleanOptionalAction
    group = parser.add_argument_group("source", "as load_dataset(..., streaming=True) takes it")
    add = group.add_argument
    add("--dataset", required=True, help="hub name, local directory, or parquet, json, csv, text")
    add("--config", help="configuration (subset) of the dataset")
    add("--split", default="train", help="split to read")
    add("--data_files", nargs="+", default=[], metavar="FILE", help="paths, URLs or patterns")
    add("--revision", help="branch, tag or commit; the commit it points to is pinned")
    add("--text_column", default="text", help="column that holds the text")
    add("--text_template", help='joins columns instead, e.g. "{title}\\n\\n{text}"')
    add("--max_documents", type=int, help="only the first N documents of the stream, like take(N)")
    add("--skip_documents", type=int, default=0, help="leave out the first N, like skip(N)")
    group = parser.add_argument_group("tokenizer", "ids are those of transformers.AutoTokenizer")
    add = group.add_argument
    add("--tokenizer", required=True, help="hub name or directory")
    add("--tokenizer_revision", help="branch, tag or commit of the tokenizer's repository")
    add("--tokenizer_engine", choices=ENGINES, default="auto", help="how the ids are computed")
    add("--eos", action=switch, default=True, help="EOS id behind every document")
    add("--bos", action=switch, default=False, help="BOS id before every document")
    add(
        "--special_tokens_in_text",
        choices=SPECIAL_TOKENS_IN_TEXT,
        default="encode",
        help="a literal <|endoftext|> in a document: encode it as text, or parse it as the token",
    )
    add("--audit_every", type=int, default=1000, help="check 1 document in N against transformers")
    group = parser.add_argument_group("packing", "how documents become sequences")
    add = group.add_argument
    add("--sequence_length", type=int, default=2048, help="tokens per sequence")
    add("--packing", choices=PACKINGS, default="concat", help="join and cut, pad, or best fit")
    add("--truncation", choices=TRUNCATIONS, default="auto", help="of documents that are too long")
    add("--pad_side", choices=PAD_SIDES, default="right", help="side of padding, with pad")
    add("--keep_eos", action=switch, default=False, help="end a truncated document in EOS")
    group = parser.add_argument_group("output")
    add = group.add_argument
    add("--output", required=True, help="dataset directory: a path, gs://... or s3://...")
    add("--overwrite", action="store_true", help="remove what is there and start again")
    add("--seed", type=int, default=0, help="of the shuffle")
    add("--num_shards", type=int, help="of the train split; by default from the source's size")
    add("--validation_fraction", type=float, default=0.0, help="of documents to hold out")
    add("--group_size", type=int, default=1, help="records per ArrayRecord chunk; Grain wants 1")
    add("--compression", choices=list(COMPRESSIONS), default="none", help="of ArrayRecord chunks")
    add("--max_dead_letter_fraction", type=float, default=0.01, help="above it the job stops")
    group = parser.add_argument_group("stream", "shards appear while the source is read")
    add = group.add_argument
    add("--mode", choices=MODES, default="batch", help="whole permutation, or a rolling buffer")
    add("--buffer_documents", type=int, default=100_000, help="in the shuffle buffer")
    add("--buffer_mb", type=int, default=256, help="of tokens in the shuffle buffer, at most")
    add(
        "--shard_records", type=int, help="sequences in a shard; by default a quarter of the buffer"
    )
    add("--max_shard_latency_secs", type=float, default=60.0, help="documents wait no longer")
    add("--epochs", type=int, default=1, help="passes, each in another order; 0: until stopped")
    add("--follow_source", action="store_true", help="go on with new files until SIGTERM")
    add("--poll_secs", type=float, default=30.0, help="between looks for new files")
    add("--lanes", type=int, default=1, help="buffers side by side, on runners with workers")
    group = parser.add_argument_group("work", "speed and memory; no byte of the output changes")
    add = group.add_argument
    add("--shuffle_via", choices=SHUFFLE_VIA, default="auto", help="who keeps what waits")
    add("--partition_mb", type=int, help="text per unit of reading; 64, in a stream 8")
    add("--block_kb", type=int, help="text per tokenizer call; 2048, less with a small buffer")
    add("--threads", type=int, help="cores to use; by default all on local runners")
    add("--processes", type=int, help="that a local batch job divides its cores between")
    add("--progress", action=switch, default=True, help="show progress")
    add("--plan", action="store_true", help="print what the job would do and cost, don't run it")
    add("--wait", action=switch, default=True, help="for the job; --no-wait: submit it and go")
    add("--hub_token_secret", metavar="NAME", help="Secret Manager name of HF_TOKEN, for workers")
    return parser


def _refuse_stray_flags(parser: argparse.ArgumentParser, beam_args: list[str]) -> None:
    """Catches what would vanish among Beam's flags: stray words, and misspelt flags of ours."""
    import difflib

    own = [option for action in parser._actions for option in action.option_strings]
    for arg in beam_args:
        name = arg.split("=", 1)[0]
        close = difflib.get_close_matches(name, own, n=1, cutoff=0.85)
        if name.startswith("--") and close:
            raise ValueError(f"unknown flag {name}; did you mean {close[0]}?")


def _unescape(template: str | None) -> str | None:
    r"""Lets a shell user write \n and \t."""
    return None if template is None else template.replace("\\n", "\n").replace("\\t", "\t")
