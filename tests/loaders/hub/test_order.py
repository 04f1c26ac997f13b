"""The order of a stream: arithmetic on numbers, whatever the buffer holds when."""

from itertools import chain

import numpy as np
import pytest

from shardstream.loaders.hub.buffer import RollingBuffer
from shardstream.loaders.hub.feed import Checkpoint
from shardstream.loaders.hub.order import ShareOrder
from shardstream.loaders.hub.share import Position


def _order(epoch: int = 0, window: int = 100, **changed: int) -> ShareOrder:
    options = {"key": 7, "share": 0, "shares": 1, "num_partitions": 10, "window": window}
    return ShareOrder(epoch, **(options | changed))


def test_golden_order() -> None:
    order = _order(window=8)
    assert order.partitions == [7, 9, 5, 8, 4, 1, 2, 3, 6, 0]
    assert np.argsort(order.turn(np.arange(16)), kind="stable").tolist() == [
        0, 3, 6, 7, 1, 8, 2, 4, 5, 13, 10, 12, 9, 11, 15, 14
    ]  # fmt: skip


@pytest.mark.parametrize("window", [1, 2, 100, 10_000])
def test_turn_lies_within_the_window(window: int) -> None:
    order, numbers = _order(window=window), np.arange(5000)
    turn = order.turn(numbers)
    first = np.array([order.first_turn(n) for n in range(5000)])
    behind = np.array([order.first_turn(n + window) for n in range(5000)])
    assert (turn >= first).all()
    assert (turn < behind).all()


def test_delays_are_uniform_and_independent_of_epoch_share_and_number() -> None:
    numbers, window = np.arange(200_000), 1000
    delays = []
    for changed in ({}, {"epoch": 1}, {"share": 1, "shares": 2}, {"key": 8}):
        order = _order(window=window, **changed)
        delay = (order.turn(numbers) - (numbers.astype(np.uint64) << np.uint64(20))) / 2**20
        counts = np.bincount((delay / window * 50).astype(int), minlength=50)
        chi2 = ((counts - 4000) ** 2 / 4000).sum()
        assert chi2 < 90  # 49 degrees of freedom, p = 0.0003
        assert abs(np.corrcoef(delay[:-1], delay[1:])[0, 1]) < 0.01
        delays.append(delay)
    assert np.abs(np.corrcoef(delays) - np.eye(4)).max() < 0.01


def test_shares_divide_the_partitions_and_epochs_permute_them() -> None:
    parts = [_order(share=share, shares=3).partitions for share in range(3)]
    assert sorted(chain(*parts)) == list(range(10))
    assert sorted(map(len, parts)) == [3, 3, 4]
    assert _order().partitions != _order(epoch=1).partitions
    assert _order(window=0).partitions == list(range(10))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("window", [0, 1, 64, 5000])
def test_buffer_gives_the_order_of_turns_however_sequences_come(window: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    order, drawn, number, held = _order(window=window), [], 0, 0
    buffer = RollingBuffer(
        order, 0, sequence_length=3, token_dtype=np.uint16, lengths_dtype=np.uint16
    )
    for unit in range(20):
        count = int(rng.integers(0, 120))
        numbers = np.arange(number, number + count)
        number += count
        slots = int(rng.integers(1, 4)) * 2
        lengths = np.zeros((count, slots), np.uint16)
        lengths[:, 0] = numbers
        buffer.add(np.repeat(numbers[:, None], 3, 1).astype(np.uint16), lengths, unit)
        if (part := buffer.draw()) is not None:
            drawn.append(part)
        held = max(held, len(buffer))
    if (part := buffer.draw(is_last=True)) is not None:
        drawn.append(part)
    found = np.concatenate([part.rows.tokens[:, 0] for part in drawn])
    wanted = np.argsort(order.turn(np.arange(number)), kind="stable")
    np.testing.assert_array_equal(found, wanted)
    for part in drawn:
        np.testing.assert_array_equal(part.rows.lengths[:, 0], part.rows.tokens[:, 0])
        assert not part.rows.lengths[:, 1:].any()
    assert held <= window
    assert len(buffer) == 0


def test_oldest_unit_is_never_younger_than_what_is_drawn_later() -> None:
    order = _order(window=300)
    buffer = RollingBuffer(
        order, 0, sequence_length=1, token_dtype=np.uint16, lengths_dtype=np.uint16
    )
    drawn = []
    for unit in range(40):
        numbers = np.arange(unit * 50, unit * 50 + 50).astype(np.uint16)[:, None]
        buffer.add(numbers, np.ones((50, 2), np.uint16), unit)
        if (part := buffer.draw()) is not None:
            drawn.append(part)
    for index, part in enumerate(drawn):
        later = min(int(other.rows.tokens.min()) // 50 for other in drawn[index:])
        assert part.oldest_unit <= later
        assert later - part.oldest_unit <= 1 + 300 // 50


def test_positions_survive_json() -> None:
    checkpoint = Checkpoint(1024, ((3, 17), None, (5, 0)), 6, 2)
    position = Position(40, 1, 30, checkpoint)
    assert Position.from_json(position.to_json()) == position
    assert Position.from_json([0, 0, 0, None]) == Position(0, 0, 0, None)
    assert Checkpoint.start(3, 2) == Checkpoint(0, ((0, 0), (1, 0), None), 2, 0)
