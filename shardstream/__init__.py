"""Hugging Face streams to shuffled ArrayRecord shards on Beam, and a JAX loader: the one name.

    from shardstream import Loader, Mixture, stream      # what a trainer needs
    from shardstream import preprocess, verify           # what writes and checks datasets

Names are imported when they are first used, so `import shardstream` costs neither JAX nor Beam.

In a checkout the rooms (`loaders/`, `pipelines/`, ...) lie at the repository's root, beside this
folder; a wheel holds them inside it. Either way a module has one name, `shardstream.loaders.x`.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what type checkers and editors see in place of __getattr__
    from shardstream.loaders import Loader, Mixture, stream
    from shardstream.pipelines.preprocess import preprocess
    from shardstream.shard_format.verify import verify

    __version__: str

_HERE = Path(__file__).parent
if not (_HERE / "loaders").is_dir():  # a checkout
    __path__.append(str(_HERE.parent))

_HOMES = {
    "Loader": "shardstream.loaders",
    "Mixture": "shardstream.loaders",
    "stream": "shardstream.loaders",
    "preprocess": "shardstream.pipelines.preprocess",
    "verify": "shardstream.shard_format.verify",
}
__all__ = ["Loader", "Mixture", "__version__", "preprocess", "stream", "verify"]


if not TYPE_CHECKING:  # a checker that saw it would accept every name

    def __getattr__(name: str) -> object:
        if name == "__version__":
            return _version()
        if name not in _HOMES:
            raise AttributeError(f"module 'shardstream' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("shardstream")
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"
