"""Refuses an output inside its source, or a source inside its output, by the paths meant.

An output that the next reading of the source would list as documents, and a source that a build
would write into, are both mistakes that show only later. Paths are compared after links, `..` and
relative names are resolved; store addresses by bucket and path. Hidden folders and folders that
begin with `_` hold work in progress, so they are never sources of a dataset directory.
"""

import fnmatch
import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from shardstream.sources.options import SourceOptions

_MAGIC = frozenset("*?[")
# Names under which other tools know the same stores.
_SAME_SCHEME = {"gcs": "gs", "s3a": "s3", "s3n": "s3"}


def refuse_overlap(output: str, source: SourceOptions, files: Iterable[str] = ()) -> None:
    """Raises where an output and its source lie in each other.

    Args:
        output: directory or store address to be written.
        source: as the user names it; a dataset of the hub has no place to compare.
        files: addresses of the source's files, where they are listed already.

    Raises:
        ValueError: names both places.
    """
    target = _place(output)
    folder = dataset_folder(source)
    if folder is not None:
        _refuse_inside(output, target, folder)
    for pattern in source.data_files:
        if any(c in _MAGIC for c in pattern):
            root = _place(pattern_root(pattern))
            if _is_inside(target, root) and _reaches(_below(pattern), target[len(root) :]):
                raise ValueError(
                    f"--output {output}: lies where --data_files {pattern} looks for documents, "
                    "expected a place of its own. Choose another output directory."
                )
    for file in files:
        place = _place(file)
        if _is_inside(place, target):
            raise ValueError(
                f"--output {output}: holds a file of the source, {posixpath.basename(file)}, "
                "expected a directory of its own. Choose another output directory."
            )


def dataset_folder(source: SourceOptions) -> str | None:
    """Returns the directory or store address that is the dataset, None where there is none."""
    is_folder = "://" in source.dataset or Path(source.dataset).is_dir()
    if source.data_files or not is_folder or source.dataset.startswith("hf://"):
        return None
    return posixpath.join(source.dataset, source.data_dir or "")


def visible_files(urls: Sequence[str], source: SourceOptions) -> list[str]:
    """Returns a source's files; of a dataset directory, none in a hidden folder or a `_` folder."""
    folder = dataset_folder(source)
    if folder is None:
        return list(urls)
    depth = len(_place(folder))
    return [
        url
        for url in urls
        if not any(name.startswith((".", "_")) for name in _place(url)[depth:-1])
    ]


def pattern_root(pattern: str) -> str:
    """Returns the folder of a pattern below which all that it matches lies."""
    names = pattern.split("/")
    fixed = next((i for i, name in enumerate(names) if _MAGIC & set(name)), len(names))
    return "/".join(names[:fixed]) or ("/" if pattern.startswith("/") else ".")


def _below(pattern: str) -> list[str]:
    names = pattern.split("/")
    fixed = next((i for i, name in enumerate(names) if _MAGIC & set(name)), len(names))
    return names[fixed:]


def _refuse_inside(output: str, target: tuple[str, ...], folder: str) -> None:
    if _is_inside(target, _place(folder)):
        raise ValueError(
            f"--output {output}: lies in the source, {folder}, so that the dataset would be read "
            "as documents; expected a place of its own. Choose another output directory."
        )


def _is_inside(place: tuple[str, ...], folder: tuple[str, ...]) -> bool:
    """Says whether a place is a folder or lies below it."""
    return place[: len(folder)] == folder


def _reaches(pattern: list[str], below: Sequence[str]) -> bool:
    """Says whether a pattern can match a file in the folder `below` its root, or deeper."""
    if not pattern:
        return False
    if "**" in pattern[0]:
        return True
    if not below:
        return True
    return fnmatch.fnmatch(below[0], pattern[0]) and _reaches(pattern[1:], below[1:])


def _scheme_of(address: str) -> str:
    scheme = urlsplit(address).scheme if "://" in address else ""
    return "" if scheme in ("file", "local") else _SAME_SCHEME.get(scheme, scheme)


def _place(address: str) -> tuple[str, ...]:
    """Returns what names a place alone: the scheme, then the resolved path name by name."""
    scheme = _scheme_of(address)
    if scheme:
        path = posixpath.normpath(address.split("://", 1)[1])
        return (scheme, *(name for name in path.split("/") if name))
    if "://" in address:
        address = unquote(address.split("://", 1)[1])
    return ("", *Path(address).expanduser().resolve().parts)
