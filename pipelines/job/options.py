"""The options of a build: frozen dataclasses, from a command line or built in Python.

Every flag is a field of one of these dataclasses, made by `flags`; the help groups the flags as
`PreprocessOptions` says.
"""

import argparse
import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from shardstream.pipelines.job.flags import (
    Flag,
    FlagParser,
    HelpFormatter,
    add_flag,
    add_flags,
    read_flags,
    split_words,
    unescape,
)
from shardstream.pipelines.job.runner_flags import check_flags, check_runner_words
from shardstream.pipelines.job.stream_options import StreamModeOptions
from shardstream.shard_format.errors import OptionError
from shardstream.shard_format.shard_file import COMPRESSIONS, ShardOptions
from shardstream.sources.options import SourceOptions
from shardstream.tokens.options import ENGINES, SPECIAL_TOKENS_IN_TEXT, TokenizerOptions
from shardstream.tokens.packing.options import (
    PACKINGS,
    PAD_SIDES,
    TRUNCATIONS,
    PackingOptions,
)
from shardstream.transforms.hub_token import check_secret_name

Mode = Literal["batch", "stream"]
ShuffleVia = Literal["auto", "files", "worker", "engine"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where the dataset goes and how it is cut into shards.

    Attributes:
        output: dataset directory: a path, gs://bucket/prefix or s3://bucket/prefix.
        overwrite: remove the dataset that is there and start again.
        seed: seed of the shuffle.
        num_shards: shards of the train split; by default chosen from the size of the source.
        validation_fraction: fraction of the documents to hold out as a validation split.
        max_dead_letter_fraction: fraction of the documents that may be dead letters; above it the
            job stops.
    """

    output: str
    overwrite: bool = False
    seed: int = 0
    num_shards: int | None = None
    validation_fraction: float = 0.0
    max_dead_letter_fraction: float = 0.01

    def __post_init__(self) -> None:
        if self.num_shards is not None and not 1 <= self.num_shards < 10**6:
            raise OptionError(f"--num_shards is {self.num_shards}, expected 1 to 999999")
        if not 0 <= self.validation_fraction < 1:
            raise OptionError(
                f"--validation_fraction is {self.validation_fraction}, expected 0 or more and "
                f"below 1"
            )
        if not 0 <= self.max_dead_letter_fraction <= 1:
            raise OptionError(
                f"--max_dead_letter_fraction is {self.max_dead_letter_fraction}, expected 0 to 1"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """How the work is done; nothing here changes a byte of the output.

    Attributes:
        shuffle_via: what keeps the documents that wait to be shuffled: temporary files (batch
            mode), the worker (stream mode) or the engine's own shuffle. `auto` chooses by runner.
        partition_mb: megabytes of text in a partition, the unit of reading; by default 64 in batch
            mode and 8 in stream mode.
        block_kb: kilobytes of text per tokenizer call; by default 2048, and less in a stream with a
            small buffer.
        threads: cores to use; by default all that the process may use on a local runner, and one
            a worker elsewhere.
        processes: worker processes that a local batch job divides its cores between; by default as
            many as the size of the source is worth.
        progress: show progress.
        wait: wait for the job to end; --no-wait submits it and returns.
        plan_only: print what the job would do and cost, and don't run it.
        hub_token_secret: Secret Manager name of HF_TOKEN, for workers on Dataflow.
    """

    shuffle_via: ShuffleVia = "auto"
    partition_mb: int | None = None
    block_kb: int | None = None
    threads: int | None = None
    processes: int | None = None
    progress: bool = True
    wait: bool = True
    plan_only: bool = False
    hub_token_secret: str | None = None

    def __post_init__(self) -> None:
        _require_choice("shuffle_via", self.shuffle_via, ShuffleVia)
        if self.hub_token_secret is not None:
            check_secret_name(self.hub_token_secret)
        for name, value in (
            ("partition_mb", self.partition_mb),
            ("block_kb", self.block_kb),
            ("threads", self.threads),
            ("processes", self.processes),
        ):
            if value is not None and value < 1:
                raise OptionError(f"--{name} is {value}, expected at least 1")


def _require_choice(name: str, value: str, choices: object) -> None:
    if value not in typing.get_args(choices):
        expected = ", ".join(typing.get_args(choices))
        raise OptionError(f"--{name} is {value!r}, expected one of {expected}")


def _group(title: str) -> dict[str, str]:
    return {"group": title}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreprocessOptions:
    """All options of a build.

    Attributes:
        source: what is read.
        tokenizer: how text becomes ids.
        packing: how documents become sequences.
        output: where the dataset goes.
        shards: how records are stored.
        mode: `batch` shuffles the whole source before it writes shards; `stream` shuffles in a
            rolling buffer, and shards appear while the source is read.
        stream: how a stream is shuffled.
        work: how the work is done.
        beam_args: flags of the runner.
    """

    source: SourceOptions = dataclasses.field(metadata=_group("source"))
    tokenizer: TokenizerOptions = dataclasses.field(metadata=_group("tokenizer"))
    packing: PackingOptions = dataclasses.field(
        default_factory=PackingOptions, metadata=_group("packing")
    )
    output: OutputOptions = dataclasses.field(metadata=_group("output"))
    shards: ShardOptions = dataclasses.field(
        default_factory=ShardOptions, metadata=_group("output")
    )
    mode: Mode = dataclasses.field(default="batch", metadata=_group("stream"))
    stream: StreamModeOptions = dataclasses.field(
        default_factory=StreamModeOptions, metadata=_group("stream")
    )
    work: WorkOptions = dataclasses.field(default_factory=WorkOptions, metadata=_group("work"))
    beam_args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_choice("mode", self.mode, Mode)
        if self.mode == "batch":
            if self.work.shuffle_via == "worker":
                raise OptionError(
                    "--shuffle_via worker is for --mode stream, expected files or engine"
                )
            if self.stream != StreamModeOptions():
                changed = next(
                    field.name
                    for field in dataclasses.fields(self.stream)
                    if getattr(self.stream, field.name) != field.default
                )
                raise OptionError(
                    f"--{changed} is for --mode stream; give that too, or leave it out"
                )
            return
        if self.work.shuffle_via == "files":
            raise OptionError("--shuffle_via files is for --mode batch, expected worker or engine")
        if self.output.num_shards is not None:
            raise OptionError("--num_shards is for --mode batch; a stream has --shard_records")
        if self.output.validation_fraction and self.stream.epochs != 1:
            raise OptionError(
                f"--validation_fraction with --epochs {self.stream.epochs}, expected 1 epoch: "
                "held-out documents must not come again"
            )
        windowed = self.source.skip_documents or self.source.max_documents is not None
        if self.stream.follow_source and windowed:
            raise OptionError(
                "--follow_source with --skip_documents or --max_documents, expected neither: which "
                "documents are the first isn't known while files are still to come"
            )


# What a field cannot say of its flag.
_FLAGS: Mapping[type, Mapping[str, Flag]] = {
    SourceOptions: {
        "text_template": Flag(parse=unescape),
        "reader_option": Flag(parse=unescape),
    },
    TokenizerOptions: {
        "revision": Flag(name="tokenizer_revision"),
        "engine": Flag(name="tokenizer_engine", choices=ENGINES),
        "add_bos": Flag(name="bos"),
        "add_eos": Flag(name="eos"),
        "special_tokens_in_text": Flag(choices=SPECIAL_TOKENS_IN_TEXT),
    },
    PackingOptions: {
        "packing": Flag(choices=PACKINGS),
        "truncation": Flag(choices=TRUNCATIONS),
        "pad_side": Flag(choices=PAD_SIDES),
    },
    ShardOptions: {"compression": Flag(choices=tuple(COMPRESSIONS))},
    WorkOptions: {"plan_only": Flag(name="plan")},
}
_GROUPS = {
    "source": "as load_dataset(..., streaming=True) takes it",
    "tokenizer": "ids are those of transformers.AutoTokenizer",
    "packing": "how documents become sequences",
    "output": "where the dataset goes and how it is stored",
    "stream": "how shards appear while the source is read",
    "work": "speed and memory; no byte of the output changes",
}
# The commands of a build, and the flags that each of them stands for.
_COMMANDS: Mapping[str, Mapping[str, object]] = {
    "build": {},
    "stream": {"mode": "stream"},
    "plan": {"plan": True},
}


def parse_options(argv: Sequence[str], command: str = "build") -> PreprocessOptions:
    """Returns the options in argv; what isn't ours and what stands after `--` is the runner's.

    Args:
        argv: the command line.
        command: "build", "stream" (`--mode stream`) or "plan" (`--plan`).

    Raises:
        OptionError: a flag is unknown or malformed, a value is out of range, or a word is stray.
    """
    parser = make_parser(command)
    words, passed_on = split_words(argv)
    check_flags(words, parser.names)
    parsed, rest = parser.parse_known_args(words)
    check_runner_words(rest)
    for name, value in _COMMANDS[command].items():
        if getattr(parsed, name) != value:
            raise OptionError(
                f"--{name} is {getattr(parsed, name)} with 'shardstream {command}', expected "
                f"{value}; use 'shardstream build' instead"
            )
    return _read(parsed, (*rest, *passed_on))


def make_parser(command: str = "build") -> FlagParser:
    """Returns the parser of the flags of a command."""
    parser = FlagParser(
        prog=f"shardstream {command}",
        usage="%(prog)s --dataset NAME --tokenizer NAME --output DIRECTORY [flags] [-- flags]",
        description="Turns a Hugging Face streaming dataset into shuffled ArrayRecord shards of "
        "token sequences. Other flags go to Apache Beam (--runner, --direct_num_workers, ...); "
        "those that Beam doesn't register go after --.",
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    groups = {title: parser.add_argument_group(title, text) for title, text in _GROUPS.items()}
    for name, kind, group in _grouped_fields():
        if dataclasses.is_dataclass(kind):
            add_flags(groups[group], kind, flags=_FLAGS.get(kind))
        else:
            add_flag(groups[group], PreprocessOptions, name)
    parser.set_defaults(**_COMMANDS[command])
    return parser


def _read(parsed: argparse.Namespace, beam_args: tuple[str, ...]) -> PreprocessOptions:
    values: dict[str, Any] = {
        name: read_flags(kind, parsed, flags=_FLAGS.get(kind))
        if dataclasses.is_dataclass(kind)
        else getattr(parsed, name)
        for name, kind, _ in _grouped_fields()
    }
    return PreprocessOptions(**values, beam_args=beam_args)


def _grouped_fields() -> list[tuple[str, type, str]]:
    """Returns name, type and help group of every field that flags stand for."""
    kinds = typing.get_type_hints(PreprocessOptions)
    return [
        (field.name, kinds[field.name], field.metadata["group"])
        for field in dataclasses.fields(PreprocessOptions)
        if "group" in field.metadata
    ]
