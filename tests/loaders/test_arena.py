"""Memory that is handed out again, and never while somebody can still see it."""

import threading

import jax
import numpy as np
import pytest

from shardstream.loaders.arena import Arena


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_memory_is_used_again_when_nobody_refers_to_it() -> None:
    arena = Arena()
    first = arena.empty((10, 100), np.uint16)
    place = address(first)
    second = arena.empty((10, 100), np.int32)
    assert not np.shares_memory(first, second)
    del first
    third = arena.empty((500,), np.int32)
    assert (address(third), third.shape, third.dtype) == (place, (500,), np.int32)
    assert place % 64 == address(second) % 64 == 0


@pytest.mark.parametrize(
    "keep",
    [
        lambda array: array,
        lambda array: array[3],
        lambda array: array.reshape(-1)[5:7].view(np.uint8),
        lambda array: memoryview(array),
        lambda array: np.frombuffer(array, np.int32),
        lambda array: jax.device_put(array),  # the CPU backend takes aligned memory as it is
        lambda array: jax.device_put(array[2:]),
    ],
)
def test_memory_is_not_used_again_while_anything_stands_on_it(keep) -> None:
    arena = Arena()
    array = arena.empty((8, 16), np.int32)
    array[:] = np.arange(128).reshape(8, 16)
    kept = keep(array)
    expected = np.array(kept)
    del array
    for _ in range(5):
        arena.empty((8, 16), np.int32)[:] = -1
    assert np.array_equal(np.array(kept), expected)


def test_a_large_block_is_not_spent_on_a_small_array_nor_a_small_one_on_a_large() -> None:
    arena = Arena()
    place = address(arena.empty((4096,), np.uint8))
    assert address(arena.empty((1023,), np.uint8)) != place
    assert address(arena.empty((4097,), np.uint8)) != place
    assert address(arena.empty((1024,), np.uint8)) == place


def test_what_is_kept_is_bounded() -> None:
    arena = Arena()
    held = [arena.empty((2**25,), np.uint8) for _ in range(8)]
    assert arena.kept_bytes <= 2**27
    assert len({address(array) for array in held}) == 8
    kept = arena.kept_bytes
    arena.empty((2**27,), np.uint8)
    assert arena.kept_bytes == kept > 3 * 2**25


def test_threads_never_get_the_same_memory() -> None:
    arena = Arena()
    wrong = []

    def work(number: int) -> None:
        for _ in range(300):
            array = arena.empty((64, 64), np.int32)
            array[:] = number
            if (array != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
