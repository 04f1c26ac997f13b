"""Where a dataset directory lives: the few operations everything else is written in terms of.

A file becomes visible whole or not at all. Two writers of the same name therefore leave one whole
file, and since the bytes of every file here are a function of the plan, it doesn't matter whose.
Local and mounted paths keep this promise by a private name that is renamed (local_publish.py);
stores (gs://, s3://) keep it by an upload that makes its object in one step at its end
(store_directory.py).
"""

import abc
import contextlib
from pathlib import Path

import numpy as np

from shardstream.shard_format import naming


class Directory(abc.ABC):
    """A dataset directory; `open_directory(root)` gives one of the kind that root asks for."""

    @abc.abstractmethod
    def where(self, name: str) -> str:
        """Returns the full address of a file, for messages."""

    @abc.abstractmethod
    def local_path(self, name: str) -> Path | None:
        """Returns the path of a file, which need not exist; None where files are not local."""

    @abc.abstractmethod
    def size(self, name: str) -> int | None:
        """Returns the bytes of a file, None where there is none."""

    @abc.abstractmethod
    def list(self, prefix: str = "", *, recursive: bool = True) -> list[str]:
        """Returns the sorted names of the files below a folder, private ones left out.

        Args:
            prefix: the folder, "" for the whole directory.
            recursive: go into folders inside it.
        """

    @abc.abstractmethod
    def read(self, name: str) -> bytes:
        """Returns the bytes of a file; FileNotFoundError where there is none."""

    @abc.abstractmethod
    def read_range(self, name: str, begin: int, end: int) -> memoryview:
        """Returns bytes begin to end - 1 of a file; from a local disk mapped, not copied."""

    def read_into(self, name: str, begin: int, into: np.ndarray) -> None:
        """Fills uint8[n] with the n bytes of a file from begin on.

        Raises:
            OSError: the file is shorter.
        """
        data = self.read_range(name, begin, begin + len(into))
        if len(data) != len(into):
            raise OSError(too_short(self.where(name), begin, len(into), len(data)))
        into[:] = np.frombuffer(data, np.uint8)

    def release_range(self, name: str, begin: int, end: int) -> None:  # noqa: B027 (may do nothing)
        """Gives back the room that bytes begin to end - 1 take; they aren't read again.

        The size of the file stays. Nothing happens where storage can't do so.
        """

    @abc.abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Publishes data under name, atomically, unless a file is there already.

        Args:
            name: of the file.
            data: no two writers' alike. Where the answer of a store is lost, a file with these very
                bytes is how the writer knows that it was the one.

        Returns:
            True for the one writer that made the file; False for all others, which changed nothing.
        """

    @abc.abstractmethod
    def publishing(
        self, name: str, *, durable: bool = True
    ) -> contextlib.AbstractContextManager[Path]:
        """Yields a private local path; what is written there appears as `name` when the block ends.

        Args:
            name: inside the directory; folders are made.
            durable: flush to the disk first, so that the name survives a power cut with its
                content; False for temporary files, which a reader then has to check. A store keeps
                what it has acknowledged.

        Guarantees: nothing appears, and the private file is gone, when the block raises.
        """

    @abc.abstractmethod
    def publishing_folder(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Yields a local folder whose files stand in the folder `name` when the block ends.

        For a few small files that other libraries write; they appear one by one.
        """

    @abc.abstractmethod
    def fetching(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Yields a local path of a file or folder: its own, or a copy that ends with the block."""

    @abc.abstractmethod
    def remove(self, name: str) -> None:
        """Removes a file or a folder with all below it; nothing happens where there is none."""

    @abc.abstractmethod
    def remove_private(self) -> None:
        """Removes what killed writers left unpublished; call it while there are no writers."""

    def exists(self, name: str) -> bool:
        """Says whether a published file of this name is there."""
        return self.size(name) is not None

    def find(self, name: str) -> bytes | None:
        """Returns the bytes of a file, None where there is none."""
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Publishes data under name, atomically, in place of any earlier file."""
        with self.publishing(name) as private:
            private.write_bytes(data)

    def check_writable(self) -> None:
        """Raises OSError, with the cause, when files can't be made here."""
        probe = f"{naming.WORK_DIRECTORY}/writable"
        self.write(probe, b"")
        self.remove(probe)


def too_short(where: str, begin: int, expected: int, found: int) -> str:
    """Returns the message for a range of a file that isn't all there."""
    return (
        f"{where}: expected {expected} bytes from {begin} on, found {found}. The file was cut "
        "short or replaced while it was read; run the same command again."
    )
