"""Opens a dataset by name, once, at the start: pins its commit, finds its columns and their types.

`datasets.load_dataset_builder` does the finding (hub repositories with configs, local directories,
globs, URLs); what it resolved is kept as plain data, so that workers read files by URL and never
list the hub again. Every mistake a user can make about a source ends here, with its own message.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import datasets
import fsspec

from shardstream.sources.builders import changed_settings, module_of, open_builder
from shardstream.sources.columns import resolve_columns
from shardstream.sources.count import num_rows_of
from shardstream.sources.errors import SourceError, border
from shardstream.sources.options import SourceOptions
from shardstream.sources.other_rows import units_of
from shardstream.sources.overlap import visible_files
from shardstream.sources.pins import commit_of, hub_place, pin_urls, repositories_of
from shardstream.sources.redact import redact
from shardstream.sources.spec import ReadSpec, SourceFile
from shardstream.sources.splits import SplitPiece, join_files, parse_split

__all__ = ["ReadSpec", "Source", "SourceFile", "list_files", "resolve"]

_STAT_THREADS = 16
_ITEMS_AT_ONCE = 256
_SAMPLE_BYTES = 1 << 16
_In = TypeVar("_In")
_Out = TypeVar("_Out")
_DEFAULT_DOCUMENT_MB = next(
    field.default for field in dataclasses.fields(SourceOptions) if field.name == "max_document_mb"
)


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
        repositories = repositories_of([file.url for file in self.files])
        is_by_url = any(url.startswith("hf://") for url in options.data_files)
        hub_name = ", ".join(repositories) if is_by_url else options.dataset
        # What was added later is named only where it is used: earlier plans keep their names.
        added = {
            "data_dir": options.data_dir,
            "reader_option": list(options.reader_option) or None,
            "max_document_mb": None
            if options.max_document_mb == _DEFAULT_DOCUMENT_MB
            else options.max_document_mb,
        }
        return {
            "dataset": hub_name if repositories else self.read_spec.module,
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
            **{name: value for name, value in added.items() if value is not None},
        }


@functools.lru_cache(maxsize=8)
def resolve(options: SourceOptions) -> Source:
    """Returns the pinned source.

    Raises:
        SourceError: unknown dataset, config, split or column, or a source of no files. Each message
            names what there is.
    """
    options = dataclasses.replace(options, data_files=pin_urls(options.data_files))
    builder = open_builder(options)
    urls, pieces, runs = _split_files(builder, options)
    files = _describe_files(urls)
    hub_commit = commit_of(repositories_of(urls))
    commit = hub_commit or _content_hash(files)
    spec = ReadSpec(
        module=module_of(builder),
        config=changed_settings(builder.config),
        columns=options.columns,
        text_template=options.text_template,
        max_document_bytes=options.max_document_mb << 20,
    )
    spec = resolve_columns(builder, options, files, spec)
    ranges = _ranges_of(pieces, runs, files, spec)
    if ranges:
        spec = dataclasses.replace(spec, ranges=ranges)
    return Source(
        options=dataclasses.replace(options, revision=hub_commit or options.revision),
        commit=commit,
        read_spec=spec,
        files=files,
        num_documents=_num_documents(builder, pieces, ranges),
    )


def list_files(options: SourceOptions) -> tuple[SourceFile, ...]:
    """Returns the source's files as they are now, indices in the order of their names; not cached.

    Raises:
        SourceError: as `resolve`, but columns are not looked at.
    """
    options = dataclasses.replace(options, data_files=pin_urls(options.data_files))
    urls, _, _ = _split_files(open_builder(options), options)
    return _describe_files(urls)


def _split_files(
    builder: datasets.DatasetBuilder, options: SourceOptions
) -> tuple[list[str], list[SplitPiece], list[tuple[int, int]]]:
    """Returns the files of the split, its pieces, and which files each piece has."""
    data_files = builder.config.data_files
    if not data_files:
        raise SourceError(
            f"dataset {options.dataset!r} has no data files; expected files that `datasets` "
            f"streams (parquet, jsonl, csv, text, ...). Give --data_files."
        )
    module = module_of(builder)
    splits = {
        str(split): visible_files(units_of(module, list(files)), options)
        for split, files in data_files.items()
    }
    pieces = parse_split(options.split, list(splits), options.dataset)
    files, runs = join_files(pieces, splits)
    if not files:
        raise SourceError(
            f"no file matches {', '.join(options.data_files)}. Check --data_files (quote "
            f"patterns, so that the shell leaves them alone)."
        )
    return files, pieces, runs


def _ranges_of(
    pieces: Sequence[SplitPiece],
    runs: Sequence[tuple[int, int]],
    files: Sequence[SourceFile],
    spec: ReadSpec,
) -> tuple[tuple[int, int, int, int | None], ...]:
    """Returns the spec's ranges; none where every file is read whole."""
    if not any(piece.is_sliced for piece in pieces):
        return ()
    ranges = []
    for piece, (begin, end) in zip(pieces, runs, strict=True):
        first_row, end_row = piece.rows(functools.partial(_sum_rows, tuple(files[begin:end]), spec))
        ranges.append((begin, end, first_row, end_row))
    return tuple(ranges)


def _sum_rows(files: Sequence[SourceFile], spec: ReadSpec) -> int:
    return sum(num_rows_of(files, spec))


def _num_documents(
    builder: datasets.DatasetBuilder,
    pieces: Sequence[SplitPiece],
    ranges: Sequence[tuple[int, int, int, int | None]],
) -> int | None:
    """Returns the documents of the split as the card counts them, None where it doesn't."""
    infos = builder.info.splits or {}
    total = 0
    for number, piece in enumerate(pieces):
        info = infos.get(piece.name)
        if info is None or not info.num_examples:
            return None
        first_row, end_row = ranges[number][2:] if ranges else (0, None)
        end_row = info.num_examples if end_row is None else min(end_row, info.num_examples)
        total += max(0, end_row - first_row)
    return total


def _describe_files(urls: list[str]) -> tuple[SourceFile, ...]:
    sizes = _map_in_threads(_size_of, urls)
    return tuple(
        SourceFile(index=index, url=url, name=_portable_name(url), bytes=size)
        for index, (url, size) in enumerate(zip(urls, sizes, strict=True))
    )


def _size_of(url: str) -> int | None:
    try:
        if "://" not in url:
            found = os.stat(url)  # noqa: PTH116 (a Path costs as much as the call)
            if not stat.S_ISDIR(found.st_mode):
                return found.st_size
        file_system, path = fsspec.core.url_to_fs(url)
        info = file_system.info(path)
        return file_system.du(path) if info["type"] == "directory" else info.get("size")
    except (OSError, ValueError):
        return None  # an HTTP server without Content-Length; reading it tells more


def _map_in_threads(function: Callable[[_In], _Out], items: Sequence[_In]) -> list[_Out]:
    """Returns function(item) of each; many items a thread at a time, as most take microseconds."""
    size = max(1, min(_ITEMS_AT_ONCE, len(items) // _STAT_THREADS))
    runs = [items[begin : begin + size] for begin in range(0, len(items), size)]
    with concurrent.futures.ThreadPoolExecutor(_STAT_THREADS) as pool:
        done = pool.map(lambda run: [function(item) for item in run], runs)
        return [found for run in done for found in run]


def _portable_name(url: str) -> str:
    place = hub_place(url)
    return place.path if place else redact(url).rsplit("/", 1)[-1]


def _content_hash(files: tuple[SourceFile, ...]) -> str:
    """Stands in for a commit: names, sizes, and each file's first and last 64 KiB."""
    return hashlib.sha256(b"".join(_map_in_threads(_digest, files))).hexdigest()[:40]


def _digest(file: SourceFile) -> bytes:
    state = hashlib.sha256(f"{file.name}\0{file.bytes}\0".encode())
    advice = "Check that the file is there and can be read, or leave it out with --data_files."
    with border(f"{file.url}: can't be opened", advice):
        for stream in _open_all(file.url):
            state.update(stream.read(_SAMPLE_BYTES))
            if file.bytes is not None and file.bytes > _SAMPLE_BYTES:
                stream.seek(max(_SAMPLE_BYTES, file.bytes - _SAMPLE_BYTES))
                state.update(stream.read(_SAMPLE_BYTES))
    return state.digest()


def _open_all(url: str) -> Iterator[IO[bytes]]:
    """Opens a file, or all files of a folder that counts as one."""
    if "://" not in url and not Path(url).is_dir():
        with open(url, "rb") as stream:
            yield stream
        return
    file_system, path = fsspec.core.url_to_fs(url)
    for name in file_system.find(path):
        with file_system.open(name, "rb") as stream:
            yield cast(IO[bytes], stream)
