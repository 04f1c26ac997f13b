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

_MAGIC = frozenset("*?[")
# Names under which other tools know the same stores.
_SAME_SCHEME = {"gcs": "gs", "s3a": "s3", "s3n": "s3"}


def refuse_overlap(
    output: str,
    *,
    dataset: str = "",
    data_dir: str | None = None,
    data_files: Sequence[str] = (),
    files: Iterable[str] = (),
) -> None:
    """Raises where an output and its source lie in each other.

    Args:
        output: directory or store address to be written.
        dataset: directory or store address of the dataset; other names have no place to compare.
        data_dir: folder below it.
        data_files: paths, addresses or patterns of the source.
        files: addresses of the source's files, where they are listed already.

    Raises:
        ValueError: names both places.
    """
    target = _place(output)
    if dataset and (_scheme_of(dataset) or Path(dataset).is_dir()) and not data_files:
        _refuse_inside(output, target, posixpath.join(dataset, data_dir or ""))
    for pattern in data_files:
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


def visible_files(urls: Sequence[str], root: str) -> list[str]:
    """Returns the files of a dataset directory that lie in no hidden folder and no `_` folder."""
    depth = len(_place(root))
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
