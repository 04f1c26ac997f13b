"""Where a dataset directory lives: the few operations everything else is written in terms of.

A file becomes visible whole or not at all: it is written under a private name and published by one
atomic step. Two writers of the same name therefore leave one whole file, and since the bytes of
every file here are a function of the plan, it doesn't matter whose. Local paths for now; a store
needs the same seven verbs, with an object create in place of `os.replace`.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from shard_format import naming


class Directory:
    """A dataset directory on a local or mounted file system.

    Args:
        root: path of the directory; made on the first write.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        text = os.fspath(root)
        if "://" in text:
            raise ValueError(
                f"{text}: only local and mounted paths are supported so far, expected e.g. out/ or "
                "/data/corpus. Mount the bucket, or write locally and copy."
            )
        self.root = Path(text).expanduser().absolute()

    def __str__(self) -> str:
        return str(self.root)

    def path(self, name: str) -> Path:
        """Returns the local path of a file, which need not exist."""
        return self.root / name

    def exists(self, name: str) -> bool:
        """Says whether a published file (or a folder) of this name is there."""
        return self.path(name).exists()

    def size(self, name: str) -> int | None:
        """Returns the bytes of a file, None where there is none."""
        try:
            return self.path(name).stat().st_size
        except FileNotFoundError:
            return None

    def list(self, prefix: str = "") -> list[str]:
        """Returns the sorted names of the files below a folder, private ones left out."""
        top = self.path(prefix)
        return sorted(
            path.relative_to(self.root).as_posix()
            for path in top.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        )

    def read(self, name: str) -> bytes:
        """Returns the bytes of a file."""
        return self.path(name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Publishes data under name, atomically, in place of any earlier file."""
        with self.publishing(name) as private:
            private.write_bytes(data)

    def create(self, name: str, data: bytes) -> bool:
        """Publishes data under name, atomically, unless a file is there already.

        Returns:
            True for the one writer that made the file; False for all others, which changed nothing.
        """
        target = self.path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        private = target.with_name(f".{target.name}.{uuid.uuid4().hex}.private")
        try:
            private.write_bytes(data)
            _sync(private)
            os.link(private, target)
        except FileExistsError:
            return False
        finally:
            private.unlink(missing_ok=True)
        return True

    @contextlib.contextmanager
    def publishing(self, name: str, *, durable: bool = True) -> Iterator[Path]:
        """Yields a private local path; what is written there appears as `name` when the block ends.

        Args:
            name: inside the directory; folders are made.
            durable: flush to the disk first, so that the name survives a power cut with its
            content;
                False for temporary files, which a reader then has to check.

        Guarantees: nothing appears, and the private file is gone, when the block raises. A process
        killed inside leaves a private file behind that no reader lists; `remove_private` clears
        them.
        """
        target = self.path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        private = target.with_name(f".{target.name}.{uuid.uuid4().hex}.private")
        try:
            yield private
            if durable:
                _sync(private)
            private.replace(target)
        finally:
            private.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Removes a file or a folder with all below it; nothing happens where there is none."""
        path = self.path(name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def remove_private(self) -> None:
        """Removes the private files that killed writers left; call it while nobody writes."""
        for path in self.root.rglob(".*.private"):
            path.unlink(missing_ok=True)

    def check_writable(self) -> None:
        """Raises OSError, with the cause, when files can't be made here."""
        probe = f"{naming.WORK_DIRECTORY}/writable"
        self.write(probe, b"")
        self.remove(probe)


def _sync(path: Path) -> None:
    """Flushes a file to the disk, so that a name never outlives its content in a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
