"""Integers as callers give them: Python's and NumPy's are accepted, nothing else is rounded."""

import dataclasses
import operator
from collections.abc import Mapping
from types import NoneType
from typing import SupportsIndex, cast, get_args

import numpy as np


def whole(name: str, value: SupportsIndex, *, least: int | None = None) -> int:
    """Returns an integer argument as an int.

    Args:
        name: of the argument, for messages.
        value: an int, a NumPy integer, or anything else with `__index__`; no bool.
        least: smallest value allowed, None for any.

    Raises:
        ValueError: it isn't an integer, or too small.
    """
    expected = "an integer" if least is None else f"an integer of at least {least}"
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is {value!r}, expected {expected}") from None
    if least is not None and number < least:
        raise ValueError(f"{name} is {number}, expected {expected}")
    return number


def settle_integers(options: object, least: Mapping[str, int | None]) -> None:
    """Turns integer fields of a frozen dataclass into ints; called by its `__post_init__`.

    Args:
        options: the instance; fields of type `int | None` may be None.
        least: the smallest value allowed for each of those fields, None for any.

    Raises:
        ValueError: see `whole`.
    """
    assert dataclasses.is_dataclass(options)
    optional = {
        field.name for field in dataclasses.fields(options) if NoneType in get_args(field.type)
    }
    for name, smallest in least.items():
        value = getattr(options, name)
        if value is not None or name not in optional:
            number = whole(name, cast(SupportsIndex, value), least=smallest)
            object.__setattr__(options, name, number)
