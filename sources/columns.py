"""Which of a source's columns are wanted, and what is known of their types: looked at once, here.

The dataset's card says it where there is one, else the first file. Where the first file doesn't
have a wanted column, or has something else than text in it, a few others are asked, so that one odd
file at the head doesn't speak for all.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import pyarrow as pa

from shardstream.sources.arrow_rows import arrow_schema
from shardstream.sources.csv_rows import peek_csv
from shardstream.sources.errors import SourceError, border
from shardstream.sources.json_rows import peek_json
from shardstream.sources.options import SourceOptions
from shardstream.sources.other_rows import pattern_of
from shardstream.sources.parquet_rows import open_parquet
from shardstream.sources.rows import AnyValue
from shardstream.sources.spec import DECLARED, JSON, TEXT, ReadSpec, SourceFile
from shardstream.sources.tar_rows import peek_tar

_FILES_ASKED = 8
_TEXT_TYPES = ("string", "large_string", "string_view", "null")
Features = Mapping[str, Any]


def resolve_columns(
    builder: datasets.DatasetBuilder,
    options: SourceOptions,
    files: Sequence[SourceFile],
    spec: ReadSpec,
) -> ReadSpec:
    """Returns the spec with the wanted columns' paths and kinds.

    Raises:
        SourceError: a column isn't there, or is no text; or there is no document at all.
    """
    declared = builder.info.features or builder.config.__dict__.get("features")
    if declared and _has_all(declared, options):
        return _with_features(declared, options, spec, DECLARED)
    problem: SourceError | None = None
    is_empty = True
    for number, file in enumerate(_files_to_ask(files)):
        try:
            found = _features_of(file, spec, options, is_first=number == 0)
            is_empty = is_empty and not found
            if found:
                return _with_features(found, options, spec, TEXT)
        except SourceError as error:
            problem, is_empty = problem or error, False
    if declared:
        return _with_features(declared, options, spec, DECLARED)
    if problem is None or is_empty:
        raise SourceError(
            f"dataset {options.dataset!r}, split {options.split!r}: no documents at all; its "
            "files are empty."
        )
    raise problem


def _has_all(features: Features, options: SourceOptions) -> bool:
    return all(_path_of(name, features) is not None for name in options.columns)


def _files_to_ask(files: Sequence[SourceFile]) -> Iterator[SourceFile]:
    """Yields the first files, the last, and some between."""
    count = len(files)
    chosen = {0, 1, count - 1, *(count * i // _FILES_ASKED for i in range(_FILES_ASKED))}
    yield from (files[i] for i in sorted(i for i in chosen if 0 <= i < count)[:_FILES_ASKED])


def _features_of(
    file: SourceFile, spec: ReadSpec, options: SourceOptions, *, is_first: bool
) -> Features:
    which = "its first file" if is_first else "its file"
    where = f"dataset {options.dataset!r}: {which}, {file.url}, can't be read as {spec.module}"
    with border(where, "Mend the file, or leave it out with --data_files."):
        try:
            return _peek(file, spec)
        except SourceError as error:
            raise error.__cause__ or ValueError(str(error)) from error


def _peek(file: SourceFile, spec: ReadSpec) -> Features:
    """Returns a file's features, none where it has no rows."""
    if spec.module == "parquet":
        with open_parquet(file.url) as parquet:
            return _of_schema(parquet.schema_arrow, spec) if parquet.metadata.num_rows else {}
    if spec.module == "arrow":
        schema = arrow_schema(file.url)
        return {} if schema is None else _of_schema(schema, spec)
    if spec.module == "text":
        names = list(dict(spec.config).get("features") or ["text"])
        return {} if file.bytes == 0 else {name: datasets.Value("string") for name in names}
    if spec.module == "csv":
        return {name: datasets.Value("string") for name in peek_csv(file, spec)}
    if spec.module == "json" and dict(spec.config).get("field") is None:
        return _of_values(peek_json(file, spec))
    if spec.module == "webdataset":
        seen = peek_tar(file, _may_be_roots(spec), spec.max_document_bytes)
        return {name: _of_tar(values) for name, values in seen.items()}
    return _with_datasets(file, spec)


def _of_schema(schema: pa.Schema, spec: ReadSpec) -> Features:
    """Returns features of an Arrow schema; a type that `datasets` doesn't know is named."""
    features: dict[str, Any] = {}
    for name in dict.fromkeys(schema.names):
        index = schema.get_all_field_indices(name)
        if len(index) > 1 and name in _may_be_roots(spec):
            raise SourceError(f"column {name!r} is there {len(index)} times, expected once")
        kind = schema.field(index[0]).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        try:
            single = pa.schema([pa.field(name, kind)], metadata=schema.metadata)
            features[name] = datasets.Features.from_arrow_schema(single)[name]
        except (ValueError, KeyError, TypeError, NotImplementedError):
            features[name] = _Unknown(str(kind))
    return features


def _may_be_roots(spec: ReadSpec) -> frozenset[str]:
    """Returns the wanted columns, and what they might lie in, by their names."""
    split = [column.split(".") for column in spec.columns]
    return frozenset(".".join(n[:end]) for n in split for end in range(1, len(n) + 1))


@dataclasses.dataclass(frozen=True)
class _Unknown:
    """Stands for a type that `datasets` has no feature for."""

    dtype: str


def _of_values(seen: Mapping[str, list[Any]]) -> Features:
    features: dict[str, Any] = {}
    for name, values in seen.items():
        valid = [value for value in values if value is not None]
        if any(isinstance(value, str) for value in valid):
            is_mixed = not all(isinstance(value, str) for value in valid)
            features[name] = datasets.Json() if is_mixed else datasets.Value("string")
        elif valid and all(isinstance(value, dict) for value in valid):
            below: dict[str, list[Any]] = {}
            for value in valid:
                for key, item in value.items():
                    below.setdefault(key, []).append(item)
            features[name] = _of_values(below)
        elif not valid:
            features[name] = datasets.Value("null")
        else:
            features[name] = _Unknown(_arrow_name(valid))
    return features


def _arrow_name(values: list[Any]) -> str:
    try:
        return str(pa.array(values).type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return "mixed"


def _of_tar(values: list[Any]) -> AnyValue:
    """Returns a feature of a column's first values; undecoded ones may be text."""
    if all(value is None or isinstance(value, str | bytes) for value in values):
        return datasets.Value("string")
    return _of_values({"": values})[""]


def _with_datasets(file: SourceFile, spec: ReadSpec) -> Features:
    try:
        stream = datasets.load_dataset(
            spec.module,
            data_files={"train": [pattern_of(file, spec)]},
            split="train",
            streaming=True,
            **dict(spec.config),
        )
        features = stream.features
        if features is None:
            first = next(iter(stream), None)
            features = {} if first is None else _of_values({k: [v] for k, v in first.items()})
        return features
    except StopIteration:
        return {}


def _with_features(
    features: Features, options: SourceOptions, spec: ReadSpec, kind: str
) -> ReadSpec:
    paths, kinds = [], []
    for column in options.columns:
        path = _path_of(column, features)
        if path is None:
            option = "--text_template" if options.text_template else "--text_column"
            raise SourceError(
                f"dataset {options.dataset!r} has no column {column!r}, expected one of "
                f"{', '.join(_names(features))}. Give {option}."
            )
        feature = _feature_at(features, path)
        is_json = isinstance(feature, datasets.Json)
        dtype = getattr(feature, "dtype", type(feature).__name__)
        if dtype not in _TEXT_TYPES and not is_json:
            text = [name for name in features if _is_text(features[name])]
            raise SourceError(
                f"column {column!r} of dataset {options.dataset!r} is {dtype}, expected text. Text "
                f"columns: {', '.join(text) or 'none'}."
            )
        paths.append(path)
        kinds.append(JSON if is_json else kind)
    is_plain = all(path == (name,) for path, name in zip(paths, options.columns, strict=True))
    return dataclasses.replace(spec, paths=() if is_plain else tuple(paths), kinds=tuple(kinds))


def _path_of(column: str, features: Features) -> tuple[str, ...] | None:
    """Returns where a column lies: under its own name, or as a field below its name's start."""
    if column in features:
        return (column,)
    for at, letter in enumerate(column):
        if letter == "." and isinstance(below := features.get(column[:at]), dict):
            rest = _path_of(column[at + 1 :], below)
            if rest is not None:
                return (column[:at], *rest)
        if letter == "." and isinstance(features.get(column[:at]), datasets.Json):
            return (column[:at], *column[at + 1 :].split("."))
    return None


def _feature_at(features: Features, path: tuple[str, ...]) -> AnyValue:
    found: Any = features
    for name in path:
        if isinstance(found, datasets.Json):
            return found
        found = found[name]
    return found


def _is_text(feature: object) -> bool:
    return "string" in str(getattr(feature, "dtype", ""))


def _names(features: Features) -> list[str]:
    """Returns all names a user may ask for, fields of objects included."""
    names = []
    for name, feature in features.items():
        names.append(name)
        if isinstance(feature, dict):
            names += [f"{name}.{below}" for below in _names(feature)]
    return names
