"""What a command says when it cannot go on: whose mistake it is, in one line where that is known.

There are three kinds. An `OptionError` is the user's mistake: one line says what to write instead,
exit 2. What a file, a disk, a network or a store did is one line, exit 1. Anything else is a fault
of this project and keeps its traceback, exit 1. An exception of a worker is never taken for the
user's mistake.

Runners hand an exception on in different shapes: FnApiRunner as it was or as a RuntimeError with
its text, others as the text of a traceback. So a type is known by its qualified name.
"""

import builtins
import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator

from shardstream.pipelines.extras import missing_package
from shardstream.shard_format.errors import OptionError
from shardstream.transforms.errors import JobError, job_error_message

# Exceptions that the world outside causes, by the start of their qualified names.
_OUTSIDE = (
    "aiohttp.",
    "botocore.",
    "datasets.",
    "fsspec.",
    "google.api_core.",
    "google.auth.",
    "grpc.",
    "httpcore.",
    "httpx.",
    "huggingface_hub.",
    "lzma.",
    "_lzma.",
    "obstore.",
    "pyarrow.",
    "requests.",
    "urllib3.",
    "zipfile.",
    "zlib.",
    "zstd.",
    "zstandard.",
)
# Exceptions of this project's own types: they are raised on purpose, and their messages say it all.
_OWN = "shardstream."
_OUTSIDE_BUILTINS = (OSError, EOFError, MemoryError, UnicodeError)
_STEP = re.compile(r" \[while running '.*", re.DOTALL)
_RAISED = re.compile(r"^(?:RuntimeError: )*((?:\w+\.)*[A-Za-z]\w*): (.*)", re.MULTILINE | re.DOTALL)


@contextlib.contextmanager
def planning() -> Iterator[None]:
    """Makes OptionErrors of what opening the things that options name raises.

    A FileNotFoundError says that something named isn't there, a ValueError that it isn't as asked.
    """
    try:
        yield
    except OptionError:
        raise
    except (FileNotFoundError, ValueError) as error:
        raise OptionError(str(error)) from error


@contextlib.contextmanager
def running() -> Iterator[None]:
    """Makes JobErrors of the OptionErrors of workers: the options were checked before."""
    try:
        yield
    except OptionError as error:
        raise JobError(str(error)) from error


def guarded(command: str, body: Callable[[], int]) -> int:
    """Runs the body of a command; returns its exit status.

    Args:
        command: the command, such as "shardstream build", whose help is named in messages.
        body: returns the exit status.
    """
    try:
        return body()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return report(error, command)


def report(error: Exception, command: str) -> int:
    """Writes to stderr what an exception of a command means; returns the exit status.

    Args:
        error: what the command raised.
        command: the command, such as "shardstream build".
    """
    if isinstance(error, OptionError):
        print(f"error: {one_line(error)}\nsee '{command} --help'", file=sys.stderr)
        return 2
    message = describe_failure(error)
    if message is not None:
        print(f"error: {message}", file=sys.stderr)
        return 1
    traceback.print_exception(error)
    print(
        f"error: {type(error).__name__}, which is a fault of shardstream and not of an option; "
        "please report it with the lines above.",
        file=sys.stderr,
    )
    return 1


def describe_failure(error: Exception) -> str | None:
    """Returns one line on a failure that this project did not cause, None for any other."""
    message = job_error_message(error)
    if message is not None:
        return _STEP.sub("", message)
    if isinstance(error, ModuleNotFoundError):
        return missing_package(error)
    names, message = [_name_of(kind) for kind in type(error).__mro__], str(error)
    if type(error) is RuntimeError and (found := _raised_last(message)):
        names, message = [found[0]], found[1]
    if any(name.startswith(_OWN) for name in names):
        return one_line(message)
    outside = next(filter(_is_outside, names), None)
    return outside and f"{outside.rsplit('.', 1)[-1]}: {one_line(message)}"


def one_line(message: object) -> str:
    """Returns a message with its line breaks made spaces, and without the step it was raised in."""
    return " ".join(_STEP.sub("", str(message)).split())


def _raised_last(text: str) -> tuple[str, str] | None:
    """Returns qualified name and message of the exception at the end of a traceback's text."""
    frames = re.split(r"^ +(?:File \"|\^|~).*$", text, flags=re.MULTILINE)  # or their marks
    match = _RAISED.search(frames[-1])
    return (match[1], match[2]) if match else None


def _is_outside(name: str) -> bool:
    kind = getattr(builtins, name, None)
    if isinstance(kind, type):
        return issubclass(kind, _OUTSIDE_BUILTINS)
    return name.startswith(_OUTSIDE)


def _name_of(kind: type) -> str:
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"
