"""Batch normalisation against plain float64 formulas."""

import numpy as np
import pytest

from gpu_nn.kernels.activations import ACTIVATIONS
from tests.kernels.normalised import (
    EPS,
    HALVES,
    ON_GPU,
    backward,
    close,
    close_gradients,
    computed,
    condition,
    forward,
    matrix,
    parameters,
)

FLOATS = (np.float32, np.float64)
# Every residue of a vector, both sides of a block's tile of columns (512 of float64, else 1024), and several tiles.
WIDTHS = (*range(1, 18), 31, 33, 255, 257, 511, 513, 1023, 1024, 1025, 4100)


def statistics(backend, x, running_mean=None, running_variance=None, momentum=0.1):
    """mean, variance, running mean and running variance, these from 0 and 1."""
    width = x.shape[1]
    found = [backend.array(np.full(width, value, computed(x.dtype.type))) for value in (np.nan, np.nan, 0, 1)]
    if running_mean is not None:
        found[2:] = [backend.array(array.copy()) for array in (running_mean, running_variance)]
    backend.kernels.batch_statistics(backend.array(x), *found, momentum)
    return tuple(map(backend.host, found))


def normalised(backend, x, mean, variance, weight, bias, activation="identity"):
    out = backend.zeros(x.shape, x.dtype)
    backend.kernels.batch_norm(*map(backend.array, (x, mean, variance, weight, bias)), out, EPS, activation)
    return backend.host(out)


def derived(backend, d, x, mean, variance, weight, bias, activation="identity", of_batch=True):
    """∂C/∂x, ∂C/∂weight, ∂C/∂bias."""
    dx, weight_grad, bias_grad = backend.array(d.copy()), *(backend.array(np.full_like(bias, np.nan)) for _ in "wb")
    arrays = map(backend.array, (x, mean, variance, weight, bias))
    backend.kernels.batch_norm_backward(dx, *arrays, weight_grad, bias_grad, EPS, activation, of_batch)
    return tuple(map(backend.host, (dx, weight_grad, bias_grad)))


def check(backend, n, width, dtype, activation):
    x, (weight, bias) = matrix(n, width, dtype), parameters(width, dtype)
    mean, variance, *_ = statistics(backend, x)
    exact, exact_mean, exact_variance = forward(x, weight, bias, 0, activation)
    # A column's own size: of columns of unlike size each must be right.
    close(mean, exact_mean, dtype, np.abs(x).max(axis=0))
    close(variance, exact_variance, dtype, exact_variance)
    size = np.abs(exact).max(axis=0) * condition(x, 0)
    close(normalised(backend, x, mean, variance, weight, bias, activation), exact, dtype, size)
    d = np.random.default_rng(n).normal(0, 1, x.shape).astype(dtype)
    found = derived(backend, d, x, mean, variance, weight, bias, activation)
    close_gradients(found, backward(d, x, weight, bias, 0, activation), dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_width_is_right_forward_and_back(backend, width, dtype):
    for n in (2, 3, 9, 40) if width < 600 else (2, 19):
        check(backend, n, width, dtype, "tanh")


@ON_GPU
@HALVES
@pytest.mark.parametrize("width", WIDTHS)
def test_a_half_type_is_right_at_every_width_with_statistics_of_float32(backend, width, dtype):
    for n in (2, 3, 9, 40) if width < 600 else (2, 19):
        check(backend, n, width, dtype, "tanh")


@ON_GPU
@HALVES
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_right_in_a_half_type(backend, activation, dtype):
    check(backend, 37, 24, dtype, activation)


@ON_GPU
@HALVES
def test_half_columns_far_from_0_keep_what_their_type_holds(backend, dtype):
    """Their statistics and the sums of the gradients do not fit into the half type."""
    x = (200 + np.random.default_rng(0).normal(0, 3, (5000, 11))).astype(dtype)
    weight, bias = parameters(11, dtype)
    mean, variance, *running = statistics(backend, x, momentum=1.0)
    assert {array.dtype.name for array in (mean, variance, *running)} == {"float32"}
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(variance, x.astype(np.float64).var(axis=0), rtol=1e-4)
    np.testing.assert_allclose(running[1], x.astype(np.float64).var(axis=0, ddof=1), rtol=1e-4)
    _, _, bias_grad = derived(backend, np.full(x.shape, 100, dtype), x, mean, variance, weight, bias)
    np.testing.assert_array_equal(bias_grad, np.float32(500_000))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_right_forward_and_back(backend, activation):
    check(backend, 37, 20, np.float64, activation)


@pytest.mark.parametrize(("n", "width"), [(300_000, 1), (90_001, 10), (5, 70_001), (1_500, 700)])
def test_tall_and_wide_batches(backend, n, width):
    check(backend, n, width, np.float32, "identity")


@pytest.mark.parametrize("n", [2, 3, 100])
def test_running_statistics_move_by_momentum_and_take_the_unbiased_variance(backend, n):
    x, random = matrix(n, 30, np.float64), np.random.default_rng(1)
    before = random.normal(0, 1, 30), random.uniform(0.5, 2, 30)
    *_, running_mean, running_variance = statistics(backend, x, *before, momentum=0.25)
    np.testing.assert_allclose(running_mean, 0.75 * before[0] + 0.25 * x.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(running_variance, 0.75 * before[1] + 0.25 * x.var(axis=0, ddof=1), rtol=1e-11)


@pytest.mark.parametrize("activation", ["identity", "gelu"])
def test_constant_statistics_let_every_row_pass_alone(backend, activation):
    x, (weight, bias) = matrix(13, 21, np.float64), parameters(21, np.float64)
    mean, variance = np.linspace(-1, 1, 21), np.linspace(0.1, 2, 21)
    out = normalised(backend, x, mean, variance, weight, bias, activation)
    close(out, forward(x, weight, bias, 0, activation, statistics=(mean, variance))[0], np.float64)
    d = np.random.default_rng(2).normal(0, 1, x.shape)
    found = derived(backend, d, x, mean, variance, weight, bias, activation, of_batch=False)
    close_gradients(found, backward(d, x, weight, bias, 0, activation, statistics=(mean, variance)), np.float64)
    lone = derived(backend, d[4:5], x[4:5], mean, variance, weight, bias, activation, of_batch=False)
    np.testing.assert_allclose(lone[0][0], found[0][4], rtol=1e-13)


@pytest.mark.parametrize("n", [2, 50, 5000])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.0625, -3e30])
def test_a_column_of_equal_values_is_its_bias(backend, n, value):
    x, (weight, bias) = np.full((n, 7), value, np.float32), parameters(7, np.float32)
    mean, variance, *_ = statistics(backend, x)
    np.testing.assert_array_equal(variance, 0)
    np.testing.assert_array_equal(mean, np.float32(value))
    out = normalised(backend, x, mean, variance, weight, bias)
    np.testing.assert_array_equal(out, np.broadcast_to(bias, x.shape))


@pytest.mark.parametrize("n", [64, 30_000])
def test_a_mean_far_from_0_does_not_cost_the_variance_its_digits(backend, n):
    """E[x²] - E[x]² would be left with none."""
    x = (1e4 + np.random.default_rng(0).normal(0, 1, (n, 5))).astype(np.float32)
    mean, variance, *_ = statistics(backend, x)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(variance, exact.var(axis=0), rtol=1e-5)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=2e-7)


def test_a_first_value_that_is_the_odd_one_out_costs_the_mean_little_of_a_deviation(backend):
    x = (10 + np.random.default_rng(0).normal(0, 1, (3001, 20))).astype(np.float32)
    x[0] = 3e4
    mean, variance, *_ = statistics(backend, x)
    exact = x.astype(np.float64)
    tolerance = 1e-7 if backend.name == "numpy" else 1e-5  # of a standard deviation
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=0, atol=tolerance * exact.std(axis=0).max())
    np.testing.assert_allclose(variance, exact.var(axis=0), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_column_that_is_not_finite_stays_alone(backend, bad):
    x, (weight, bias) = matrix(50, 9, np.float32), parameters(9, np.float32)
    x[17, 4] = bad
    mean, variance, *_ = statistics(backend, x)
    out = normalised(backend, x, mean, variance, weight, bias)
    np.testing.assert_array_equal(np.isfinite(out).all(axis=0), np.arange(9) != 4)
    assert np.isnan(out[:, 4]).all()


@pytest.mark.parametrize("width", [8, 9, 300])
def test_unaligned_views_give_the_same_and_touch_nothing_else(backend, width):
    x, (weight, bias) = matrix(11, width, np.float32), parameters(width, np.float32)
    d = np.ones_like(x)
    mean, variance, *_ = statistics(backend, x)
    expected = normalised(backend, x, mean, variance, weight, bias)
    expected_back = derived(backend, d, x, mean, variance, weight, bias)
    for shift in (1, 2, 3):
        memory = backend.array(np.full(x.size + 8, 7, np.float32))
        out = memory[shift : shift + x.size].reshape(x.shape)
        x_view, d_view = backend.shifted(x, shift), backend.shifted(d, shift)
        of_columns = [backend.shifted(array, shift) for array in (mean, variance, weight, bias)]
        found = [backend.zeros(width + 3, np.float32)[3:] for _ in range(4)]
        backend.kernels.batch_statistics(x_view, *found, 0.1)
        close(backend.host(found[0]), mean, np.float32)
        close(backend.host(found[1]), variance, np.float32)
        backend.kernels.batch_norm(x_view, *of_columns, out, EPS, "identity")
        close(backend.host(out), expected, np.float32)
        assert (np.delete(backend.host(memory), np.arange(shift, shift + x.size)) == 7).all()
        backend.kernels.batch_norm_backward(d_view, x_view, *of_columns, *found[:2], EPS, "identity", True)
        close_gradients(map(backend.host, (d_view, *found[:2])), (*expected_back, (10, None, None)), np.float32)


@pytest.mark.parametrize("width", [7, 1300])
def test_two_runs_leave_the_same_bits(backend, width):
    x, (weight, bias) = matrix(900, width, np.float32), parameters(width, np.float32)
    d = np.random.default_rng(1).normal(0, 1, x.shape).astype(np.float32)

    def run():
        mean, variance, *running = statistics(backend, x)
        return (*running, *derived(backend, d, x, mean, variance, weight, bias, "silu"))

    for one, other in zip(run(), run(), strict=True):
        np.testing.assert_array_equal(one, other)
