"""What goes wrong at the border to `datasets`, fsspec and Arrow, in one line that says where.

Two kinds are told apart. Damage is in the bytes of a file: reading it again gives the same, so what
it hides can only be counted as lost. Everything else (network, rights, a missing file) is no fact
about the data: it is raised, and whoever runs the job may try again.
"""

import contextlib
import tarfile
import zlib
from collections.abc import Iterator

import pyarrow as pa

from shardstream.shard_format.messages import first_line
from shardstream.sources.redact import redact


class SourceError(ValueError):
    """The source can't be read as asked; the message says expected, found, where and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class EndsTooEarlyError(EOFError):
    """A file ends before the place where it should; how much is missing can't be known."""


class PackedDataError(EndsTooEarlyError):
    """Compressed data end too early or are damaged."""


@contextlib.contextmanager
def border(where: str, advice: str) -> Iterator[None]:
    """Turns whatever a library raises inside into a SourceError.

    Args:
        where: the file or dataset, and the part of it that was read.
        advice: what the user can do, as a sentence.
    """
    try:
        yield
    except (SourceError, MemoryError):
        raise
    except Exception as error:
        kind = (
            ""
            if isinstance(error, ValueError | OSError | EndsTooEarlyError)
            else f"{type(error).__name__}: "
        )
        cause = error.__cause__ or error
        raise SourceError(f"{where}: {kind}{first_line(cause).rstrip('.')}. {advice}") from error


def is_damage(error: BaseException) -> bool:
    """Says whether an error tells of a file's bytes rather than of the way to them.

    The end of a compressed stream that is cut short counts as neither: how much is missing can't be
    known, so it must stop the job.
    """
    if isinstance(error, EOFError | zlib.error):
        return False
    if isinstance(error, UnicodeError | tarfile.TarError | pa.ArrowInvalid | pa.ArrowTypeError):
        return True
    if isinstance(error, pa.ArrowNotImplementedError | pa.ArrowKeyError | pa.ArrowIndexError):
        return True
    # Arrow raises a bare OSError for pages that don't decompress or don't parse.
    return type(error) is OSError and error.errno is None
