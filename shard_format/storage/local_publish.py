"""Files and folders on a local file system that appear under their name whole or not at all.

Both are made under a private name in the same folder and renamed at the end, a step that the file
system does at once. A process that is killed leaves its private file or folder under a name that
nothing reads: `.NAME.<32 hex digits>.private`. The names of two processes never collide.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

PRIVATE_PATTERN = ".*.private"


def private_name(target: Path) -> Path:
    """Returns a name beside the target that no other process uses; its folder is made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.private")


@contextlib.contextmanager
def publishing_file(target: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yields a private path; what is written there replaces the target when the block ends.

    Args:
        target: the path that readers open; its folder is made.
        durable: flush to the disk first, so that the name survives a power cut with its content.

    Guarantees: nothing appears, and the private file is gone, when the block raises.
    """
    private = private_name(target)
    try:
        yield private
        if durable:
            sync(private)
        private.replace(target)
    finally:
        private.unlink(missing_ok=True)


@contextlib.contextmanager
def publishing_folder(target: Path) -> Iterator[Path]:
    """Yields an empty private folder, which becomes the target when the block ends.

    Where another process has published the target in the meantime, that one stays and this one is
    removed: use it for folders whose content follows from their name.

    Guarantees: nothing appears, and the private folder is gone, when the block raises.
    """
    private = private_name(target)
    private.mkdir()
    try:
        yield private
        try:
            private.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(private, ignore_errors=True)


def sync(path: Path) -> None:
    """Flushes a file to the disk, so that a name never outlives its content in a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
