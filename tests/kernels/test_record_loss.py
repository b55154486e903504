"""The cost of a batch and the counters of an epoch, against exact sums."""

import math

import numpy as np
import pytest


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 255, 256, 257, 10_000])
def test_a_cost_is_the_sum_of_its_rows_and_goes_to_its_place(backend, n, dtype):
    rows = np.random.default_rng(n).lognormal(0, 3, n).astype(dtype)
    losses = backend.array(np.full(5, 7, dtype))
    position = backend.array(np.array([100, 3]))
    backend.kernels.record_loss(backend.array(rows), losses, position)
    host = backend.host(losses)
    assert host[3] == pytest.approx(math.fsum(rows.tolist()), rel=4 * float(np.finfo(dtype).eps))
    np.testing.assert_array_equal(np.delete(host, 3), 7)
    np.testing.assert_array_equal(backend.host(position), [100 + n, 4])


def test_steps_follow_one_another(backend):
    losses, position = backend.array(np.zeros(3, np.float32)), backend.array(np.zeros(2, np.int64))
    for n in (4, 4, 1):
        backend.kernels.record_loss(backend.array(np.full(n, 2, np.float32)), losses, position)
    np.testing.assert_array_equal(backend.host(losses), [8, 8, 2])
    np.testing.assert_array_equal(backend.host(position), [9, 3])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_cost_that_is_not_finite_stays_so(backend, bad):
    rows = np.ones(300, np.float32)
    rows[299] = bad
    losses = backend.array(np.zeros(1, np.float32))
    backend.kernels.record_loss(backend.array(rows), losses, backend.array(np.zeros(2, np.int64)))
    assert not np.isfinite(backend.host(losses)[0])


def test_a_loss_scale_is_taken_off(backend):
    losses, position = backend.array(np.zeros(1, np.float32)), backend.array(np.zeros(2, np.int64))
    scale = backend.array(np.full(1, 4096, np.float32))
    backend.kernels.record_loss(backend.array(np.full(3, 8192, np.float32)), losses, position, scale)
    assert backend.host(losses)[0] == 6


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [0, 1, 300])
def test_without_a_position_a_cost_goes_to_the_first_place(backend, n, dtype):
    losses, scale = backend.array(np.full(3, 7, dtype)), backend.array(np.full(1, 2, np.float32))
    backend.kernels.record_loss(backend.array(np.full(n, 4, dtype)), losses, None, scale)
    np.testing.assert_array_equal(backend.host(losses), [2 * n, 7, 7])


def test_a_cost_may_be_of_more_rows_than_are_given(backend):
    """The sum over several ranks, of which each gives its own."""
    losses, position = backend.array(np.zeros(2, np.float32)), backend.array(np.array([10, 1]))
    backend.kernels.record_loss(backend.array(np.full(1, 5, np.float32)), losses, position, rows=1 << 33)
    np.testing.assert_array_equal(backend.host(losses), [0, 5])
    np.testing.assert_array_equal(backend.host(position), [10 + (1 << 33), 2])
