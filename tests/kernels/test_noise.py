"""Gaussian noise from the words of NumPy's Philox, by Box and Muller."""

from importlib import import_module

import ml_dtypes
import numpy as np
import pytest
from scipy import stats

from tests.kernels.test_dropout import SIZES, words

# Of cos and sin at a rounded angle, times a radius of up to 6.8.
CLOSE = {np.float32: {"rtol": 1e-6, "atol": 5e-6}, np.float64: {"rtol": 1e-14, "atol": 1e-14}}


def noised(backend, x, deviation=1.0, seed=0, draw=0):
    before, out = backend.array(x.copy()), backend.zeros(x.shape, x.dtype)
    backend.kernels.noise(before, out, deviation, seed, backend.array(np.array([draw], np.uint64)))
    np.testing.assert_array_equal(backend.host(before).astype(np.float64), x.astype(np.float64))
    return backend.host(out)


def normals(seed, draw, size):
    """In float64, from 32-bit words."""
    pairs = words(seed, draw, size + size % 2).reshape(-1, 2).astype(np.float64)
    radius = np.sqrt(-2 * np.log((pairs[:, 0] + 0.5) / 2**32))
    angle = 2 * np.pi * pairs[:, 1] / 2**32
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:size]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
def test_noise_is_box_mullers_of_the_stream(backend, size, dtype):
    x = np.random.default_rng(size).normal(0, 3, size).astype(dtype)
    out = noised(backend, x, 0.7, seed=2024, draw=5)
    np.testing.assert_allclose(out, x + 0.7 * normals(2024, 5, size), **CLOSE[dtype])


@pytest.mark.parametrize("seed", [1, 2**32, 2**64, 2**127 + 12345])
@pytest.mark.parametrize("draw", [0, 1, 2**32 + 7, 2**64 - 1])
def test_all_bits_of_seed_and_draw_count(backend, seed, draw):
    out = noised(backend, np.zeros(999), 1.0, seed, draw)
    np.testing.assert_allclose(out, normals(seed, draw, 999), rtol=1e-13, atol=1e-14)


def test_it_is_normal(backend):
    """Kolmogorov and Smirnov's test against N(0, 1), and of neighbours no correlation."""
    found = noised(backend, np.zeros(200_000), 2.0, seed=5) / 2
    assert stats.kstest(found, "norm").pvalue > 0.001
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 5 / np.sqrt(len(found))


def test_words_at_both_ends_give_finite_numbers(numpy_backend, monkeypatch):
    """The largest radius belongs to word 0, and none to the last one, in float32 too."""
    ends = np.array([0, 0, 2**32 - 1, 0, 0, 2**32 - 1], np.uint32)
    module = import_module("gpu_nn.kernels.numpy_kernels.noise")
    monkeypatch.setattr(module, "words", lambda *_: [(slice(0, 6), ends)])
    for dtype in (np.float32, np.float64):
        out = noised(numpy_backend, np.zeros(6, dtype))
        np.testing.assert_allclose(out[[0, 4]], np.sqrt(-2 * np.log(0.5 / 2**32)), rtol=1e-6)
        np.testing.assert_allclose(out[[1, 2, 3, 5]], 0, atol=2e-5)


def test_it_is_added_in_place_and_to_unaligned_views(backend):
    x = np.random.default_rng(0).normal(0, 1, 2100).astype(np.float32)
    expected = noised(backend, x, 0.5, seed=9)
    for shift in (0, 1, 4, 7):
        memory = np.full(2116, 7, np.float32)
        memory[shift : shift + 2100] = x
        memory = backend.array(memory)
        view = memory[shift : shift + 2100]
        backend.kernels.noise(view, view, 0.5, 9, backend.array(np.zeros(1, np.uint64)))
        np.testing.assert_array_equal(backend.host(view), expected)
        assert (np.delete(backend.host(memory), np.arange(shift, shift + 2100)) == 7).all()


@pytest.mark.parametrize("backend", ["emulated", pytest.param("gpu", marks=pytest.mark.gpu)], indirect=True)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_half_types_round_the_same_noise(backend, dtype):
    out = noised(backend, np.zeros(3001, dtype), 1.0, seed=4).astype(np.float64)
    np.testing.assert_allclose(out, normals(4, 0, 3001), rtol=2**-8, atol=1e-5)
