"""Opens a dataset by name with `datasets`, and puts every way in which that fails into a line.

Folders that `Dataset.save_to_disk` wrote are found here as well; `load_dataset` refuses them.
"""

import ast
import dataclasses
import difflib
import json
import re
from pathlib import Path
from typing import Any

import datasets
import fsspec
from datasets.exceptions import DatasetNotFoundError

from shardstream.shard_format.messages import first_line
from shardstream.sources.errors import SourceError, border
from shardstream.sources.options import SourceOptions
from shardstream.sources.rows import AnyValue

# Settings of a reader that say what to read rather than how to parse it.
_OWN_OPTIONS = {
    "features": "the dataset's card says them",
    "columns": "give --text_column or --text_template",
    "filters": "every document is read",
    "data_files": "give --data_files",
    "data_dir": "give --data_dir",
    "name": "give --config",
    "version": "give --revision",
}


def open_builder(options: SourceOptions) -> datasets.DatasetBuilder:
    """Returns the builder of a dataset, its files listed and its hub commit pinned.

    Raises:
        SourceError: there is no such dataset, config or reader setting, or it can't be reached.
    """
    saved = _saved_files(options)
    if saved is not None:
        return datasets.load_dataset_builder("arrow", data_files=saved)
    settings = _reader_settings(options)
    advice = "Check the name, --config, --data_dir, --data_files and --reader_option."
    with border(f"dataset {options.dataset!r}", advice):
        try:
            return datasets.load_dataset_builder(
                options.dataset,
                options.config,
                data_dir=options.data_dir,
                data_files=list(options.data_files) or None,
                revision=options.revision,
                **settings,
            )
        except Exception as error:
            message = _explain(error, options)
            if message is None:
                raise
            raise SourceError(message) from error


def _explain(error: Exception, options: SourceOptions) -> str | None:
    """Returns the message for a failure to open a dataset, None where there is no better one."""
    text, name = str(error), f"dataset {options.dataset!r}"
    if isinstance(error, DatasetNotFoundError):
        cause = str(error.__cause__ or error)
        if "gated" in f"{error} {cause}".lower():
            return (
                f"{name} is gated: ask for access on its hub page, then set HF_TOKEN or run `hf "
                "auth login`."
            )
        revision = f", revision {options.revision!r}," if options.revision else ""
        return (
            f"{name}{revision} was not found on the hub or as a local directory "
            f"({first_line(cause)}). Check the name and --revision; private ones need HF_TOKEN."
        )
    if "scripts are no longer supported" in text:
        return (
            f"{name} is a script ({first_line(error)}), expected data files: `datasets` runs no "
            "scripts any more. Look for a branch with parquet files (--revision refs/convert/"
            "parquet), or give the files by --data_files."
        )
    if isinstance(error, FileNotFoundError):
        return (
            f"{name}: {first_line(error)} Expected a hub name (owner/name), a directory of data "
            "files, or a format (parquet, json, csv, text) with --data_files."
        )
    if isinstance(error, ValueError):
        available = re.search(r"[Aa]vailable[^\[]*(\[.*\])", text, re.S)
        if "doesn't have a" in text and "key" in text:
            return f"{name}: {first_line(error)} Check --reader_option."
        if "BuilderConfig" in text or "onfig name is missing" in text:
            found = f", expected one of {available[1]}" if available else f" ({first_line(error)})"
            return f"{name} has no config {options.config!r}{found}. Give --config."
    if isinstance(error, ConnectionError):
        return (
            f"{name}: the hub can't be reached ({first_line(error)}). Check the network, "
            "HF_ENDPOINT and HF_HUB_OFFLINE, or give a local directory."
        )
    return None


def _reader_settings(options: SourceOptions) -> dict[str, Any]:
    """Returns the reader settings asked for, each of the type that the reader wants."""
    settings: dict[str, Any] = {}
    if not options.reader_option:
        return settings
    fields = _config_fields(options)
    for text in options.reader_option:
        name, _, value = text.partition("=")
        if name in _OWN_OPTIONS:
            raise SourceError(f"reader_option {text!r} is none of the reader: {_OWN_OPTIONS[name]}")
        if fields and name not in fields:
            near = difflib.get_close_matches(name, fields, n=3, cutoff=0.4) or sorted(fields)
            raise SourceError(
                f"reader_option {text!r}: the reader has no {name!r}, expected one of "
                f"{', '.join(near)}."
            )
        settings[name] = _parse_value(value, fields.get(name))
    return settings


def _config_fields(options: SourceOptions) -> dict[str, Any]:
    """Returns the reader's settings with their defaults; none where the reader can't be told."""
    plain = dataclasses.replace(options, reader_option=())
    config = open_builder(plain).config
    common = {field.name for field in dataclasses.fields(datasets.BuilderConfig)}
    return {
        field.name: field
        for field in dataclasses.fields(config)
        if field.name not in common and field.name not in _OWN_OPTIONS
    }


def _parse_value(text: str, field: AnyValue) -> AnyValue:
    """Returns a setting's value; in text, backslash sequences stand for what they mean."""
    wanted = str(field.type) if field is not None else "str"
    if text in ("None", "none", "null"):
        return None
    if "bool" in wanted and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if wanted not in ("<class 'str'>", "str", "typing.Optional[str]"):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            pass
    return _unescape(text)


def _unescape(text: str) -> str:
    for written, meant in (("\\t", "\t"), ("\\n", "\n"), ("\\r", "\r"), ("\\0", "\0")):
        text = text.replace(written, meant)
    return text


def module_of(builder: datasets.DatasetBuilder) -> str:
    """Returns the name of the packaged reader."""
    return builder.__module__.rsplit(".", 1)[-1]


def changed_settings(config: datasets.BuilderConfig) -> tuple[tuple[str, Any], ...]:
    """Returns the reader settings that a dataset's card or the user makes, e.g. a separator."""
    own = {field.name for field in dataclasses.fields(datasets.BuilderConfig)}
    return tuple(
        (field.name, getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.name not in own | {"features", "columns"}
        and getattr(config, field.name) != field.default
        and field.default is not dataclasses.MISSING
    )


def _saved_files(options: SourceOptions) -> dict[str, list[str]] | None:
    """Returns the files by split of a folder from `save_to_disk`, None for other sources."""
    if options.data_files or options.config or "\n" in options.dataset:
        return None
    root = options.dataset.rstrip("/")
    if options.data_dir:
        root = f"{root}/{options.data_dir.strip('/')}"
    if root.startswith("hf://") or ("://" not in root and not Path(root).expanduser().is_dir()):
        return None
    try:
        file_system, path = fsspec.core.url_to_fs(root)
        if file_system.exists(f"{path}/dataset_dict.json"):
            with file_system.open(f"{path}/dataset_dict.json", "rb") as stream:
                splits = json.load(stream)["splits"]
            return {split: _saved_split(file_system, f"{root}/{split}") for split in splits}
        if not file_system.exists(f"{path}/state.json"):
            return None
        if not file_system.exists(f"{path}/dataset_info.json"):
            return None
        with file_system.open(f"{path}/state.json", "rb") as stream:
            if "_data_files" not in json.load(stream):
                return None
        return {options.split.split("[")[0]: _saved_split(file_system, root)}
    except (OSError, ValueError, ImportError, KeyError):
        return None


def _saved_split(file_system: fsspec.AbstractFileSystem, root: str) -> list[str]:
    _, path = fsspec.core.url_to_fs(root)
    with file_system.open(f"{path}/state.json", "rb") as stream:
        state = json.load(stream)
    base = root if "://" in root else str(path)
    return [f"{base}/{entry['filename']}" for entry in state["_data_files"]]
