"""The JAX side: batches in an exact, elastic, resumable order, at the speed of a sequential read.

It needs JAX, NumPy, PyArrow and shard_format. Beam is never imported from here; `stream` imports
datasets and transformers when it is called.
"""

from shardstream.loaders.bridges import GrainSource, as_grain, orbax_args
from shardstream.loaders.hub.retry import StreamError
from shardstream.loaders.hub.stream import HubStream, stream
from shardstream.loaders.loader import Loader
from shardstream.loaders.mixture import Mixture
from shardstream.loaders.shards.bad_records import BadRecordError

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
