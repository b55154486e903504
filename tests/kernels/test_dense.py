"""A dense layer forward and backward, against NumPy in float64: products, bias and activation in any combination."""

import numpy as np
import pytest

from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.kernels.cuda_kernels import cublaslt
from gpu_nn.kernels.relu_backward_fusion import ReluBackwardFusion
from tests.kernels.conftest import WITH_PRODUCTS

pytestmark = WITH_PRODUCTS
SHAPES = ((1, 1, 1), (5, 3, 7), (33, 17, 2), (64, 20, 48))  # rows, inputs, units


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def forward(backend, x, w, b, activation, dtype):
    arrays = [None if array is None else backend.array(array.astype(dtype)) for array in (x, w, b)]
    z = backend.array(np.full((len(x), w.shape[1]), np.nan, dtype))
    a = z if ACTIVATIONS[activation].of_output else backend.array(np.full(z.shape, np.nan, dtype))
    backend.kernels.dense(*arrays, z, a, activation)
    return arrays, z, a


def exact(x, w, b, activation):
    """z, a and act'(z) in float64."""
    z = x @ w + (0 if b is None else b)
    a, slope = np.empty_like(z), np.empty_like(z)
    entry = ACTIVATIONS[activation]
    entry.forward(z, a)
    entry.derivative(a if entry.of_output else z, slope)
    return z, a, slope


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("biased", [True, False])
def test_forward_and_backward(backend, dtype, activation, biased):
    tolerance = 2e-5 if dtype == "float32" else 1e-12
    for n, inputs, units in SHAPES:
        x, w = (numbers(i, *shape) for i, shape in enumerate(((n, inputs), (inputs, units))))
        b, da = numbers(2, units) if biased else None, numbers(3, n, units)
        (x_there, w_there, _), z, a = forward(backend, x, w, b, activation, dtype)
        z64, a64, slope = exact(x, w, b, activation)
        np.testing.assert_allclose(backend.host(a), a64, rtol=tolerance, atol=tolerance)
        d = backend.array(da.astype(dtype))
        dw, dx = (backend.array(np.full(shape, np.nan, dtype)) for shape in (w.shape, x.shape))
        db = backend.array(np.full(units, np.nan, dtype)) if biased else None
        saved = a if ACTIVATIONS[activation].of_output else z
        backend.kernels.dense_backward(x_there, w_there.T, d, saved, dw, db, dx, activation)
        delta = da * slope
        # Where z is next to 0, a kink may fall to its other side.
        clear = (np.abs(z64) > 1e-6).all()
        assert clear
        for found, truth in ((d, delta), (dw, x.T @ delta), (dx, delta @ w.T), (db, delta.sum(axis=0))):
            if found is not None:
                scale = np.abs(truth).max()
                np.testing.assert_allclose(backend.host(found), truth, rtol=0, atol=tolerance * max(scale, 1))


@pytest.mark.parametrize("activation", ["identity", "relu", "tanh"])
def test_the_input_gradient_is_left_out_where_nobody_needs_it(backend, activation):
    x, w, b = numbers(0, 6, 4), numbers(1, 4, 3), numbers(2, 3)
    (x_there, w_there, _), _, a = forward(backend, x, w, b, activation, np.float32)
    d = backend.array(numbers(3, 6, 3).astype(np.float32))
    dw, db = backend.array(np.empty((4, 3), np.float32)), backend.array(np.empty(3, np.float32))
    backend.kernels.dense_backward(x_there, w_there.T, d, a, dw, db, None, activation)
    np.testing.assert_allclose(backend.host(dw), x.T @ backend.host(d), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(backend.host(db), backend.host(d).sum(axis=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("units", [1, 7, 127, 128, 130, 300])
@pytest.mark.parametrize("classes", [1, 5])
def test_the_backward_pass_makes_delta_of_a_relu_below(backend, units, classes, biased, dtype):
    n, inputs, kernels = 9, 6, backend.kernels
    tolerance = 2e-5 if dtype == "float32" else 1e-12
    x, w, above = numbers(0, n, inputs), numbers(1, inputs, units), numbers(2, units, classes)
    b, d = numbers(3, units) if biased else None, numbers(4, n, classes)
    x[3] = 0  # without a bias z is 0 there exactly, and so is the derivative
    a64 = exact(x, w, b, "relu")[1]
    delta = (d @ above.T) * (a64 > 0)
    x, w, above, d, b = (None if v is None else backend.array(v.astype(dtype)) for v in (x, w, above, d, b))
    a, dx, dw, db, of_below = (
        backend.array(np.full(shape, np.nan, dtype))
        for shape in ((n, units), (n, units), (units, classes), classes, units)
    )
    columns = kernels.relu_mask_bytes(units)
    assert columns == (-(-units // 128) * 16 if backend.name == "emulated" and cublaslt.available() else 0)
    mask = backend.zeros((n, columns), np.uint8) if columns else None
    below = ReluBackwardFusion(a, of_below if biased else None, mask)
    kernels.dense(x, w, b, a, a, "relu", relu_fusion=below)
    np.testing.assert_allclose(backend.host(a), a64, rtol=tolerance, atol=tolerance)
    assert below.masked == (bool(columns) and biased)
    kernels.dense_backward(a, above.T, d, d, dw, db, dx, "identity", below=below)
    scale = max(np.abs(delta).max(), 1)
    np.testing.assert_allclose(backend.host(dx), delta, rtol=0, atol=tolerance * scale)
    assert not backend.host(dx)[a64 == 0].any()
    if biased:
        np.testing.assert_allclose(backend.host(of_below), delta.sum(axis=0), rtol=0, atol=n * tolerance * scale)


@pytest.mark.parametrize("shift", [0, 1, 2, 3, 4])
def test_arrays_that_begin_anywhere(backend, shift):
    x, w, b = (numbers(i, *shape).astype(np.float32) for i, shape in enumerate(((9, 5), (5, 8), (8,))))
    z = backend.shifted(np.zeros((9, 8), np.float32), shift)
    backend.kernels.dense(backend.shifted(x, shift), backend.shifted(w, shift), backend.array(b), z, z, "relu")
    np.testing.assert_allclose(backend.host(z), np.maximum(x @ w + b, 0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["identity", "relu", "gelu"])
def test_nan_stays_in_its_row_and_inf_is_not_hidden(backend, activation):
    x, w, b = numbers(0, 6, 4), np.abs(numbers(1, 4, 3)), numbers(2, 3)
    x[2] = np.nan
    x[4] = np.inf
    with np.errstate(invalid="ignore"):
        _, _, a = forward(backend, x, w, b, activation, np.float32)
    found = backend.host(a)
    assert np.isnan(found[2]).all()
    assert (found[4] == np.inf).all()
    assert np.isfinite(found[[0, 1, 3, 5]]).all()


def test_nothing_comes_of_no_rows(backend):
    x, w, b = numbers(0, 0, 4), numbers(1, 4, 3), numbers(2, 3)
    (x_there, w_there, _), _, a = forward(backend, x, w, b, "relu", np.float32)
    assert a.shape == (0, 3)
    dw, db = (backend.array(np.full(shape, 5, np.float32)) for shape in ((4, 3), 3))
    dx = backend.array(np.empty((0, 4), np.float32))
    backend.kernels.dense_backward(x_there, w_there.T, a, a, dw, db, dx, "relu")
    np.testing.assert_array_equal(backend.host(dw), 0)
    np.testing.assert_array_equal(backend.host(db), 0)
