"""Matrix products and column sums; on whole numbers they are exact."""

import numpy as np
import pytest

from tests.kernels.conftest import WITH_PRODUCTS

pytestmark = WITH_PRODUCTS
FLOATS = (np.float32, np.float64)
WIDTHS = (*range(1, 18), 31, 33, 255, 257, 1023, 1025, 4100)


def whole(shape, dtype, seed=0):
    return np.random.default_rng(seed).integers(-9, 9, shape).astype(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("transposed", ["", "a", "b", "ab"])
def test_products_of_matrices_and_of_transposed_views(backend, dtype, transposed):
    for n, k, m in ((1, 1, 1), (5, 3, 7), (64, 100, 10)):
        a, b = whole((n, k), dtype, 1), whole((k, m), dtype, 2)
        left = backend.array(np.ascontiguousarray(a.T)).T if "a" in transposed else backend.array(a)
        right = backend.array(np.ascontiguousarray(b.T)).T if "b" in transposed else backend.array(b)
        out = backend.array(np.full((n, m), np.nan, dtype))
        backend.kernels.matmul(left, right, out)
        np.testing.assert_array_equal(backend.host(out), a @ b)
        backend.kernels.matmul_add(left, right, out)
        np.testing.assert_array_equal(backend.host(out), 2 * (a @ b))


def test_a_product_over_nothing_is_zero(backend):
    a, b = backend.array(np.empty((3, 0), np.float32)), backend.array(np.empty((0, 4), np.float32))
    out = backend.array(np.full((3, 4), 5, np.float32))
    backend.kernels.matmul_add(a, b, out)
    np.testing.assert_array_equal(backend.host(out), 5)
    backend.kernels.matmul(a, b, out)
    np.testing.assert_array_equal(backend.host(out), 0)


@pytest.mark.parametrize(("n", "m"), [(0, 4), (3, 0), (0, 0)])
def test_a_product_of_no_rows_or_columns_changes_nothing(backend, n, m):
    a, b = backend.array(np.ones((n, 2), np.float32)), backend.array(np.ones((2, m), np.float32))
    out = backend.array(np.empty((n, m), np.float32))
    backend.kernels.matmul(a, b, out)
    backend.kernels.matmul_add(a, b, out)
    assert backend.host(out).shape == (n, m)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", WIDTHS)
def test_column_sums_of_every_width(backend, width, dtype):
    for n in (0, 1, 2, 7, 40):
        a = whole((n, width), dtype, n)
        out = backend.array(np.full(width, np.nan, dtype))
        backend.kernels.column_sum(backend.array(a), out)
        np.testing.assert_array_equal(backend.host(out), a.sum(axis=0))
        backend.kernels.column_sum_add(backend.array(a), out)
        np.testing.assert_array_equal(backend.host(out), 2 * a.sum(axis=0))


@pytest.mark.parametrize(("n", "width"), [(300_000, 1), (90_001, 10), (3, 70_001), (1_500, 1_500)])
def test_column_sums_of_tall_and_wide_matrices(backend, n, width):
    a = whole((n, width), np.float32)
    out = backend.array(np.empty(width, np.float32))
    backend.kernels.column_sum(backend.array(a), out)
    np.testing.assert_array_equal(backend.host(out), a.sum(axis=0, dtype=np.float64))


def test_column_sums_of_unaligned_views(backend):
    a = whole((23, 9), np.float32)
    for shift in range(5):
        memory = np.full(a.size + 8, np.nan, np.float32)
        memory[shift : shift + a.size] = a.reshape(-1)
        out = backend.array(np.full(11, 7, np.float32))
        view = backend.array(memory)[shift : shift + a.size].reshape(a.shape)
        backend.kernels.column_sum(view, out[1:10])
        np.testing.assert_array_equal(backend.host(out), [7, *a.sum(axis=0), 7])
