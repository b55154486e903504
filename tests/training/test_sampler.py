"""Orders of windows: each place once, rows from everywhere in each batch, and for each rank a share of its own."""

import numpy as np
import pytest
from scipy import stats

from gpu_nn.data import stream
from gpu_nn.distributed.communicator import SINGLE_PROCESS, Communicator
from gpu_nn.training.sampler import SHUFFLE_SHARDS, order, own_places, shard_ranges

# Of one short batch, of whole ones, and with a short last one; fewer columns than lanes, as many, and more; odd.
WINDOWS = [(1, 1), (5, 8), (70, 70), (64, 64), (128, 64), (230, 32), (227, 57), (321, 8), (999, 127), (1003, 100)]
WINDOWS += [(6400, 128), (1285, 257), (640, 639), (300, 299)]
SIZES = [1, 2, 3, 4, 5, 8, 64, 100]
SEEDS = [None, (5, 3)]


def places_of(n, batch_size, communicator):
    """The places of a rank in the window: its columns of each batch."""
    found = []
    for start in range(0, n, batch_size):
        size = min(batch_size, n - start)
        columns = range(
            size * communicator.rank // communicator.size, size * (communicator.rank + 1) // communicator.size
        )
        found += [start + column for column in columns]
    return np.array(found, int)


def read_by(n, batch_size, communicator, seed):
    """The numbers of the rows that a rank reads, in order."""
    ranges = shard_ranges(n, batch_size, communicator, shuffled=seed is not None)
    return np.concatenate([np.empty(0, int), *(np.arange(*one) for one in ranges)])


def lanes_of(size):
    """The lane of each column of a batch of that size."""
    lanes = np.empty(size, int)
    for lane in range(SHUFFLE_SHARDS):
        lanes[size * lane // SHUFFLE_SHARDS : size * (lane + 1) // SHUFFLE_SHARDS] = lane
    return lanes


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("n", "batch_size"), WINDOWS)
class TestOfAllWindows:
    def test_each_row_has_one_place(self, n, batch_size, seed):
        found = order(n, batch_size, SINGLE_PROCESS, seed)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(np.sort(found), np.arange(n))
        if seed is None:
            np.testing.assert_array_equal(found, np.arange(n))
        assert shard_ranges(n, batch_size, SINGLE_PROCESS, shuffled=seed is not None) == [(0, n)]

    @pytest.mark.parametrize("size", SIZES)
    def test_shares_are_disjoint_and_make_the_window_of_one_process(self, n, batch_size, seed, size):
        whole, seen = order(n, batch_size, SINGLE_PROCESS, seed), np.full(n, -1)
        for rank in range(size):
            communicator = Communicator(rank, size)
            rows, places = read_by(n, batch_size, communicator, seed), places_of(n, batch_size, communicator)
            found = order(n, batch_size, communicator, seed)
            assert found.shape == (n,)
            assert ((found >= 0) & (found < max(len(rows), 1))).all()  # those of others, too
            assert (seen[places] == -1).all()
            seen[places] = rows[found[places]]
        np.testing.assert_array_equal(seen, whole)

    @pytest.mark.parametrize("size", SIZES)
    def test_a_rank_reads_its_share_and_the_rest_of_lanes_that_it_has_a_part_of(self, n, batch_size, seed, size):
        whole = order(n, batch_size, SINGLE_PROCESS, seed)
        lane_of_place = np.concatenate([lanes_of(min(batch_size, n - start)) for start in range(0, n, batch_size)])
        for rank in range(size):
            communicator = Communicator(rank, size)
            rows, places = read_by(n, batch_size, communicator, seed), places_of(n, batch_size, communicator)
            own = np.sort(whole[places])
            if seed is None or SHUFFLE_SHARDS % size == 0:
                np.testing.assert_array_equal(rows, own)
            else:
                parted = np.isin(lane_of_place, lane_of_place[places])
                np.testing.assert_array_equal(rows, np.sort(whole[parted]))
            assert len(shard_ranges(n, batch_size, communicator, shuffled=True)) <= 1
            mask = own_places(n, batch_size, communicator)
            np.testing.assert_array_equal(np.flatnonzero(mask), places)


class TestLanes:
    @pytest.mark.parametrize(("n", "batch_size"), WINDOWS)
    def test_a_batch_has_rows_of_all_lanes_or_no_two_of_one(self, n, batch_size):
        found = order(n, batch_size, SINGLE_PROCESS, (1, 2))
        sizes = [min(batch_size, n - start) for start in range(0, n, batch_size)]
        lane_of_row = np.sort(np.concatenate([lanes_of(size) for size in sizes]))
        for start in range(0, n, batch_size):
            batch = lane_of_row[found[start : start + batch_size]]
            np.testing.assert_array_equal(batch, lanes_of(len(batch)))
            if len(batch) >= SHUFFLE_SHARDS:
                assert set(batch) == set(range(SHUFFLE_SHARDS))
            else:
                assert len(set(batch)) == len(batch)

    def test_a_large_batch_has_rows_from_all_over_the_window(self):
        found = order(12_800, 128, SINGLE_PROCESS, (0, 0)).reshape(100, 128)
        gaps = np.diff(np.sort(found, axis=1), axis=1, prepend=0)
        assert gaps.max() < 2 * 12_800 / SHUFFLE_SHARDS

    def test_seeds_and_lanes_are_drawn_apart(self):
        first, other, same = (
            order(6400, 64, SINGLE_PROCESS, seed).reshape(100, 64) for seed in ((1, 0), (1, 1), (1, 0))
        )
        np.testing.assert_array_equal(first, same)
        assert np.mean(first == other) < 0.05
        begins = first.min(axis=0)
        assert np.mean((first - begins)[:, 1:] == (first - begins)[:, :-1]) < 0.05

    @pytest.mark.parametrize(("n", "batch_size"), [(640, 64), (1280, 256), (165, 33)])
    def test_a_row_comes_to_each_place_of_its_lane_equally_often(self, n, batch_size):
        draws = 1000
        places = np.array([np.argsort(order(n, batch_size, SINGLE_PROCESS, (9, draw))) for draw in range(draws)])
        for row in (0, 3, n // 2, n - 1):
            used, counts = np.unique(places[:, row], return_counts=True)
            lanes = np.tile(lanes_of(batch_size), n // batch_size)
            np.testing.assert_array_equal(used, np.flatnonzero(lanes == lanes[used[0]]))
            assert stats.chisquare(counts).pvalue > 1e-3


def test_unshuffled_ranges_with_small_gaps_are_read_as_one():
    communicator = Communicator(1, 4)
    far = [(10, 20), (50, 60), (90, 100), (121, 122)]
    assert shard_ranges(125, 40, communicator, shuffled=False) == far
    assert shard_ranges(125, 40, communicator, shuffled=False, max_gap=20) == far
    assert shard_ranges(125, 40, communicator, shuffled=False, max_gap=21) == [*far[:2], (90, 122)]
    assert shard_ranges(125, 40, communicator, shuffled=False, max_gap=29) == [*far[:2], (90, 122)]
    assert shard_ranges(125, 40, communicator, shuffled=False, max_gap=30) == [(10, 122)]


def test_rows_of_any_two_blocks_meet_in_a_batch_about_equally_often():
    n, block, batch_size, epochs = 64, 4, 8, 600
    some = stream(np.zeros((n, 1)), np.zeros(n, int), block_rows=block, window_rows=n)
    met = np.zeros((n, n), int)
    for epoch in range(epochs):
        pieces = some.epoch_ranges(np.random.default_rng([3, epoch])).slice(0, n)
        rows = np.concatenate([np.arange(*piece) for piece in pieces])[order(n, batch_size, SINGLE_PROCESS, (4, epoch))]
        for batch in rows.reshape(-1, batch_size):
            met[np.ix_(batch, batch)] += 1
    # Two of the 16 blocks are in one lane of two blocks once in 15 times, and then they do not meet.
    share = 14 / 15 / 8
    others = np.arange(n)[:, None] // block != np.arange(n) // block
    counts = met[others]
    assert np.abs(counts - share * epochs).max() < 6 * np.sqrt(epochs * share * (1 - share))
    assert abs(counts.mean() - share * epochs) < 0.5
