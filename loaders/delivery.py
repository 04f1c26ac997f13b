"""Which rows of a global batch this host needs, and how they get to its devices.

With a sharding, the rows follow from the devices this process addresses: replicated axes give
several processes the same rows, and each device receives exactly its own. Only single-device
transfers are used, so processes need not keep step here. Token ids travel as narrow as they are
stored and are widened to int32 on the device.
"""

from typing import Any, Protocol

import jax
import numpy as np

from shardstream.loaders.arena import Arena
from shardstream.loaders.fields import widen
from shardstream.loaders.integers import whole
from shardstream.loaders.options import Output, TokenDtype


class Delivery(Protocol):
    """What `loaders.iterator` asks of a delivery."""

    @property
    def rows(self) -> np.ndarray:
        """int64[B], sorted: the rows of the global batch that this host reads."""
        ...

    def prepare(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the host batch as it waits for `deliver`; called in the prefetching thread."""
        ...

    def deliver(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Returns the batch that the caller receives; called in the caller's thread."""
        ...

    def close(self) -> None:
        """Gives back the memory that was kept for batches to come."""
        ...


class HostDelivery:
    """Puts host batches where the caller wants them.

    Args:
        batch_size: global batch.
        sequence_length: L.
        sharding: of the global arrays [batch_size, L]; None for this host's rows on the default
            device, or in NumPy arrays.
        process_index: of this host, used without a sharding.
        process_count: as above.
        output: "jax" or "numpy".
        token_dtype: "int32" or, for NumPy arrays, "stored".
        travels_narrow: whether token ids are widened to int32 after their transfer rather than
            before it; None decides by platform.

    Attributes:
        rows: int64[B], sorted: the rows of the global batch this host reads.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        sequence_length: int,
        sharding: jax.sharding.Sharding | None = None,
        process_index: int | None = None,
        process_count: int | None = None,
        output: Output = "jax",
        token_dtype: TokenDtype = "int32",
        travels_narrow: bool | None = None,
    ) -> None:
        self._sharding = sharding
        self._shape = (batch_size, sequence_length)
        self._output = output
        if sharding is not None:
            if output != "jax":
                raise ValueError("a sharding gives jax.Arrays: leave output='numpy' out")
            self._slices = _device_slices(sharding, self._shape)
            self.rows = np.unique(
                np.concatenate([np.arange(r.start, r.stop) for _, r, _ in self._slices])
            )
        else:
            index, count = _process(process_index, process_count)
            if not 0 <= index < count:
                raise ValueError(f"process_index is {index}, expected 0 to {count - 1}")
            if batch_size % count:
                raise ValueError(
                    f"batch_size is {batch_size}, expected a multiple of process_count={count}: it "
                    "counts the sequences of all hosts together"
                )
            size = batch_size // count
            self.rows = np.arange(index * size, (index + 1) * size)
        # On CPUs a NumPy array becomes a jax.Array as it is; elsewhere narrow ids halve the
        # transfer.
        if travels_narrow is None:
            travels_narrow = output == "jax" and _platform(sharding) != "cpu"
        self._arena = Arena()
        self._is_narrow = token_dtype == "stored" or travels_narrow

    def prepare(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the host batch as it should wait for its transfer."""
        return batch if self._is_narrow else widen(batch, self._arena)

    def deliver(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Returns the arrays of a batch; transfers go on in the background."""
        if self._output == "numpy":
            return batch
        if self._sharding is None:
            return dict(zip(batch, _widen(jax.device_put([*batch.values()])), strict=True))
        pieces, devices = [], []
        for device, rows, columns in self._slices:
            first = int(np.searchsorted(self.rows, rows.start))
            mine = slice(first, first + rows.stop - rows.start)
            pieces.append([array[mine, columns] for array in batch.values()])
            devices.append(device)
        # All fields of all devices by one call, and widened by one call a device: what a call costs
        # in Python comes off the trainer's own time.
        placed = [_widen(piece) for piece in jax.device_put(pieces, devices)]
        return {
            name: jax.make_array_from_single_device_arrays(self._shape, self._sharding, [*arrays])
            for name, arrays in zip(batch, zip(*placed, strict=True), strict=True)
        }

    def close(self) -> None:
        """Gives back the memory that was kept for batches to come."""
        self._arena.clear()


def _process(index: int | None, count: int | None) -> tuple[int, int]:
    """Returns (process_index, process_count), JAX's own where they aren't given."""
    return (
        jax.process_index() if index is None else whole("process_index", index),
        jax.process_count() if count is None else whole("process_count", count, least=1),
    )


def _device_slices(
    sharding: jax.sharding.Sharding, shape: tuple[int, int]
) -> list[tuple[Any, slice, slice]]:
    """Returns (device, rows, columns) of the devices this process addresses.

    Raises:
        ValueError: the sharding doesn't divide the batch.
    """
    try:
        indices = sharding.addressable_devices_indices_map(shape)
    except ValueError as error:
        raise ValueError(
            f"the sharding {sharding} doesn't fit batches of {shape[0]} x {shape[1]}: {error}"
        ) from error
    slices = []
    for device, index in indices.items():
        assert index is not None
        rows, columns = (
            slice(*extent.indices(size)[:2]) for extent, size in zip(index, shape, strict=True)
        )
        slices.append((device, rows, columns))
    return slices


def _platform(sharding: jax.sharding.Sharding | None) -> str:
    if sharding is None:
        return jax.default_backend()
    return next(iter(sharding.device_set)).platform


@jax.jit
def _to_int32(arrays: list[jax.Array]) -> list[jax.Array]:
    return [array if array.dtype == bool else array.astype(np.int32) for array in arrays]


def _widen(arrays: list[jax.Array]) -> list[jax.Array]:
    """Returns arrays of one device with token ids as int32."""
    if all(array.dtype in (np.int32, np.bool_) for array in arrays):
        return arrays
    return _to_int32(arrays)
