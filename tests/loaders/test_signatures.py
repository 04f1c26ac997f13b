"""What editors and callers see: keywords with types and defaults, integers of any kind, `repr`."""

import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import numpy as np
import pytest

from shardstream.loaders import GrainSource, Loader, Mixture, stream
from shardstream.loaders.fields import FIELD_SETS, FIELDS, FieldName, FieldSet
from shardstream.loaders.hub.options import FetchOptions, HubOrderOptions
from shardstream.loaders.options import BatchOptions, OrderOptions, ReadOptions
from shardstream.sources.options import SourceOptions
from shardstream.tokens.options import ENGINES, SPECIAL_TOKENS_IN_TEXT, TokenizerOptions
from shardstream.tokens.packing.options import PACKINGS, PAD_SIDES, TRUNCATIONS, PackingOptions
from tests.loaders.conftest import Dataset

ROOT = Path(__file__).parents[2]
PLACES = {"sharding", "process_index", "process_count"}
OF_THE_READER = {"read_threads", "prefetch", "stall_secs", "follow_timeout_secs"}


def keywords(function) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters
    return {n: p for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def fields_of(*kinds: type) -> dict[str, dataclasses.Field]:
    return {field.name: field for kind in kinds for field in dataclasses.fields(kind)}


@pytest.mark.parametrize(
    ("function", "kinds", "more", "less"),
    [
        (Loader, (OrderOptions, ReadOptions, BatchOptions), PLACES, set()),
        (
            Mixture,
            (OrderOptions, ReadOptions, BatchOptions),
            {*PLACES, "weights", "stop"},
            {"epochs", "drop_remainder", "follow", "follow_timeout_secs"},
        ),
        (GrainSource, (ReadOptions,), {"split", "fields"}, OF_THE_READER),
        (
            stream,
            (
                BatchOptions,
                TokenizerOptions,
                SourceOptions,
                PackingOptions,
                HubOrderOptions,
                FetchOptions,
            ),
            {*PLACES, "tokenizer_revision"},
            {"dataset"},
        ),
    ],
)
def test_signatures_have_the_names_defaults_and_types_of_the_options(
    function, kinds, more, less
) -> None:
    found, expected = keywords(function), fields_of(*kinds)
    assert set(found) == (set(expected) - less) | more
    for name, field in expected.items():
        if name in less:
            continue
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        assert found[name].default == default, name
        if name in ("data_files", "reader_option", "tokenizer_override"):
            continue  # one text or several; the options have a tuple
        annotation = found[name].annotation
        # Rooms below keep plain strings and check them; the choices are compared below.
        if get_origin(annotation) is Literal and field.type in (str, "str"):
            continue
        assert str(annotation).replace("<class '", "").replace("'>", "") == (
            field.type
            if isinstance(field.type, str)
            else str(field.type).replace("<class '", "").replace("'>", "")
        ), name


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("engine", ENGINES),
        ("special_tokens_in_text", SPECIAL_TOKENS_IN_TEXT),
        ("packing", PACKINGS),
        ("truncation", TRUNCATIONS),
        ("pad_side", PAD_SIDES),
    ],
)
def test_literals_of_stream_are_the_choices_of_the_rooms_below(name: str, choices) -> None:
    assert set(get_args(keywords(stream)[name].annotation)) == set(choices)


def test_field_names_and_sets_are_those_that_can_be_made() -> None:
    assert list(get_args(FieldName)) == list(FIELDS)
    assert set(get_args(FieldSet)) == set(FIELD_SETS)


SNIPPET = """
from shardstream import Loader, Mixture, stream
from shardstream.loaders import GrainSource, as_grain

loader = Loader("ds", batch_size=8, fields=("tokens", "positions"), shuffle="none")
for batch in loader:
    print(batch["tokens"].shape, batch["positions"])
Mixture(["a", "b"], weights=(1, 2), batch_size=8, fields="maxtext", stop="first")
stream("ds", tokenizer="gpt2", batch_size=8, packing="best_fit", buffer_size=100)
next(as_grain(loader))["tokens"]
"""
MISTAKES = [
    'Loader("ds", batch_size="8")',
    'Loader("ds", batch_size=8, suffle="none")',
    'Loader("ds", batch_size=8, shuffle="nome")',
    'Loader("ds", batch_size=8, fields=("tokns",))',
    'Loader("ds", batch_size=8, split="test")',
    'next(Loader("ds", batch_size=8))["tokns"]',
    'next(Loader("ds", batch_size=8, fields="maxtext"))["input"]',
    'Mixture(["a"], weights=(1,), batch_size=8, epochs=3)',
    'Mixture(["a"], weights=(1,), batch_size=8, stop="last")',
    'stream("ds", tokenizer="gpt2", batch_size=8, shuffle_buffer=3)',
    'stream("ds", tokenizer="gpt2", batch_size=8, packing="best-fit")',
    'GrainSource("ds", verify="md5")',
]


@pytest.mark.slow
def test_pyright_finds_mistakes_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("pyright")
    package = tmp_path / "shardstream"  # as a wheel lays it out
    package.mkdir()
    for name in ("__init__.py", "py.typed"):
        (package / name).symlink_to(ROOT / "shardstream" / name)
    for room in ("loaders", "pipelines", "shard_format", "sources", "tokens", "transforms"):
        (package / room).symlink_to(ROOT / room)
    (tmp_path / "user.py").write_text(SNIPPET + "\n".join(MISTAKES) + "\n")
    (tmp_path / "pyrightconfig.json").write_text(
        '{"pythonVersion": "3.11", "include": ["user.py"]}'
    )
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run([*command, "-p", tmp_path], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["generalDiagnostics"]
    lines = {error["range"]["start"]["line"] for error in found if error["severity"] == "error"}
    first = SNIPPET.count("\n")
    assert lines == set(range(first, first + len(MISTAKES)))


def test_numpy_integers_are_integers_wherever_an_int_is_expected(dataset: Dataset) -> None:
    plain = {"batch_size": 8, "buffer_size": 40, "seed": 3, "epochs": 2, "prefetch": 2}
    plain |= {"read_threads": 1, "process_index": 1, "process_count": 2, "bad_record_budget": 4}
    for kind in (np.int64, np.int32, np.uint8):
        numpy = {name: kind(value) for name, value in plain.items()}
        with (
            Loader(dataset.path, output="numpy", **plain) as one,
            Loader(dataset.path, output="numpy", **numpy) as other,
        ):
            assert json.dumps(one.get_state()) == json.dumps(other.get_state())
            other.skip(kind(3))
            assert np.array_equal(other.batch_at(kind(5))["tokens"], one.batch_at(5)["tokens"])
            assert other.provenance(kind(2)).equals(one.provenance(2))
            one.set_state(other.get_state() | {"step": kind(4), "seed": kind(3)})
            assert json.loads(json.dumps(one.get_state()))["step"] == 4
            assert type(one.step) is type(other.step) is int
    paths = [dataset.path, dataset.path]
    with Mixture(paths, weights=np.array([2, 1]), batch_size=np.int64(6), output="numpy") as mixed:
        json.dumps(mixed.get_state())
        assert mixed.epochs_at(np.int64(4)) == mixed.epochs_at(4)


INTEGERS = [
    "batch_size",
    "buffer_size",
    "seed",
    "epochs",
    "read_threads",
    "prefetch",
    "max_open_shards",
    "bad_record_budget",
    "cache_bytes",
    "store_requests",
    "process_index",
    "process_count",
]


@pytest.mark.parametrize("value", [True, np.True_, 8.0, np.float32(8), "8"])
@pytest.mark.parametrize("name", INTEGERS)
def test_bools_floats_and_strings_are_no_integers(dataset: Dataset, name: str, value) -> None:
    options = {"batch_size": 8, "process_index": 0, "process_count": 1} | {name: value}
    with pytest.raises(ValueError, match=f"{name} is .*, expected an integer"):
        Loader(dataset.path, **options)


def test_positions_are_integers(dataset: Dataset) -> None:
    with Loader(dataset.path, batch_size=8, output="numpy") as loader:
        for call in (loader.skip, loader.batch_at, loader.provenance):
            for value in (True, 1.0, "1"):
                with pytest.raises(ValueError, match="expected an integer"):
                    call(value)
        for step in (True, 1.5, "2", None):
            with pytest.raises(ValueError, match="the state has step"):
                loader.set_state(loader.get_state() | {"step": step})


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("fieldz", "fields"), ("batchsize", "batch_size"), ("buffersize", "buffer_size")],
)
def test_mistyped_keyword_names_the_nearest(dataset: Dataset, wrong: str, near: str) -> None:
    for call in (
        lambda **options: Loader(dataset.path, **options),
        lambda **options: Mixture([dataset.path], weights=(1,), **options),
        lambda **options: stream("parquet", tokenizer="gpt2", **options),
    ):
        with pytest.raises(TypeError, match=rf"has no option {wrong}\. Did you mean {near}\?"):
            call(**{wrong: 3})
    with pytest.raises(TypeError, match=r"has no option zzz\. Its options are "):
        GrainSource(dataset.path, zzz=1)


def test_repr_says_what_it_is_and_where_it_stands(dataset: Dataset) -> None:
    with Loader(dataset.path, batch_size=8, seed=5, shuffle="none") as loader:
        next(loader)
        assert repr(loader) == (
            f"Loader('{dataset.path}', split='train', batch_size=8, shuffle='none', seed=5, "
            "fields=('tokens',)): step 1 of 12"
        )
    assert repr(loader).endswith("step 1 of 12, closed")
    with Mixture([dataset.path], weights=(2,), batch_size=8) as mixed:
        assert repr(mixed).startswith(f"Mixture(['{dataset.path}'], weights=(1,), split='train', ")
        assert repr(mixed).endswith("): step 0")
