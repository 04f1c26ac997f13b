"""Commits of a loopback hub's repositories, and how the Hub's answers describe them."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_LFS_SUFFIXES = (".parquet", ".arrow", ".gz", ".zst", ".bin", ".safetensors")  # as .gitattributes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blob:
    """One file of a commit and where its bytes are kept."""

    path: str
    size_bytes: int
    sha256: str
    stored_at: Path

    @property
    def is_lfs(self) -> bool:
        return self.path.endswith(_LFS_SUFFIXES)

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.sha256[:40]

    def entry(self) -> dict[str, Any]:
        """The file as the Hub's tree and paths-info answers describe it."""
        fields = {
            "type": "file",
            "path": self.path,
            "size": self.size_bytes,
            "oid": self.sha256[:40],
        }
        if self.is_lfs:
            fields["lfs"] = {"oid": self.sha256, "size": self.size_bytes, "pointerSize": 134}
        return fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Commit:
    """An immutable version of a repository: its sha and its files by path, sorted."""

    sha: str
    files: Mapping[str, Blob]

    def entries(self, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
        """Files and directories under `folder` ("" is the root), in path order."""
        prefix = folder + "/" if folder else ""
        found: dict[str, dict[str, Any]] = {}
        for path, blob in self.files.items():
            if not path.startswith(prefix):
                continue
            parts = path.removeprefix(prefix).split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                directory = prefix + "/".join(parts[:depth])
                found[directory] = directory_entry(directory)
            if recursive or len(parts) == 1:
                found[path] = blob.entry()
        return [found[path] for path in sorted(found)]

    def paths_info(self, paths: Iterable[str]) -> list[dict[str, Any]]:
        """Those of `paths` that exist, as file or directory entries."""
        wanted = [path.strip("/") for path in paths]
        found = [self.files[path].entry() for path in wanted if path in self.files]
        folders = {str(parent) for path in self.files for parent in Path(path).parents}
        return found + [directory_entry(path) for path in wanted if path in folders]


def directory_entry(path: str) -> dict[str, Any]:
    """A directory as the Hub's tree and paths-info answers describe it."""
    oid = hashlib.sha1(path.encode()).hexdigest()
    return {"type": "directory", "path": path, "size": 0, "oid": oid}
