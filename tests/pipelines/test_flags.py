"""Flags are the fields of the options dataclasses, and nothing on a command line is ignored."""

import argparse
import dataclasses
import typing
from collections.abc import Iterator
from typing import Literal

import pytest

from shardstream.pipelines.job.flags import (
    Flag,
    FlagParser,
    add_flags,
    describe_fields,
    read_flags,
)
from shardstream.pipelines.job.options import (
    OutputOptions,
    PreprocessOptions,
    WorkOptions,
    make_parser,
    parse_options,
)
from shardstream.pipelines.job.runner_flags import runner_parser
from shardstream.shard_format.errors import OptionError
from shardstream.shard_format.shard_file import ShardOptions
from shardstream.sources.options import SourceOptions
from shardstream.tokens.options import TokenizerOptions
from shardstream.tokens.packing.options import PackingOptions

REQUIRED = ["--dataset", "d", "--tokenizer", "t", "--output", "o"]
# Fields whose flag has another name.
RENAMED = {
    ("tokenizer", "revision"): "tokenizer_revision",
    ("tokenizer", "engine"): "tokenizer_engine",
    ("tokenizer", "add_bos"): "bos",
    ("tokenizer", "add_eos"): "eos",
    ("work", "plan_only"): "plan",
}


def _fields() -> Iterator[tuple[str, dataclasses.Field, str]]:
    """(flag, field, its class's docstring text) of every field of every options dataclass."""
    kinds = typing.get_type_hints(PreprocessOptions)
    for outer in dataclasses.fields(PreprocessOptions):
        if not dataclasses.is_dataclass(kinds[outer.name]):
            if outer.name != "beam_args":
                yield outer.name, outer, describe_fields(PreprocessOptions)[outer.name]
            continue
        texts = describe_fields(kinds[outer.name])
        for field in dataclasses.fields(kinds[outer.name]):
            flag = RENAMED.get((outer.name, field.name), field.name)
            yield flag, field, texts.get(field.name, "")


def test_flags_are_the_fields_and_no_others() -> None:
    flags = {action.dest for action in make_parser().flags.values()} - {"help"}
    assert flags == {name for name, _, _ in _fields()}


@pytest.mark.parametrize(("name", "field", "text"), list(_fields()))
def test_flag_has_the_field_s_default_and_text(
    name: str, field: dataclasses.Field, text: str
) -> None:
    action = make_parser().flags[f"--{name}"]
    is_required = dataclasses.MISSING in (field.default,) and (
        field.default_factory is dataclasses.MISSING
    )
    assert action.required is is_required
    if not is_required:
        default = field.default
        if default is dataclasses.MISSING:
            default = field.default_factory()
        assert action.default == (list(default) if isinstance(default, tuple) else default)
    assert text
    assert (action.help or "").startswith(text.replace("%", "%%"))


def test_options_without_flags_are_the_dataclasses_defaults() -> None:
    options = parse_options(REQUIRED)
    kinds = typing.get_type_hints(PreprocessOptions)
    given = {"source": {"dataset": "d"}, "tokenizer": {"tokenizer": "t"}, "output": {"output": "o"}}
    for outer in dataclasses.fields(PreprocessOptions):
        kind = kinds[outer.name]
        if dataclasses.is_dataclass(kind):
            assert getattr(options, outer.name) == kind(**given.get(outer.name, {}))
    assert options.mode == "batch" and options.beam_args == ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Many:
    """One field of every kind.

    Attributes:
        word: a word, 100 %
            of it.
        count: a number.
        share: a fraction.
        on: a switch.
        off: another.
        kind: one of three.
        files: some files.
        settings: pairs.
    """

    word: str
    count: int | None = None
    share: float = 0.5
    on: bool = True
    off: bool = False
    kind: Literal["a", "b", "c"] = "b"
    files: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()


def _parse(*argv: str) -> _Many:
    parser = FlagParser(prog="x", allow_abbrev=False)
    add_flags(parser.add_argument_group("many"), _Many)
    return read_flags(_Many, parser.parse_args(argv))


def test_every_kind_of_field_is_a_flag() -> None:
    assert _parse("--word", "w") == _Many(word="w")
    argv = ["--word=w", "--count", "3", "--share", "0.25", "--no-on", "--off", "--kind", "c"]
    argv += ["--files", "x", "y", "--files=z"]
    argv += ["--settings", "sep=\\t", "--settings", "quote=a=b"]
    assert _parse(*argv) == _Many(
        word="w",
        count=3,
        share=0.25,
        on=False,
        off=True,
        kind="c",
        files=("x", "y", "z"),
        settings=(("sep", "\t"), ("quote", "a=b")),
    )
    assert _parse("--word", "w") == _Many(word="w")  # nothing stays from before


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--count", "x"], "--count: invalid int value: 'x'"),
        (["--kind", "d"], r"--kind: invalid choice: 'd' \(choose from"),
        (["--settings", "sep"], "found 'sep', expected NAME=VALUE"),
        (["--files"], "--files: expected at least one argument"),
        ([], "required: --word"),
    ],
)
def test_malformed_flag_is_an_option_error(argv: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        _parse(*argv)


@pytest.mark.parametrize("base", [SourceOptions, TokenizerOptions, PackingOptions, ShardOptions])
def test_new_field_of_a_dataclass_is_a_flag_without_more_ado(base: type) -> None:
    """As a field that is added to the class itself would be."""
    fields = [("novelty", int, dataclasses.field(default=3)), ("extras", tuple[str, ...], ())]
    more = dataclasses.make_dataclass("More", fields, bases=(base,), frozen=True, kw_only=True)
    parser = FlagParser(prog="x")
    add_flags(parser.add_argument_group("g"), more)
    needed = [
        f"--{field.name}=x"
        for field in dataclasses.fields(base)
        if field.default is field.default_factory is dataclasses.MISSING
    ]
    options = read_flags(more, parser.parse_args([*needed, "--novelty", "5", "--extras", "a", "b"]))
    assert (options.novelty, options.extras) == (5, ("a", "b"))


def test_dataclass_s_own_value_error_is_an_option_error() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Odd:
        number: int = 1

        def __post_init__(self) -> None:
            if self.number % 2 == 0:
                raise ValueError(f"number is {self.number}, expected an odd one")

    parser = FlagParser(prog="x")
    add_flags(parser.add_argument_group("g"), Odd)
    with pytest.raises(OptionError, match="number is 2, expected an odd one"):
        read_flags(Odd, parser.parse_args(["--number", "2"]))


def test_options_are_built_in_python_without_a_command_line() -> None:
    options = PreprocessOptions(
        source=SourceOptions(dataset="d"),
        tokenizer=TokenizerOptions(tokenizer="t"),
        output=OutputOptions(output="o"),
    )
    assert options == parse_options(REQUIRED)
    with pytest.raises(OptionError, match="--mode is 'bach', expected one of batch, stream"):
        dataclasses.replace(options, mode="bach")
    with pytest.raises(OptionError, match="--shuffle_via is 'x', expected one of auto, files"):
        WorkOptions(shuffle_via="x")


def test_field_of_a_kind_that_no_flag_holds_is_refused_when_the_parser_is_made() -> None:
    kind = dataclasses.make_dataclass("Odd", [("odd", complex, 0j)], kw_only=True)
    with pytest.raises(TypeError, match="odd: no flag can hold"):
        add_flags(argparse.ArgumentParser().add_argument_group("g"), kind)


def test_flag_may_have_another_name_and_choices() -> None:
    kind = dataclasses.make_dataclass("Renamed", [("engine", str, "a")], kw_only=True)
    flags = {"engine": Flag(name="tokenizer_engine", choices=("a", "b"))}
    parser = FlagParser(prog="x")
    add_flags(parser.add_argument_group("g"), kind, flags=flags)
    assert read_flags(kind, parser.parse_args(["--tokenizer_engine=b"]), flags=flags).engine == "b"


def _own() -> list[str]:
    return [name for name in make_parser().names if name.startswith("--")]


def _misspellings(name: str) -> Iterator[str]:
    """A letter left out, two swapped, the last letters left out, a letter doubled, hyphens."""
    middle = len(name) // 2
    yield name[:middle] + name[middle + 1 :]
    yield name[:middle] + name[middle + 1] + name[middle] + name[middle + 2 :]
    yield name[:-2]
    yield name[:middle] + name[middle] + name[middle:]
    yield name.replace("_", "-")
    yield name.upper().replace("--NO-", "--no-")


@pytest.mark.parametrize("name", _own())
def test_misspelt_flag_is_refused_and_the_right_one_named(name: str) -> None:
    known = {*_own(), *runner_parser([]).names}
    for wrong in _misspellings(name):
        if wrong in known or len(wrong) < 4:
            continue
        for argv in ([wrong, "7"], [f"{wrong}=7"], [wrong]):
            with pytest.raises(OptionError, match=f"unknown flag {wrong}; did you mean ") as caught:
                parse_options([*REQUIRED, *argv, "--plan"])
            assert name in str(caught.value).replace("?", "").replace(",", "").split()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--max_docs", "10"], r"unknown flag --max_docs; did you mean .*--max_documents\b"),
        (["--seq_length", "10"], r"unknown flag --seq_length; did you mean .*--sequence_length\b"),
        (["--filter", "x"], "unknown flag --filter; the nearest are --.*, --.*, --"),
        (["-x"], "unknown flag -x"),
        (["stray"], "unexpected word 'stray', expected a flag"),
        (["--seed", "1", "2"], "unexpected word '2'"),
        (["--runner", "DirectRunner", "stray"], "unexpected word 'stray'"),
        (["--streaming", "yes"], "unexpected word 'yes'"),
        (["--direct_num_workers", "many"], "--direct_num_workers: invalid int value: 'many'"),
        (["--sdk_harness_log_level_overrides", "1"], "has a value that isn't one"),
        (["--checkpointing_interval", "5"], "unknown flag --checkpointing_interval"),  # no Flink
        (["--runer", "FlinkRunner"], r"unknown flag --runer; did you mean .*--runner"),
        (["--runner", "Flnk", "--streaming"], "--runner is Flnk, expected one of"),
    ],
)
@pytest.mark.parametrize("plan", [[], ["--plan"]])
def test_what_nobody_knows_is_refused(argv: list[str], message: str, plan: list[str]) -> None:
    with pytest.raises(OptionError, match=message):
        parse_options([*REQUIRED, *argv, *plan])


def test_unknown_flag_is_named_before_one_that_is_missing() -> None:
    with pytest.raises(OptionError, match=r"unknown flag --datset; did you mean --dataset\?"):
        parse_options(["--datset", "d", "--tokenizer", "t", "--output", "o"])


# Of flags that read their value in a way of their own.
_VALUES = {
    "--beam_services": '{"a": "b"}',
    "--gcs_custom_audit_entry": '{"a": "b"}',
    "--sdk_harness_log_level_overrides": '{"a": "INFO"}',
}


@pytest.mark.parametrize(
    "action",
    [
        action
        for action in dict.fromkeys(runner_parser([]).flags.values())
        if not {"--runner", "--help"} & set(action.option_strings)
    ],
    ids=lambda action: action.option_strings[0],
)
def test_every_flag_that_beam_registers_passes(action: argparse.Action) -> None:
    value = _VALUES.get(action.option_strings[0]) or (action.choices or ["1"])[0]
    for name in action.option_strings:
        spellings = [[name]] if action.nargs == 0 else [[name, value], [f"{name}={value}"]]
        for argv in spellings:
            assert parse_options([*REQUIRED, *argv]).beam_args == tuple(argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["--runner=FlinkRunner", "--checkpointing_interval=500", "--object_reuse"],
        ["--runner", "flink", "--max_bundle_size", "2"],
        ["--runner=SparkRunner", "--bundle_size=5"],
        ["--runner=PortableRunner", "--savepoint_path=/x", "--storage_level", "DISK_ONLY"],
    ],
)
def test_flags_of_the_chosen_engine_pass(argv: list[str]) -> None:
    assert parse_options([*REQUIRED, *argv]).beam_args == tuple(argv)


def test_what_stands_after_two_dashes_is_passed_on_unchecked() -> None:
    options = parse_options([*REQUIRED, "--runner=FlinkRunner", "--", "--own", "x", "stray"])
    assert options.beam_args == ("--runner=FlinkRunner", "--own", "x", "stray")
    assert parse_options([*REQUIRED, "--data_files", "a", "b", "--"]).source.data_files == (
        "a",
        "b",
    )


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        ("stream", ["--mode", "batch"], "--mode is batch with 'shardstream stream'"),
        ("plan", ["--no-plan"], "--plan is False with 'shardstream plan'"),
    ],
)
def test_command_refuses_the_flag_that_contradicts_it(
    command: str, flags: list[str], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        parse_options([*REQUIRED, *flags], command)
    assert parse_options(REQUIRED, "stream").mode == "stream"
    assert parse_options(REQUIRED, "plan").work.plan_only


def test_text_template_may_have_escapes() -> None:
    options = parse_options([*REQUIRED, "--text_template", r"{a}\n\t{b}"])
    assert options.source.text_template == "{a}\n\t{b}"
