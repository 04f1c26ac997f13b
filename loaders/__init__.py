"""The JAX side: an exact, elastic, resumable order of batches at the speed of a sequential read.

JAX, NumPy and shard_format only; neither Beam, datasets nor transformers is imported from here
(`stream` imports the latter two when it is called).
"""

from loaders.bad_records import BadRecordError
from loaders.bridges import GrainSource, as_grain, orbax_args
from loaders.hub.retry import StreamError
from loaders.hub.stream import HubStream, stream
from loaders.loader import Loader
from loaders.mixture import Mixture

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
