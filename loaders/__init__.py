"""The JAX side: batches in an exact, elastic, resumable order, at the speed of a sequential read.

It needs JAX, NumPy, PyArrow and shard_format. Beam is never imported from here; `stream` imports
datasets and transformers when it is called. Names are imported when they are first used, so that
`loaders.order` costs NumPy alone.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardstream.loaders.bridges import GrainSource, as_grain, orbax_args
    from shardstream.loaders.hub.retry import StreamError
    from shardstream.loaders.hub.stream import HubStream, stream
    from shardstream.loaders.loader import Loader
    from shardstream.loaders.mixture import Mixture
    from shardstream.loaders.shards.bad_records import BadRecordError

_HOMES = {
    "BadRecordError": "shards.bad_records",
    "GrainSource": "bridges",
    "HubStream": "hub.stream",
    "Loader": "loader",
    "Mixture": "mixture",
    "StreamError": "hub.retry",
    "as_grain": "bridges",
    "orbax_args": "bridges",
    "stream": "hub.stream",
}
__all__ = [
    "BadRecordError",
    "GrainSource",
    "HubStream",
    "Loader",
    "Mixture",
    "StreamError",
    "as_grain",
    "orbax_args",
    "stream",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"shardstream.loaders.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
