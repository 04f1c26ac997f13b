"""Memory of arrays that is used again as soon as nothing refers to it.

A batch is megabytes, so malloc maps fresh pages for it and gives them back, and the kernel clears
each page anew, which costs as much as filling them. An arena keeps such blocks and hands one out
again when no array stands on it any more. A batch, a slice of it and a jax.Array that the CPU
backend laid over it all hold a reference to the block, which is therefore not written to again
while any of them lives.
"""

import math
import sys
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

# Beyond that the oldest blocks are left to malloc: a caller who keeps all batches keeps them alone.
_KEPT_BYTES = 2**27
_ALIGNMENT = 64  # as XLA wants it to use memory in place
_LARGEST_WASTE = 4  # a block is taken for no less than a quarter of its size


def _references(blocks: Sequence[np.ndarray]) -> list[int]:
    return [sys.getrefcount(block) for block in blocks]


# What that counts for a block that a list alone refers to; it differs between Python's versions.
_FREE = _references([np.empty(0, np.uint8)])[0]


class Arena:
    """Hands out arrays; several threads may ask at once.

    Guarantees: no two arrays that can still be reached share memory.
    """

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Returns an array, aligned and not cleared."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        with self._lock:
            block = self._free_block(size)
            if block is None:
                block = np.empty(size + _ALIGNMENT, np.uint8)
                self._keep(block)
        begin = -block.ctypes.data % _ALIGNMENT
        # NumPy makes the block itself the base of all views, however they are made.
        return block[begin : begin + size].view(dtype).reshape(shape)

    @property
    def kept_bytes(self) -> int:
        """Memory that is kept, in use or not."""
        with self._lock:
            return sum(block.nbytes for block in self._blocks)

    def clear(self) -> None:
        """Keeps no memory any more; arrays that were handed out stay valid."""
        with self._lock:
            self._blocks.clear()

    def _free_block(self, size: int) -> np.ndarray | None:
        """Returns a block that fits; nothing else can come to refer to one that is free."""
        for index, count in enumerate(_references(self._blocks)):
            held = self._blocks[index].nbytes - _ALIGNMENT
            if count == _FREE and size <= held <= _LARGEST_WASTE * size:
                return self._blocks[index]
        return None

    def _keep(self, block: np.ndarray) -> None:
        if block.nbytes > _KEPT_BYTES:
            return
        self._blocks.append(block)
        while sum(kept.nbytes for kept in self._blocks) > _KEPT_BYTES:
            del self._blocks[0]
