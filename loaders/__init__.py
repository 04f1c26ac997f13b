"""The JAX side: an exact, elastic, resumable order of batches at the speed of a sequential read.

JAX, NumPy and shard_format only; neither Beam, datasets nor transformers is imported from here
(`stream` imports the latter two when it is called).
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
