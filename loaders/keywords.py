"""Mistyped keywords: a TypeError that names the nearest option, and says where an old one went."""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


def check_keywords(
    noun: str, gone: Mapping[str, str] | None = None
) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Returns a decorator that explains keywords a function doesn't have.

    Args:
        noun: what the function makes, for messages.
        gone: sentences about keywords that callers may expect, by keyword.
    """
    explained = gone or {}

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        known = [
            name
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        ]
        accepted = set(inspect.signature(function).parameters)

        @functools.wraps(function)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            if not accepted.issuperset(kwargs):
                name = next(name for name in kwargs if name not in accepted)
                raise TypeError(explained.get(name) or _message(noun, name, known))
            return function(*args, **kwargs)

        return checked

    return decorate


def _message(noun: str, name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    return f"a {noun} has no option {name}.{hint} Its options are {', '.join(known)}."
