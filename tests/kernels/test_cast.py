"""Casts between float32 and the half types, against NumPy and ml_dtypes."""

import ml_dtypes
import numpy as np
import pytest

HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
SIZES = (*range(20), 255, 1023, 2049, 5000)
EXTREMES = np.array([0, -0.0, np.inf, -np.inf, np.nan, 65504, 65520, 1e-8, 6e-8, 1e-40, 3.4e38, 1 + 2**-9], np.float32)


@pytest.mark.parametrize("half", HALVES)
def test_every_size_both_ways(backend, half):
    for size in SIZES:
        source = np.random.default_rng(size).normal(0, 100, size).astype(np.float32)
        small = backend.array(np.full(size, 7, HALVES[half]))
        backend.kernels.cast(backend.array(source), small)
        expected = source.astype(HALVES[half])
        np.testing.assert_array_equal(backend.host(small), expected)
        wide = backend.array(np.full(size, 7, np.float32))
        backend.kernels.cast(small, wide)
        np.testing.assert_array_equal(backend.host(wide), expected.astype(np.float32))


@pytest.mark.parametrize("half", HALVES)
def test_extremes_round_as_ieee_says(backend, half):
    small = backend.array(np.zeros(EXTREMES.size, HALVES[half]))
    backend.kernels.cast(backend.array(EXTREMES), small)
    with np.errstate(over="ignore"):
        expected = EXTREMES.astype(HALVES[half])
    np.testing.assert_array_equal(backend.host(small).astype(np.float32), expected.astype(np.float32))


@pytest.mark.parametrize("shift", range(1, 8))
def test_views_that_are_not_aligned(backend, shift):
    source = np.random.default_rng(1).normal(0, 1, 100).astype(np.float32)
    for one, other in ((shift, 0), (0, shift), (shift, shift)):
        out = backend.shifted(np.zeros(100, np.float16), other)
        backend.kernels.cast(backend.shifted(source, one), out)
        np.testing.assert_array_equal(backend.host(out), source.astype(np.float16))
