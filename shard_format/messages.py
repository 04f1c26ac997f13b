"""Phrases that error messages share, so that the same mistake reads the same everywhere.

An error says what was found, what was expected, where, and what to do about it.
"""

import re
from collections.abc import Iterable

from shardstream.shard_format.errors import OptionError

_LONGEST_LINE = 500  # characters; clients of stores quote whole pages of a server's answer


def first_line(error: object) -> str:
    """Returns what an error says on its first line, for use inside another message.

    Args:
        error: usually an exception; libraries append traces and internals on further lines.

    Returns:
        The first line that isn't blank, runs of white space made one space, cut to 500 characters;
        the name of the error's type where it says nothing.
    """
    for line in str(error).splitlines():
        if text := re.sub(r"\s+", " ", line).strip():
            return text[:_LONGEST_LINE]
    return type(error).__name__


def require_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Checks an option that takes one of a few words.

    Args:
        name: of the option, as the user wrote it.
        value: what the user gave.
        choices: the words it may be, in the order in which the message lists them.

    Raises:
        OptionError: value is none of them.
    """
    choices = tuple(choices)
    if value not in choices:
        raise OptionError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
