"""Layer normalisation against plain float64 formulas."""

import numpy as np
import pytest

from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.kernels.cuda_kernels.layer_norm import LONGEST_IN_SHARED, SHUFFLE_SHARDS
from tests.kernels.normalised import (
    EPS,
    HALVES,
    ON_GPU,
    ROUNDING,
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


def widths(dtype):
    """Every residue of a vector and of the threads of a row, and both sides of each threshold."""
    longest_in_shared = LONGEST_IN_SHARED // np.dtype(computed(dtype)).itemsize
    ends = [longest // np.dtype(dtype).itemsize for longest, _ in SHUFFLE_SHARDS] + [longest_in_shared]
    if dtype in ROUNDING:
        ends.append(longest_in_shared // 8)  # beyond, the sums of 8 rows do not fit
    return sorted({*range(1, 10), 31, 33, 100, *(end + off for end in ends for off in (-1, 0, 1, 4))})


CASES = [(dtype, width) for dtype in FLOATS for width in widths(dtype)]
EVERY_WIDTH = pytest.mark.parametrize(("dtype", "width"), CASES, ids=[f"{d.__name__}-{w}" for d, w in CASES])


def normalised(backend, x, weight, bias, activation="identity", eps=EPS):
    n = len(x)
    out, mean, variance = (backend.zeros(*of) for of in ((x.shape, x.dtype), (n, weight.dtype), (n, weight.dtype)))
    backend.kernels.layer_norm(*map(backend.array, (x, weight, bias)), out, mean, variance, eps, activation)
    return tuple(map(backend.host, (out, mean, variance)))


def derived(backend, d, x, weight, bias, activation="identity", eps=EPS):
    """∂C/∂x, ∂C/∂weight, ∂C/∂bias, after a forward pass."""
    _, mean, variance = normalised(backend, x, weight, bias, activation, eps)
    dx, weight_grad, bias_grad = backend.array(d.copy()), *(backend.array(np.full_like(bias, np.nan)) for _ in "wb")
    arrays = map(backend.array, (x, mean, variance, weight, bias))
    backend.kernels.layer_norm_backward(dx, *arrays, weight_grad, bias_grad, eps, activation)
    return tuple(map(backend.host, (dx, weight_grad, bias_grad)))


def check(backend, n, width, dtype, activation):
    x, (weight, bias) = matrix(n, width, dtype), parameters(width, dtype)
    found, exact = normalised(backend, x, weight, bias, activation), forward(x, weight, bias, 1, activation)
    close(found[0], exact[0], dtype, np.abs(exact[0]).max() * condition(x, 1))
    close(found[1], exact[1], dtype, np.abs(x).max(axis=1))
    close(found[2], exact[2], dtype, exact[2])
    d = np.random.default_rng(n).normal(0, 1, x.shape).astype(dtype)
    found = derived(backend, d, x, weight, bias, activation)
    close_gradients(found, backward(d, x, weight, bias, 1, activation), dtype)


@EVERY_WIDTH
def test_every_width_is_right_forward_and_back(backend, dtype, width):
    for n in (1, 2, 9, 70) if width < 600 else (1, 19):
        check(backend, n, width, dtype, "tanh")


@ON_GPU
@pytest.mark.parametrize(
    ("dtype", "width"),
    [(dtype, width) for dtype in ROUNDING for width in widths(dtype)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_half_type_is_right_at_every_width_with_statistics_of_float32(backend, dtype, width):
    for n in (1, 2, 9, 70) if width < 600 else (1, 19):
        check(backend, n, width, dtype, "tanh")


@ON_GPU
@HALVES
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_right_in_a_half_type(backend, activation, dtype):
    check(backend, 37, 24, dtype, activation)


@ON_GPU
@HALVES
@pytest.mark.parametrize("width", [16, 17, 1000])
def test_a_half_row_far_from_0_keeps_what_its_type_holds(backend, dtype, width):
    """Its mean, its variance and the sums of the gradients do not fit into the half type."""
    x = (200 + np.random.default_rng(0).normal(0, 3, (2000, width))).astype(dtype)
    weight, bias = parameters(width, dtype)
    _, mean, variance = normalised(backend, x, weight, bias)
    assert mean.dtype == variance.dtype == np.float32
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(variance, x.astype(np.float64).var(axis=1), rtol=1e-4)
    d = np.full(x.shape, 100, dtype)
    _, _, bias_grad = derived(backend, d, x, weight, bias)
    np.testing.assert_array_equal(bias_grad, np.float32(200_000))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_right_forward_and_back(backend, activation):
    check(backend, 37, 20, np.float64, activation)


def test_more_rows_than_blocks(backend):
    check(backend, 66_000, 3, np.float32, "identity")


def test_no_rows_have_no_gradient(backend):
    x, (weight, bias) = np.empty((0, 5), np.float32), parameters(5, np.float32)
    dx, weight_grad, bias_grad = derived(backend, x, x, weight, bias)
    assert dx.shape == (0, 5)
    assert not weight_grad.any()
    assert not bias_grad.any()


@pytest.mark.parametrize("width", [1, 3, 8, 100, 1000])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.0625, -3e30])
def test_a_row_of_equal_values_is_its_bias(backend, width, value):
    x, (weight, bias) = np.full((3, width), value, np.float32), parameters(width, np.float32)
    out, mean, variance = normalised(backend, x, weight, bias)
    np.testing.assert_array_equal(variance, 0)
    np.testing.assert_array_equal(mean, np.float32(value))
    np.testing.assert_array_equal(out, np.broadcast_to(bias, x.shape))


def test_a_mean_far_from_0_does_not_cost_the_variance_its_digits(backend):
    """E[x²] - E[x]² would be left with none."""
    x = (1e4 + np.random.default_rng(0).normal(0, 1, (20, 300))).astype(np.float32)
    weight, bias = np.ones(300, np.float32), np.zeros(300, np.float32)
    _, mean, variance = normalised(backend, x, weight, bias)
    exact = x.astype(np.float64).var(axis=1)
    np.testing.assert_allclose(variance, exact, rtol=1e-6)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(axis=1), rtol=1e-7)


def test_a_first_value_that_is_the_odd_one_out_does_not_cost_the_mean_its_digits(backend):
    x = (10 + np.random.default_rng(0).normal(0, 1, (20, 3001))).astype(np.float32)
    x[:, 0] = 3e4
    _, mean, variance = normalised(backend, x, np.ones(3001, np.float32), np.zeros(3001, np.float32))
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(variance, x.astype(np.float64).var(axis=1), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("width", [5, 70, 600])
def test_a_row_that_is_not_finite_stays_alone(backend, bad, width):
    x, (weight, bias) = matrix(6, width, np.float32), parameters(width, np.float32)
    x[3, 4] = bad
    out, *_ = normalised(backend, x, weight, bias)
    np.testing.assert_array_equal(np.isfinite(out).all(axis=1), np.arange(6) != 3)
    assert np.isnan(out[3]).all()


@pytest.mark.parametrize("width", [8, 9, 200])
def test_unaligned_views_give_the_same_and_touch_nothing_else(backend, width):
    x, (weight, bias) = matrix(11, width, np.float32), parameters(width, np.float32)
    d = np.ones_like(x)
    expected, expected_back = normalised(backend, x, weight, bias), derived(backend, d, x, weight, bias)
    for shift in (1, 2, 3):
        memory = backend.array(np.full(x.size + 8, 7, np.float32))
        out = memory[shift : shift + x.size].reshape(x.shape)
        mean, variance = backend.zeros(11, np.float32), backend.zeros(11, np.float32)
        arrays = [backend.shifted(array, shift) for array in (x, weight, bias)]
        backend.kernels.layer_norm(*arrays, out, mean, variance, EPS, "identity")
        close(backend.host(out), expected[0], np.float32)
        assert (np.delete(backend.host(memory), np.arange(shift, shift + x.size)) == 7).all()
        d_view, weight_grad = backend.shifted(d, shift), backend.zeros(width, np.float32)
        bias_grad = backend.zeros(width, np.float32)
        backend.kernels.layer_norm_backward(
            d_view, arrays[0], mean, variance, *arrays[1:], weight_grad, bias_grad, EPS, "identity"
        )
        found = map(backend.host, (d_view, weight_grad, bias_grad))
        close_gradients(found, (*expected_back, (10, None, None)), np.float32)


@pytest.mark.parametrize("width", [7, 300])
def test_two_runs_leave_the_same_bits(backend, width):
    x, (weight, bias) = matrix(400, width, np.float32), parameters(width, np.float32)
    d = np.random.default_rng(1).normal(0, 1, x.shape).astype(np.float32)
    for one, other in zip(*(derived(backend, d, x, weight, bias, "silu") for _ in range(2)), strict=True):
        np.testing.assert_array_equal(one, other)
