"""Keeps deep-learning frameworks out of processes that only prepare data.

datasets imports torch wherever it is installed, and transformers looks for it: on a machine with
torch and TensorFlow that takes every process seconds and hundreds of megabytes. Commands and
workers use none of it, so there the frameworks count as not installed. A process of the user's own
is left as it is.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_FRAMEWORKS = {"flax", "keras", "tensorflow", "torch", "torchaudio", "torchvision", "triton"}


class _LeanPathFinder(PathFinder):
    """Finds what is on the path, the frameworks left out."""

    @classmethod
    def find_spec(
        cls,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Returns None for a framework, as for a package that is not installed."""
        if fullname.partition(".")[0] in _FRAMEWORKS:
            return None
        return super().find_spec(fullname, path, target)


def leave_frameworks_out() -> None:
    """Has this process find no framework any more; what is imported already stays.

    Call it before datasets and transformers are imported.
    """
    finders = sys.meta_path
    sys.meta_path[:] = [_LeanPathFinder if each is PathFinder else each for each in finders]
