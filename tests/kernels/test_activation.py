"""bias + activation and its backward pass, against mpmath, finite differences and exact integer sums."""

import math

import ml_dtypes
import mpmath
import numpy as np
import pytest

from gpu_nn.kernels import activations
from gpu_nn.kernels.activations import ACTIVATIONS, LEAK, Activation
from gpu_nn.kernels.cuda_kernels import sources
from tests.kernels.activations import ACTIVATION_DERIVATIVES, ACTIVATION_FORMULAS

FLOATS = (np.float32, np.float64)

# Half types are for GPUs; a network on the CPU is float32 or float64.
ON_GPUS = pytest.mark.parametrize("backend", ["emulated", pytest.param("gpu", marks=pytest.mark.gpu)], indirect=True)

EVERY_ACTIVATION = pytest.mark.parametrize("activation", ACTIVATIONS)

# 1 … 17 meets every residue of a pack of 2, 4 or 8; the others lie around a warp, a block's tile (1024 floats) and two.
WIDTHS = (*range(1, 18), 31, 32, 33, 255, 256, 257, 511, 513, 1023, 1024, 1025, 2047, 2049, 4100)
HEIGHTS = (1, 2, 3, 8, 17)


def points(dtype):
    random = np.random.default_rng(3)
    extremes = [0.0, -0.0, 1e4, -1e4, 88.0, -88.0, 20.0, -20.0, 1e-30, -1e-30, 1e-4, -1e-4, 1.0, -1.0]
    return np.concatenate([extremes, random.normal(0, 1, 200), random.normal(0, 8, 200)]).astype(dtype)


def within_rounding(got, function, at, ulps):
    """Each got_i is function(s) for some s within `ulps` roundings of at_i, and then rounded as often."""
    epsilon, tiny = np.finfo(got.dtype).eps, np.finfo(got.dtype).tiny  # a GPU may flush what is smaller than tiny
    with mpmath.workdps(40):
        for value, s in zip(got.astype(float).tolist(), at.astype(float).tolist(), strict=True):
            s = mpmath.mpf(s)
            true = function(s)
            sway = max(abs(function(s * (1 + sign * ulps * float(epsilon))) - true) for sign in (-1, 1)) if s else 0
            error = abs(mpmath.mpf(value) - true)
            assert error <= sway + ulps * float(epsilon) * abs(true) + float(tiny), (float(s), value, float(true))


def test_every_activation_is_tested():
    assert ACTIVATION_FORMULAS.keys() == ACTIVATION_DERIVATIVES.keys() == ACTIVATIONS.keys()


@EVERY_ACTIVATION
@pytest.mark.parametrize("dtype", FLOATS)
def test_forward_is_the_formula_also_at_extremes(backend, activation, dtype):
    z = points(dtype)
    a = backend.array(z.reshape(-1, 1).copy())
    out = a if ACTIVATIONS[activation].of_output else backend.array(np.full((len(z), 1), np.nan, dtype))
    backend.kernels.bias_activation(a, None, out, activation)
    within_rounding(backend.host(out)[:, 0], ACTIVATION_FORMULAS[activation], z, ulps=4)


@EVERY_ACTIVATION
@pytest.mark.parametrize("dtype", FLOATS)
def test_derivative_is_the_formula_also_at_extremes(backend, activation, dtype):
    saved = z = points(dtype)
    if ACTIVATIONS[activation].of_output:
        with mpmath.workdps(40):
            saved = np.array([float(ACTIVATION_FORMULAS[activation](mpmath.mpf(float(v)))) for v in z]).astype(dtype)
    da = backend.array(np.ones((len(z), 1), dtype))
    backend.kernels.bias_activation_backward(da, backend.array(saved.reshape(-1, 1)), None, activation)
    within_rounding(backend.host(da)[:, 0], ACTIVATION_DERIVATIVES[activation], saved, ulps=4)


@EVERY_ACTIVATION
def test_backward_agrees_with_finite_differences(backend, activation):
    random = np.random.default_rng(5)
    z, b, weight = random.normal(0, 2, (40, 7)), random.normal(0, 1, 7), random.normal(0, 1, (40, 7))
    z[abs(z + b) < 1e-2] = 3  # away from kinks

    def cost(z, b):
        a, z = backend.array(np.empty_like(z)), backend.array(z.copy())
        backend.kernels.bias_activation(z, backend.array(b), a, activation)
        return (weight * backend.host(a)).sum()

    kept, a = backend.array(z.copy()), backend.array(np.empty_like(z))
    backend.kernels.bias_activation(kept, backend.array(b), a, activation)
    da, db = backend.array(weight.copy()), backend.array(np.full(7, np.nan))
    backend.kernels.bias_activation_backward(da, a if ACTIVATIONS[activation].of_output else kept, db, activation)

    h = 1e-6
    for direction, slope in (
        (random.normal(0, 1, z.shape), backend.host(da)),
        (random.normal(0, 1, 7), backend.host(db)),
    ):
        of_z = direction.ndim == 2
        up, down = (cost(z + s * direction, b) if of_z else cost(z, b + s * direction) for s in (h, -h))
        assert (slope * direction).sum() == pytest.approx((up - down) / (2 * h), rel=1e-6, abs=1e-6)


def test_kinks_have_the_derivative_of_their_left_side_but_elu_is_smooth(backend):
    slopes = {}
    for activation in ("relu", "leaky_relu", "elu"):
        da = backend.array(np.ones((1, 1), np.float32))
        backend.kernels.bias_activation_backward(da, backend.array(np.zeros((1, 1), np.float32)), None, activation)
        slopes[activation] = float(backend.host(da)[0, 0])
    assert slopes == {"relu": 0.0, "leaky_relu": pytest.approx(LEAK), "elu": 1.0}


@EVERY_ACTIVATION
@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_stays_nan_and_stays_in_its_place(backend, activation, dtype):
    z, a = np.ones((5, 6), dtype), backend.array(np.empty((5, 6), dtype))
    z[2, 3] = np.nan
    backend.kernels.bias_activation(backend.array(z.copy()), None, a, activation)
    np.testing.assert_array_equal(np.isnan(backend.host(a)), np.isnan(z))
    da, db = backend.array(z.copy()), backend.array(np.zeros(6, dtype))
    backend.kernels.bias_activation_backward(da, backend.array(np.ones((5, 6), dtype)), db, activation)
    np.testing.assert_array_equal(np.isnan(backend.host(da)), np.isnan(z))
    np.testing.assert_array_equal(np.isnan(backend.host(db)), np.isnan(z).any(axis=0))


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS.keys() - {"identity", "relu", "leaky_relu"}))
def test_nan_that_was_saved_reaches_the_gradient_of_every_smooth_activation(backend, activation):
    da = backend.array(np.ones((1, 1), np.float32))
    backend.kernels.bias_activation_backward(da, backend.array(np.full((1, 1), np.nan, np.float32)), None, activation)
    assert np.isnan(backend.host(da)).all()


@pytest.mark.parametrize("activation", ["gelu", "silu"])
def test_z_is_kept_with_its_bias_where_the_derivative_needs_it(backend, activation):
    random = np.random.default_rng(1)
    z, b = random.normal(0, 1, (9, 5)).astype(np.float32), random.normal(0, 1, 5).astype(np.float32)
    kept, a = backend.array(z.copy()), backend.array(np.empty_like(z))
    backend.kernels.bias_activation(kept, backend.array(b), a, activation)
    np.testing.assert_array_equal(backend.host(kept), z + b)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", WIDTHS)
def test_whole_numbers_come_out_exact_at_every_width(backend, width, dtype):
    """relu and sums of small integers are exact, so a bias of another column or a row counted twice is seen."""
    random = np.random.default_rng(width)
    for n in HEIGHTS:
        z, b = random.integers(-9, 9, (n, width)).astype(dtype), random.integers(-9, 9, width).astype(dtype)
        a = backend.array(z.copy())
        backend.kernels.bias_activation(a, backend.array(b), a, "relu")
        np.testing.assert_array_equal(backend.host(a), np.maximum(z + b, 0))
        da, db = random.integers(-9, 9, (n, width)).astype(dtype), backend.array(np.full(width, np.nan, dtype))
        dz = backend.array(da.copy())
        backend.kernels.bias_activation_backward(dz, a, db, "relu")
        np.testing.assert_array_equal(backend.host(dz), da * (z + b > 0))
        np.testing.assert_array_equal(backend.host(db), (da * (z + b > 0)).sum(axis=0))


@pytest.mark.parametrize(("n", "width"), [(40_000, 1), (9_001, 10), (3_000, 257), (2, 70_001), (700, 1_500)])
def test_tall_and_wide_matrices(backend, n, width):
    """From many chunks of rows, a few of them with a last row that is cut, to many tiles of columns."""
    random = np.random.default_rng(n)
    z, b = random.integers(-9, 9, (n, width)).astype(np.float32), random.integers(-9, 9, width).astype(np.float32)
    a = backend.array(z.copy())
    backend.kernels.bias_activation(a, backend.array(b), a, "relu")
    np.testing.assert_array_equal(backend.host(a), np.maximum(z + b, 0))
    dz, db = backend.array(z.copy()), backend.array(np.empty(width, np.float32))
    backend.kernels.bias_activation_backward(dz, a, db, "relu")
    np.testing.assert_array_equal(backend.host(dz), z * (z + b > 0))
    np.testing.assert_array_equal(backend.host(db), (z * (z + b > 0)).sum(axis=0, dtype=np.float64))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("other", [0, 1])
def test_unaligned_views_give_the_same_and_touch_nothing_else(backend, dtype, other):
    """Views that begin at every place between two 16-byte boundaries, the second array there or one element on."""
    random = np.random.default_rng(2)
    for n, width in ((6, 5), (3, 8), (33, 127)):
        z, b = random.normal(0, 1, (n, width)).astype(dtype), random.normal(0, 1, width).astype(dtype)
        expected = np.tanh(z + b)
        for shift in range(5):
            memory, spare = (np.full(n * width + 16, 7, dtype) for _ in range(2))
            memory[shift : shift + z.size] = z.reshape(-1)
            memory, spare = backend.array(memory), backend.array(spare)
            view = memory[shift : shift + z.size].reshape(n, width)
            a = spare[shift + other : shift + other + z.size].reshape(n, width)
            backend.kernels.bias_activation(view, backend.array(b), a, "tanh")
            np.testing.assert_allclose(backend.host(a), expected, rtol=4 * np.finfo(dtype).eps)
            backend.kernels.bias_activation_backward(view, a, None, "tanh")
            within = np.finfo(dtype).eps * 4 * (1 + abs(z + b))
            assert (abs(backend.host(view) - (z + b) * (1 - expected**2)) <= within).all()
            for array, begin in ((memory, shift), (spare, shift + other)):
                host = backend.host(array).copy()
                host[begin : begin + z.size] = 7
                assert (host == 7).all()


@EVERY_ACTIVATION
def test_a_batch_of_no_rows_has_a_bias_gradient_of_zero(backend, activation):
    a, db = backend.array(np.empty((0, 3), np.float32)), backend.array(np.full(3, np.nan, np.float32))
    backend.kernels.bias_activation(a, backend.array(np.ones(3, np.float32)), a, "relu")
    backend.kernels.bias_activation_backward(a, a, db, activation)
    np.testing.assert_array_equal(backend.host(db), 0)


@ON_GPUS
def test_sums_of_a_tall_matrix_lose_no_digits(backend):
    """No partial sum has more than a few hundred terms; a chain of all 100,003 is off by 24 roundings (as BLAS is)."""
    a = np.random.default_rng(0).normal(1, 1, (100_003, 3)).astype(np.float32)
    db = backend.array(np.empty(3, np.float32))
    backend.kernels.bias_activation_backward(backend.array(a.copy()), backend.array(a.copy()), db, "identity")
    exact = np.array([math.fsum(column) for column in a.T.tolist()])
    assert (abs(backend.host(db) - exact) <= np.finfo(np.float32).eps * abs(a).sum(axis=0)).all()


@ON_GPUS
@pytest.mark.parametrize(
    "activation",
    # One of either kind of derivative; the others differ from these in their formula, which float32 has tested.
    [pytest.param(name, marks=() if name in ("tanh", "silu") else pytest.mark.slow) for name in ACTIVATIONS],
)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_half_types_are_the_float32_result_rounded(backend, activation, dtype):
    random = np.random.default_rng(4)
    z, b, da = (random.normal(0, 2, shape).astype(dtype) for shape in ((37, 11), 11, (37, 11)))
    results = []
    for of in (dtype, np.float32):
        kept, a = backend.array(z.astype(of)), backend.array(np.empty(z.shape, of))
        backend.kernels.bias_activation(kept, backend.array(b.astype(of)), a, activation)
        saved = a if ACTIVATIONS[activation].of_output else kept
        saved = backend.array(backend.host(saved).astype(dtype).astype(of))
        dz, db = backend.array(da.astype(of)), backend.array(np.empty(11, of))
        backend.kernels.bias_activation_backward(dz, saved, db, activation)
        results.append([backend.host(x).astype(np.float32) for x in (kept, a, dz, db)])
    for half, full in zip(*results, strict=True):
        np.testing.assert_array_equal(half, full.astype(dtype).astype(np.float32))


def test_same_input_same_bits(backend):
    a = np.random.default_rng(6).normal(0, 1, (3_001, 45)).astype(np.float32)
    sums = []
    for _ in range(2):
        db = backend.array(np.empty(45, np.float32))
        backend.kernels.bias_activation_backward(backend.array(a.copy()), backend.array(a.copy()), db, "sigmoid")
        sums.append(backend.host(db).tobytes())
    assert sums[0] == sums[1]


def test_a_new_activation_is_one_entry_of_the_table(backend, monkeypatch):
    square = Activation(
        forward=lambda z, a: np.multiply(z, z, out=a),
        derivative=lambda z, d: np.add(z, z, out=d),
        cuda_forward="z * z",
        cuda_derivative="T(2) * z",
        onnx=lambda g, z: g.Mul(z, z),
        of_output=False,
    )
    monkeypatch.setitem(activations.ACTIVATIONS, "square", square)
    sources.source.cache_clear()
    try:
        z = np.arange(-6, 6, dtype=np.float32).reshape(3, 4)
        a, dz = backend.array(np.empty_like(z)), backend.array(np.ones_like(z))
        backend.kernels.bias_activation(backend.array(z.copy()), None, a, "square")
        backend.kernels.bias_activation_backward(dz, backend.array(z.copy()), None, "square")
    finally:
        sources.source.cache_clear()
    np.testing.assert_array_equal(backend.host(a), z * z)
    np.testing.assert_array_equal(backend.host(dz), 2 * z)
