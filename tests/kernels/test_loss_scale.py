"""Dynamic loss scaling: what a finite and what an overflowed gradient lead to."""

import numpy as np
import pytest


@pytest.mark.parametrize("n", [1, 255, 256, 257, 1000])
@pytest.mark.parametrize("weighted", [True, False])
def test_rows_take_the_scale(backend, n, weighted):
    weight = np.random.default_rng(n).random(n).astype(np.float32)
    out = backend.array(np.zeros(n, np.float32))
    scale = backend.array(np.full(1, 1024, np.float32))
    backend.kernels.scale_rows(backend.array(weight) if weighted else None, scale, out)
    np.testing.assert_array_equal(backend.host(out), weight * 1024 if weighted else np.full(n, 1024))


def adjusted(backend, norm, scale=1024.0, good=0, step=5, max_norm=None):
    """scale, good steps, step and gradient scale afterwards."""
    values = ((norm, np.float64), (scale, np.float32), (good, np.int64), (step, np.int64), (9, np.float32))
    arrays = [backend.array(np.full(1, value, dtype)) for value, dtype in values]
    how = {"max_norm": max_norm, "factor": 2.0, "most": 4096.0, "interval": 3}
    backend.kernels.adjust_loss_scale(*arrays, **how)
    return [backend.host(array)[0] for array in arrays[1:]]


def test_a_finite_gradient_counts_and_is_divided_by_the_scale(backend):
    assert adjusted(backend, 512.0) == [1024, 1, 6, 1 / 1024]
    assert adjusted(backend, 0.0, good=1) == [1024, 2, 6, 1 / 1024]


def test_clipping_heeds_the_norm_without_the_scale(backend):
    assert adjusted(backend, 4096.0, max_norm=2.0) == [1024, 1, 6, 0.5 / 1024]
    assert adjusted(backend, 1024.0, max_norm=2.0) == [1024, 1, 6, 1 / 1024]


def test_after_enough_good_steps_the_scale_grows_up_to_the_largest(backend):
    assert adjusted(backend, 1.0, good=2) == [2048, 0, 6, 1 / 1024]
    assert adjusted(backend, 1.0, scale=4096.0, good=2) == [4096, 0, 6, 1 / 4096]


@pytest.mark.parametrize("norm", [np.inf, np.nan])
def test_an_overflow_leaves_the_step_out_and_lowers_the_scale(backend, norm):
    scale, good, step, gradient_scale = adjusted(backend, norm, good=2)
    assert (scale, good, step) == (512, 0, 5)
    assert np.isnan(gradient_scale)
    assert adjusted(backend, norm, scale=1.0)[0] == 1  # and never below 1
