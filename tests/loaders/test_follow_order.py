"""The order of a stream that grows: laws over sizes, a golden order, how far it mixes and trails."""

import numpy as np
import pytest

from shardstream.loaders.order.epochs import PADDING
from shardstream.loaders.order.follow import FollowOrder
from shardstream.shard_format.keys import chain

# batch_size, buffer_size, numbers of records as a stream grows to its end
STREAMS = [
    (8, 100, (20, 21, 150, 1000, 1003)),
    (1, 10, (1, 2, 3, 50, 51)),
    (64, 40, (64, 130, 4001)),
    (7, 5000, (10, 300, 2000, 2001)),
    (4, 0, (5, 8, 101)),
    (5, 1, (3, 11, 52)),
]


def order_of(records: int, batch_size: int, buffer_size: int, *, complete: bool) -> FollowOrder:
    return FollowOrder(records, batch_size, buffer_size, chain(5), complete=complete)


def all_records(order: FollowOrder, stride: int = 10**6) -> np.ndarray:
    steps = order.num_steps(drop_remainder=False)
    rows = np.arange(order.batch_size)
    parts = [
        order.records(0, step, min(steps, step + stride), rows) for step in range(0, steps, stride)
    ]
    return np.concatenate([np.empty((0, order.batch_size), np.int64), *parts])


@pytest.mark.parametrize(("batch_size", "buffer_size", "growth"), STREAMS)
def test_a_longer_stream_begins_with_what_was_sure(batch_size, buffer_size, growth) -> None:
    whole = all_records(order_of(growth[-1], batch_size, buffer_size, complete=True))
    for records in growth:
        sure = all_records(order_of(records, batch_size, buffer_size, complete=False))
        assert np.array_equal(sure, whole[: len(sure)])
        assert (sure >= 0).all()
        assert (sure < records).all()


@pytest.mark.parametrize(("batch_size", "buffer_size", "growth"), STREAMS)
def test_a_complete_stream_gives_each_record_once(batch_size, buffer_size, growth) -> None:
    for records in growth:
        order = order_of(records, batch_size, buffer_size, complete=True)
        found = all_records(order).ravel()
        assert np.array_equal(np.sort(found[found != PADDING]), np.arange(records))
        assert order.num_steps(drop_remainder=True) == records // batch_size


@pytest.mark.parametrize(("batch_size", "buffer_size", "growth"), STREAMS)
def test_the_order_in_any_pieces_is_the_same(batch_size, buffer_size, growth) -> None:
    order = order_of(growth[-1], batch_size, buffer_size, complete=True)
    whole = all_records(order)
    assert np.array_equal(all_records(order, stride=1), whole)
    rows = np.arange(batch_size)[batch_size // 3 :: 2]
    assert np.array_equal(order.records(0, 2, 5, rows), whole[2:5][:, rows])


@pytest.mark.parametrize(("batch_size", "buffer_size", "growth"), STREAMS)
def test_what_a_step_needs_is_the_least_that_makes_it_sure(batch_size, buffer_size, growth) -> None:
    whole = order_of(growth[-1], batch_size, buffer_size, complete=True)
    for step in range(1, growth[-1] // batch_size, 3):
        needed = whole.needed(step)
        order = order_of(needed, batch_size, buffer_size, complete=False)
        if needed < growth[-1]:
            assert order.num_steps(drop_remainder=True) >= step
            assert order.needed(step) == needed
        one_less = order_of(needed - 1, batch_size, buffer_size, complete=False)
        assert one_less.num_steps(drop_remainder=True) < step
    assert whole.needed(0) == 0


def test_no_buffer_keeps_the_order_of_the_log() -> None:
    order = order_of(103, 10, 0, complete=False)
    assert np.array_equal(all_records(order).ravel(), np.arange(100))


def test_follow_order_golden_records() -> None:
    # Changing these breaks every saved run.
    order = FollowOrder(1000, 4, 64, chain(7), complete=True)
    assert order.records(0, 0, 3, np.arange(4)).tolist() == GOLDEN
    assert order.records(0, 200, 201, np.arange(4)).tolist() == GOLDEN_LATE


GOLDEN = [[0, 1, 3, 2], [8, 5, 6, 4], [11, 7, 10, 12]]
GOLDEN_LATE = [[825, 855, 842, 799]]


def test_keys_give_unlike_orders() -> None:
    one, other = (
        all_records(FollowOrder(5000, 8, 400, chain(seed), complete=True)) for seed in (1, 2)
    )
    assert (one == other).mean() < 0.01


def test_half_of_a_first_shard_comes_at_once_and_later_a_buffer_is_held_back() -> None:
    for records in (100, 1000, 10_000):
        assert order_of(records, 1, 10_000, complete=False).sure_ranks() >= 0.5 * records
    held = 1_000_000 - order_of(1_000_000, 1, 10_000, complete=False).sure_ranks()
    assert held == pytest.approx(10_000, rel=0.05)


def test_records_move_by_a_buffer_and_neighbours_part() -> None:
    place = np.argsort(all_records(order_of(200_000, 1, 10_000, complete=True)).ravel())
    moved = np.abs(place - np.arange(200_000))[50_000:150_000]
    assert moved.max() <= 30_000
    assert 5_000 <= moved.mean() <= 10_000
    assert (np.abs(np.diff(place)) == 1).mean() < 0.001
