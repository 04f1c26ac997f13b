"""Opens a dataset by name, once, at the start: pins its commit, checks its columns.

`datasets.load_dataset_builder` does the finding (hub repositories with configs, local directories,
globs, URLs); what it resolved is kept as plain data, so that workers read files by URL and never
list the hub again. Every mistake a user can make about a source ends here, with its own message.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import re
from typing import Any

import datasets
import fsspec
import pyarrow as pa
from datasets.exceptions import DatasetNotFoundError
from shardstream.sources.options import SourceOptions

_HUB_URL = re.compile(r"hf://datasets/(?P<repo>[^@]+)@(?P<commit>[0-9a-f]{40})/(?P<path>.*)")
_STAT_THREADS = 16
_SAMPLE_BYTES = 1 << 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file of the source; its index is the `partition` of its documents.

    Attributes:
        index: place in the stream, from 0.
        url: what fsspec opens; hub URLs hold the pinned commit.
        name: path without what differs between machines.
        bytes: size, None where the server doesn't tell.
    """

    index: int
    url: str
    name: str
    bytes: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadSpec:
    """How to read the files of a source; small, and all a worker needs beside a partition.

    Attributes:
        module: the packaged reader of `datasets` ("parquet", "json", "csv", "text", ...).
        config: its settings that differ from the defaults, as (name, value) pairs.
        columns: the columns wanted.
        text_template: joins the columns; None where the one column is the text.
    """

    module: str
    config: tuple[tuple[str, Any], ...]
    columns: tuple[str, ...]
    text_template: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A pinned source.

    Attributes:
        options: as given, with `revision` set to the pinned commit.
        commit: hub commit, or a hash of names, sizes and samples for other files.
        read_spec: how workers read the files.
        files: in the order of the stream.
        num_documents: of the split, where the dataset's card says it.
    """

    options: SourceOptions
    commit: str
    read_spec: ReadSpec
    files: tuple[SourceFile, ...]
    num_documents: int | None

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the documents and their order, for the manifest and the plan."""
        options = self.options
        is_hub = _HUB_URL.match(self.files[0].url) is not None
        return {
            "dataset": options.dataset if is_hub else self.read_spec.module,
            "config": options.config,
            "split": options.split,
            "commit": self.commit,
            "num_files": len(self.files),
            "first_file": self.files[0].name,
            "format": self.read_spec.module,
            "text_column": None if options.text_template else options.text_column,
            "text_template": options.text_template,
            "skip_documents": options.skip_documents,
            "max_documents": options.max_documents,
        }


@functools.lru_cache(maxsize=8)
def resolve(options: SourceOptions) -> Source:
    """Returns the pinned source.

    Raises:
        ValueError: unknown dataset, config, split or column, or a source of no files. Each message
            names what there is.
    """
    builder = _open_builder(options)
    urls = _split_files(builder, options)
    files = _describe_files(urls)
    match = _HUB_URL.match(files[0].url)
    commit = match["commit"] if match else _content_hash(files)
    _check_columns(builder, options)
    info = (builder.info.splits or {}).get(options.split)
    return Source(
        options=dataclasses.replace(options, revision=commit if match else options.revision),
        commit=commit,
        read_spec=ReadSpec(
            module=builder.__module__.rsplit(".", 1)[-1],
            config=_changed_settings(builder.config),
            columns=options.columns,
            text_template=options.text_template,
        ),
        files=files,
        num_documents=info.num_examples if info is not None and info.num_examples else None,
    )


def list_files(options: SourceOptions) -> tuple[SourceFile, ...]:
    """Returns the source's files as they are now, indices in the order of their names; not cached.

    Raises:
        ValueError: as `resolve`, but columns are not looked at.
    """
    return _describe_files(_split_files(_open_builder(options), options))


def _open_builder(options: SourceOptions) -> datasets.DatasetBuilder:
    try:
        return datasets.load_dataset_builder(
            options.dataset,
            options.config,
            data_files=list(options.data_files) or None,
            revision=options.revision,
        )
    except DatasetNotFoundError as error:
        cause = str(error.__cause__ or error)
        if "gated" in f"{error} {cause}".lower():
            raise ValueError(
                f"dataset {options.dataset!r} is gated: ask for access on its hub page, then set "
                "HF_TOKEN or run `hf auth login`."
            ) from error
        revision = f", revision {options.revision!r}," if options.revision else ""
        raise ValueError(
            f"dataset {options.dataset!r}{revision} was not found on the hub or as a local "
            f"directory "
            f"({_first_line(cause)}). Check the name and --revision; private ones need HF_TOKEN."
        ) from error
    except FileNotFoundError as error:
        raise ValueError(
            f"dataset {options.dataset!r}: {_first_line(error)} Expected a hub name "
            f"(owner/name), a "
            "directory of data files, or a format (parquet, json, csv, text) with --data_files."
        ) from error
    except ValueError as error:
        available = re.search(r"[Aa]vailable[^\[]*(\[.*\])", str(error), re.S)
        if "BuilderConfig" in str(error) or "onfig name is missing" in str(error):
            found = f", expected one of {available[1]}" if available else f" ({_first_line(error)})"
            raise ValueError(
                f"dataset {options.dataset!r} has no config {options.config!r}{found}. Give "
                f"--config."
            ) from error
        raise ValueError(f"dataset {options.dataset!r}: {_first_line(error)}") from error
    except ConnectionError as error:
        raise ValueError(
            f"dataset {options.dataset!r}: the hub can't be reached ({_first_line(error)}). "
            f"Check the "
            "network, HF_ENDPOINT and HF_HUB_OFFLINE, or give a local directory."
        ) from error


def _split_files(builder: datasets.DatasetBuilder, options: SourceOptions) -> list[str]:
    data_files = builder.config.data_files
    if not data_files:
        raise ValueError(
            f"dataset {options.dataset!r} has no data files; expected files that `datasets` "
            f"streams "
            "(parquet, jsonl, csv, text, ...). Give --data_files."
        )
    splits = {str(split): list(files) for split, files in data_files.items()}
    if options.split not in splits:
        raise ValueError(
            f"dataset {options.dataset!r} has no split {options.split!r}, expected one of "
            f"{', '.join(sorted(splits))}. Give --split."
        )
    if not splits[options.split]:
        raise ValueError(
            f"no file matches {', '.join(options.data_files)}. Check --data_files (quote "
            f"patterns, so "
            "that the shell leaves them alone)."
        )
    return splits[options.split]


def _describe_files(urls: list[str]) -> tuple[SourceFile, ...]:
    def size_of(url: str) -> int | None:
        file_system, path = fsspec.core.url_to_fs(url)
        try:
            return file_system.info(path).get("size")
        except (OSError, ValueError):
            return None  # an HTTP server without Content-Length; reading it tells more

    with concurrent.futures.ThreadPoolExecutor(_STAT_THREADS) as pool:
        sizes = list(pool.map(size_of, urls))
    return tuple(
        SourceFile(index=index, url=url, name=_portable_name(url), bytes=size)
        for index, (url, size) in enumerate(zip(urls, sizes, strict=True))
    )


def _portable_name(url: str) -> str:
    match = _HUB_URL.match(url)
    return match["path"] if match else url.rsplit("/", 1)[-1]


def _content_hash(files: tuple[SourceFile, ...]) -> str:
    """Stands in for a commit: names, sizes, and each file's first and last 64 KiB."""

    def digest(file: SourceFile) -> bytes:
        state = hashlib.sha256(f"{file.name}\0{file.bytes}\0".encode())
        with fsspec.open(file.url, "rb") as stream:
            state.update(stream.read(_SAMPLE_BYTES))
            if file.bytes is not None and file.bytes > _SAMPLE_BYTES:
                stream.seek(max(_SAMPLE_BYTES, file.bytes - _SAMPLE_BYTES))
                state.update(stream.read(_SAMPLE_BYTES))
        return state.digest()

    with concurrent.futures.ThreadPoolExecutor(_STAT_THREADS) as pool:
        return hashlib.sha256(b"".join(pool.map(digest, files))).hexdigest()[:40]


def _first_file(builder: datasets.DatasetBuilder, split: str) -> str:
    """Returns ", its address,", nothing for builders that don't tell."""
    files = (builder.config.data_files or {}).get(split) or ()
    return f", {files[0]}," if files else ""


def _check_columns(builder: datasets.DatasetBuilder, options: SourceOptions) -> None:
    """Compares the columns asked for with the card's, or else the first file's."""
    features = builder.info.features
    if features is None:
        try:
            stream = builder.as_streaming_dataset(split=options.split)
            features = stream.features or stream._resolve_features().features
        except StopIteration:
            features = None
        except (ValueError, pa.ArrowInvalid, OSError) as error:
            raise ValueError(
                f"dataset {options.dataset!r}: its first file{_first_file(builder, options.split)} "
                f"can't be read as {builder.__module__.rsplit('.', 1)[-1]}: "
                f"{_first_line(error.__cause__ or error)}. Mend the file, or leave it out with "
                "--data_files."
            ) from error
    if not features:
        raise ValueError(
            f"dataset {options.dataset!r}, split {options.split!r}: no documents at all; its "
            "files are empty."
        )
    for column in options.columns:
        if column not in features:
            option = "--text_template" if options.text_template else "--text_column"
            raise ValueError(
                f"dataset {options.dataset!r} has no column {column!r}, expected one of "
                f"{', '.join(features)}. Give {option}."
            )
        kind = features[column]
        dtype = getattr(kind, "dtype", type(kind).__name__)
        is_json = type(kind).__name__ == "Json"
        if dtype not in ("string", "large_string", "string_view", "null") and not is_json:
            raise ValueError(
                f"column {column!r} of dataset {options.dataset!r} is {dtype}, expected text. Text "
                f"columns: {', '.join(_text_columns(features)) or 'none'}."
            )


def _text_columns(features: datasets.Features) -> list[str]:
    return [name for name, kind in features.items() if "string" in str(getattr(kind, "dtype", ""))]


def _changed_settings(config: datasets.BuilderConfig) -> tuple[tuple[str, Any], ...]:
    """Returns the reader settings a dataset's card makes, e.g. a csv's separator."""
    own = {field.name for field in dataclasses.fields(datasets.BuilderConfig)}
    return tuple(
        (field.name, getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.name not in own | {"features", "columns"}
        and getattr(config, field.name) != field.default
        and field.default is not dataclasses.MISSING
    )


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
