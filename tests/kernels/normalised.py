"""Truth for layer and batch normalisation: plain formulas in float64, and matrices that make them hard."""

import ml_dtypes
import numpy as np
import pytest

from gpu_nn.kernels.activations import ACTIVATIONS, slope

EPS = 1e-5

# The numbers of a batch in a half type, and how far the nearest of them lies; NumPy's kernels have no such types.
ROUNDING = {np.float16: 2.0**-11, ml_dtypes.bfloat16: 2.0**-8}
HALVES = pytest.mark.parametrize("dtype", ROUNDING, ids=["float16", "bfloat16"])
ON_GPU = pytest.mark.parametrize("backend", ["emulated", pytest.param("gpu", marks=pytest.mark.gpu)], indirect=True)


def computed(dtype):
    """The type of statistics, parameters and sums beside a batch of that type."""
    return np.float32 if dtype in ROUNDING else dtype


def moments(x, axis):
    """Mean and variance, from the first value on: exact where all are equal."""
    first = x.take(0, axis=axis)
    off = x - np.expand_dims(first, axis)
    mean = off.mean(axis=axis)
    return first + mean, ((off - np.expand_dims(mean, axis)) ** 2).mean(axis=axis)


def condition(x, axis):
    """What one rounding of the mean is of a standard deviation, in roundings: 1 + max|x| / √(variance + eps)."""
    x = x.astype(np.float64)
    size = np.abs(x).max(axis=axis, initial=0) / np.sqrt(moments(x, axis)[1] + EPS)
    return 1 + np.expand_dims(size, axis)


def forward(x, weight, bias, axis, activation, eps=EPS, statistics=None):
    """a, mean and variance, from x in float64; statistics: a (mean, variance) that is given."""
    x, weight, bias = (array.astype(np.float64) for array in (x, weight, bias))
    mean, variance = statistics or moments(x, axis)
    z = weight * (x - np.expand_dims(mean, axis)) / np.sqrt(np.expand_dims(variance, axis) + eps) + bias
    a = np.empty_like(z)
    ACTIVATIONS[activation].forward(z, a)
    return a, mean, variance


def backward(d, x, weight, bias, axis, activation, eps=EPS, statistics=None):
    """∂C/∂x, ∂C/∂weight and ∂C/∂bias, x's mean and variance changing with it unless they are given.

    Then the sizes of what adds up to each and may cancel: of ∂C/∂x the largest term of each row or column.
    """
    d, x, weight, bias = (array.astype(np.float64) for array in (d, x, weight, bias))
    _, mean, variance = forward(x, weight, bias, axis, "identity", eps, statistics)
    scale = 1 / np.sqrt(np.expand_dims(variance, axis) + eps)
    standard = (x - np.expand_dims(mean, axis)) * scale
    derivative = np.empty_like(x)
    slope(weight * standard + bias, activation, derivative)
    dz = d * derivative
    g = dz * weight
    if statistics is None:
        g = g - g.mean(axis=axis, keepdims=True) - standard * (g * standard).mean(axis=axis, keepdims=True)
    term = np.abs(d) * condition(x, axis)
    size = (term * np.abs(weight) * scale).max(axis=axis, keepdims=True, initial=0)
    sizes = size, (term * np.maximum(1, np.abs(standard))).sum(axis=0), term.sum(axis=0)
    return g * scale, (dz * standard).sum(axis=0), dz.sum(axis=0), sizes


def parameters(width, dtype, seed=0):
    random, dtype = np.random.default_rng((seed, width)), computed(dtype)
    return random.normal(1, 0.5, width).astype(dtype), random.normal(0, 0.5, width).astype(dtype)


def matrix(n, width, dtype, seed=0):
    """Numbers of unlike size and place; where there is room for them, a constant row and column, and outliers first."""
    random = np.random.default_rng((seed, n, width))
    x = random.normal(0, 1, (n, width)) * 10 ** random.uniform(-1, 1, width) + random.normal(0, 3, width)
    if n > 4:
        x[1] = 7.1
        x[2, 0] = 500
    if width > 4:
        x[:, 2] = -3.3
        x[0, 3] = 1e4
    return x.astype(dtype)


def close(found, exact, dtype, size=None):
    """Within a few roundings of the largest number, or of `size`; of a half type then rounded once."""
    tolerance = 1e-12 if dtype == np.float64 else 2e-5
    size = np.abs(exact).max(initial=0) if size is None else size
    assert found.shape == exact.shape
    rounding = ROUNDING.get(found.dtype.type, 0)
    smallest = 2.0**-25 if found.dtype == np.float16 else 1e-30
    error = np.abs(found.astype(np.float64) - exact)
    assert (error <= tolerance * size + rounding * np.abs(exact) + smallest).all(), error.max() / np.max(size)


def close_gradients(found, exact, dtype):
    *exact, sizes = exact
    for one, truth, of in zip(found, exact, sizes, strict=True):
        close(one, truth, dtype, of)
