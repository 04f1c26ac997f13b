"""The shuffle buffer's order: laws over many geometries, a golden order, its memory and its mixing."""

import numpy as np
import pytest

from benchmarks.mixing import measure
from shardstream.loaders.order.buffer import BufferOrder, geometry_for
from shardstream.loaders.order.epochs import PADDING, num_steps
from shardstream.shard_format.keys import chain

# num_records, batch_size, buffer_size, record_bytes
SIZES = [
    (5000, 8, 400, 4112),
    (5003, 48, 1000, 1040),
    (4001, 7, 300, 100),
    (3001, 8, 64, 100),
    (2500, 1, 200, 4112),
    (3000, 256, 500, 4112),
    (20_011, 64, 10_000, 4112),
    (100, 10, 12, 40),
]


def order_of(sizes: tuple[int, int, int, int], seed: int = 0) -> BufferOrder:
    return BufferOrder(geometry_for(*sizes), chain(seed))


def records_of(order: BufferOrder, epoch: int, stride: int = 37) -> np.ndarray:
    steps = num_steps(order, drop_remainder=False)
    rows = np.arange(order.batch_size)
    parts = [
        order.records(epoch, step, min(steps, step + stride), rows)
        for step in range(0, steps, stride)
    ]
    return np.concatenate(parts)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("epoch", [0, 3])
def test_buffer_order_gives_each_record_once(sizes: tuple[int, int, int, int], epoch: int) -> None:
    order = order_of(sizes)
    records = records_of(order, epoch)
    whole = records[: num_steps(order, drop_remainder=True)]
    assert (whole != PADDING).all()
    inside = records[records != PADDING]
    assert np.array_equal(np.sort(inside), np.arange(sizes[0]))


@pytest.mark.parametrize("sizes", SIZES)
def test_buffer_order_in_any_pieces_is_the_same(sizes: tuple[int, int, int, int]) -> None:
    order = order_of(sizes)
    whole = records_of(order, 1, stride=10**9)
    assert np.array_equal(records_of(order, 1, stride=1), whole)
    rows = np.arange(order.batch_size)[order.batch_size // 3 :: 2]
    assert np.array_equal(order.records(1, 2, 5, rows), whole[2:5][:, rows])


@pytest.mark.parametrize("sizes", SIZES)
def test_buffer_order_keeps_its_window(sizes: tuple[int, int, int, int]) -> None:
    order = order_of(sizes)
    g = order.geometry
    tracks = np.arange(g.tracks)
    epoch = order.epoch(0)
    arrivals = epoch.arrivals(0, g.track_records, tracks)
    assert np.array_equal(np.sort(arrivals, axis=1)[0], np.arange(g.track_records))
    assert (np.abs(arrivals - np.arange(g.track_records)) <= g.max_delay + 1).all()


@pytest.mark.parametrize("sizes", SIZES)
def test_rounds_read_what_tracks_hold(sizes: tuple[int, int, int, int]) -> None:
    order = order_of(sizes)
    g, epoch = order.geometry, order.epoch(2)
    arrivals = np.arange(g.track_records)
    tracks = np.arange(g.tracks)
    expected = epoch.records_of(tracks[:, None], arrivals)
    found = np.full(expected.shape, -1)
    for turn in range(epoch.num_rounds):
        for read in epoch.reads_of(turn, epoch.track_runs(tracks)):
            ids = (read.begin + np.arange(read.count)) % g.num_records
            here = slice(read.arrival, read.arrival + read.per_track)
            found[read.tracks, here] = ids.reshape(len(read.tracks), -1)
            assert (epoch.round_of(arrivals[here]) == turn).all()
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_hosts_read_disjoint_records_that_cover_the_epoch(hosts: int) -> None:
    order = order_of((5000, 8, 400, 4112))
    epoch, g = order.epoch(0), order.geometry
    seen = []
    for host in np.split(np.arange(g.tracks), hosts):
        runs = epoch.track_runs(host)
        seen.append(
            sum(
                read.count
                for turn in range(epoch.num_rounds)
                for read in epoch.reads_of(turn, runs)
            )
        )
    assert seen == [5000 // 8 * (8 // hosts)] * hosts


def test_buffer_order_golden_records() -> None:
    # Changing these breaks every saved run.
    order = order_of((1000, 4, 64, 100), seed=7)
    assert order.records(0, 0, 3, np.arange(4)).tolist() == GOLDEN
    assert order.records(5, 100, 101, np.arange(4)).tolist() == GOLDEN_LATE


GOLDEN = [[397, 643, 662, 876], [705, 931, 806, 664], [873, 875, 706, 988]]
GOLDEN_LATE = [[886, 952, 395, 5]]


def test_epochs_and_seeds_give_unlike_orders() -> None:
    orders = [
        records_of(order_of((5000, 8, 400, 4112), seed), epoch).ravel()
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1)]
    ]
    for i, one in enumerate(orders):
        for other in orders[i + 1 :]:
            assert (one == other).mean() < 0.01


@pytest.mark.parametrize("sizes", [sizes for sizes in SIZES if sizes[2] >= 300])
def test_what_has_to_be_held_fits_the_buffer(sizes: tuple[int, int, int, int]) -> None:
    order = order_of(sizes)
    g, epoch = order.geometry, order.epoch(0)
    tracks = np.arange(g.tracks)
    arrivals = epoch.arrivals(0, g.track_records, tracks)
    reached = np.maximum.accumulate(epoch.round_of(arrivals).max(axis=0))
    loaded = np.array(
        [(epoch.round_of(np.arange(g.track_records)) <= turn).sum() for turn in reached]
    )
    held = (loaded - np.arange(g.track_records)) * g.tracks
    assert held.max() <= g.capacity
    assert held.mean() >= 0.5 * min(g.buffer_size, g.num_records / 3)


def test_first_batch_needs_a_small_part_of_the_buffer() -> None:
    order = order_of((100_000, 64, 10_000, 4112))
    epoch, g = order.epoch(0), order.geometry
    first = epoch.arrivals(0, 1, np.arange(g.tracks))
    rounds = int(epoch.round_of(first).max()) + 1
    assert rounds * g.block < 0.5 * g.buffer_size


def test_mixing_is_that_of_a_uniform_permutation_where_it_matters() -> None:
    order = order_of((200_000, 64, 10_000, 4112))
    shards = np.repeat(np.arange(50), 4000)
    records = records_of(order, 0, stride=500)
    records = records[: num_steps(order, drop_remainder=True)]
    ours, uniform = (
        measure(records, shards),
        measure(
            np.random.default_rng(1).permutation(200_000)[: records.size].reshape(records.shape),
            shards,
        ),
    )
    assert ours.displacement == pytest.approx(uniform.displacement, rel=0.12)  # of 195 blocks
    assert ours.neighbours_together <= uniform.neighbours_together
    assert ours.shard_entropy >= 0.75 * uniform.shard_entropy
