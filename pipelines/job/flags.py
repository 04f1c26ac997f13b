"""Command-line flags made from the fields of options dataclasses, and options from parsed flags.

An option is written once, as a field: the flag has its name, type and default, its choices where
the type is a `Literal`, and the text of the class's `Attributes:` as help. What a field cannot say
(another name on the command line, a value with escapes) stands in a `Flag` beside it.
"""

import argparse
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn, TypeVar

from shardstream.shard_format.errors import OptionError

Options = TypeVar("Options")

_METAVARS = {int: "N", float: "X", str: "TEXT"}
# Fields that hold pairs, such as --reader_option sep=, --reader_option encoding=latin-1.
_PAIRS = (tuple[tuple[str, str], ...], Mapping[str, str], dict[str, str])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flag:
    """What a flag has that its field doesn't say.

    Attributes:
        name: on the command line, without dashes; None for the field's own.
        choices: the values there are, for a field whose type isn't a `Literal`.
        parse: makes the value from the text, for fields of strings.
    """

    name: str | None = None
    choices: tuple[str, ...] | None = None
    parse: Callable[[str], str] = str


Flags = Mapping[str, Flag]


class FlagParser(argparse.ArgumentParser):
    """An argument parser that raises where argparse prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        """Raises OptionError."""
        raise OptionError(message)

    @property
    def names(self) -> list[str]:
        """Every flag with its dashes, aliases and `--no-` forms included."""
        return [name for action in self._actions for name in action.option_strings]

    @property
    def flags(self) -> dict[str, argparse.Action]:
        """The action of every flag."""
        return {name: action for action in self._actions for name in action.option_strings}


class HelpFormatter(argparse.HelpFormatter):
    """Adds the default to a help text wherever there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        is_told = "%(default)" in (action.help or "")
        if is_told or action.default in (None, (), [], argparse.SUPPRESS):
            return action.help
        return f"{action.help} (default: %(default)s)"


def add_flags(group: argparse._ArgumentGroup, options: type, *, flags: Flags | None = None) -> None:
    """Adds a flag for every field of a dataclass."""
    for field in dataclasses.fields(options):
        add_flag(group, options, field.name, flag=(flags or {}).get(field.name))


def add_flag(
    group: argparse._ArgumentGroup, options: type, name: str, *, flag: Flag | None = None
) -> None:
    """Adds the flag of one field of a dataclass."""
    flag = flag or Flag()
    (field,) = (field for field in dataclasses.fields(options) if field.name == name)
    default = _default_of(field)
    words = _kind_of(typing.get_type_hints(options)[name], flag, name)
    words |= {"required": True} if default is dataclasses.MISSING else {"default": default}
    text = describe_fields(options).get(name, "").replace("%", "%%")
    group.add_argument(f"--{flag.name or name}", help=text, **words)


def read_flags(
    options: type[Options],
    parsed: argparse.Namespace,
    *,
    flags: Flags | None = None,
) -> Options:
    """Returns the options that a parser with the flags of a dataclass has parsed.

    Raises:
        OptionError: a value is out of range; a ValueError of the dataclass becomes one.
    """
    values: dict[str, object] = {}
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        value = getattr(parsed, (flags or {}).get(field.name, Flag()).name or field.name)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    try:
        return options(**values)
    except OptionError:
        raise
    except ValueError as error:
        raise OptionError(str(error)) from error


def describe_fields(options: type) -> dict[str, str]:
    """Returns what the docstring's `Attributes:` says of each field, a line each."""
    _, _, section = (inspect.getdoc(options) or "").partition("Attributes:\n")
    texts: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if match := re.match(r" {4}(\w+): (.*)", line):
            name, texts[match[1]] = match[1], match[2]
        elif name and line.startswith(" " * 8):
            texts[name] += f" {line.strip()}"
        else:
            break
    return texts


def unescape(text: str) -> str:
    r"""Returns text in which a shell user may write \n and \t."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _kind_of(hint: object, flag: Flag, name: str) -> dict[str, Any]:
    """Returns argparse's words for a field's type."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else flag.choices
    if choices:
        return {"choices": choices}
    if hint in _PAIRS:
        return {"action": "append", "type": _pair, "metavar": "NAME=VALUE"}
    if hint == tuple[str, ...]:
        return {"action": "extend", "nargs": "+", "type": flag.parse, "metavar": "TEXT"}
    if isinstance(hint, type) and hint in _METAVARS:
        return {"type": flag.parse if hint is str else hint, "metavar": _METAVARS[hint]}
    raise TypeError(f"{name}: no flag can hold a {hint}; expected str, int, float, bool or tuples")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected NAME=VALUE")
    return name, unescape(value)


def _default_of(field: dataclasses.Field[Any]) -> object:
    make = field.default_factory
    default = field.default if make is dataclasses.MISSING else make()
    if isinstance(default, Mapping):
        default = tuple(default.items())
    return list(default) if isinstance(default, tuple) else default  # argparse appends to a list


def split_words(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the arguments before and after the first `--`."""
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]
