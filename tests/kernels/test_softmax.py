"""softmax, log_softmax, log1m_softmax and all_but_one_softmax on every driver of a row."""

import numpy as np
import pytest
from mpmath import mp, mpf, workdps

from gpu_nn.kernels import numpy_kernels
from gpu_nn.testing import reference
from tests.kernels.assertions import assert_rows_close, smallest_normal
from tests.kernels.rows import BFLOAT16, FLOATS, length_of_some_variants, lengths_around_thresholds, logits, rows_for

FUNCTIONS = ("softmax", "log_softmax", "log1m_softmax", "all_but_one_softmax")
EVERY_FUNCTION = pytest.mark.parametrize("function", FUNCTIONS)


def left_out(z, seed=0):
    """Classes to leave out: the maximum in every second row."""
    t = np.random.default_rng((seed, *z.shape)).integers(0, z.shape[1], len(z))
    t[::2] = z.astype(np.float64).argmax(axis=1)[::2]
    return t


def run(backend, function, z, t=None, in_place=False, shifts=(0, 0)):
    on_device = backend.shifted(z, shifts[0])
    out = on_device if in_place else backend.shifted(np.full_like(z, 7), shifts[1])
    middle = (backend.array(t),) if function == "all_but_one_softmax" else ()
    getattr(backend.kernels, function)(on_device, *middle, out)
    return backend.host(out)


def truth_of(function, z, t):
    z = z.astype(np.float64)
    out = np.empty_like(z)
    getattr(numpy_kernels, function)(z, *((t,) if function == "all_but_one_softmax" else ()), out)
    if function == "log1m_softmax":
        p = np.empty_like(z)
        numpy_kernels.softmax(z, p)
        np.log1p(-p, out=out, where=p <= 0.5)
    return out


def check(backend, function, z, **how):
    t = left_out(z)
    answer, truth = run(backend, function, z.copy(), t, **how), truth_of(function, z, t)
    assert_rows_close(answer, truth)
    if z.dtype.itemsize > 2:
        assert_values_close(answer, truth, z)


def assert_values_close(answer, truth, z):
    """Each value has all its digits but those that the rounding of z_j - M takes from e to that power."""
    finite = np.isfinite(truth)
    unit = np.finfo(answer.dtype).eps
    with np.errstate(invalid="ignore"):
        depth = np.nan_to_num(z.astype(np.float64).max(axis=1)[:, None] - z, posinf=0)
    allowed = np.abs(truth[finite]) * unit * (16 + np.minimum(depth[finite], 1e4)) + smallest_normal(answer.dtype)
    assert (np.abs(answer[finite] - truth[finite]) <= allowed).all()


@EVERY_FUNCTION
@pytest.mark.parametrize("m", length_of_some_variants(4, True))
def test_every_driver(backend, function, m):
    check(backend, function, logits(rows_for(m), m, np.float32))


@pytest.mark.slow
@EVERY_FUNCTION
@pytest.mark.parametrize(
    ("dtype", "m"), [(dtype, m) for dtype in FLOATS for m in lengths_around_thresholds(dtype.itemsize, True)]
)
def test_around_every_threshold(backend, function, dtype, m):
    check(backend, function, logits(rows_for(m), m, dtype))


@EVERY_FUNCTION
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_every_type(backend, function, dtype):
    for m in (3, 67):
        check(backend, function, logits(rows_for(m), m, np.dtype(dtype)))


@EVERY_FUNCTION
def test_in_place_and_memory_that_begins_anywhere(backend, function):
    for m in (3, 67, 6151, 57_863):
        z = logits(rows_for(m), m, BFLOAT16)
        t = left_out(z)
        bits = run(backend, function, z.copy(), t).view(np.uint16)
        np.testing.assert_array_equal(run(backend, function, z.copy(), t, in_place=True).view(np.uint16), bits)
        for shift in (1, 5, 7):
            check(backend, function, z, shifts=(shift, 8 - shift))


@pytest.mark.parametrize("m", [3, 10])
@pytest.mark.parametrize("scale", [1, 30, 300])
def test_against_the_seed(backend, m, scale):
    z = (np.random.default_rng((m, scale)).normal(0, 1, (3, m)) * scale).astype(np.float32)
    t = left_out(z)
    answers = {function: run(backend, function, z.copy(), t).astype(np.float64) for function in FUNCTIONS}
    for row in range(len(z)):
        with workdps(reference.digits_for(z[row])):
            p = [reference.soft(z[row], j) for j in range(m)]
            truths = {
                "softmax": p,
                "log_softmax": [mp.log(value) for value in p],
                "log1m_softmax": [mp.log(1 - value) for value in p],
                "all_but_one_softmax": [
                    mpf(0) if j == t[row] else reference.soft(z[row], j, but=t[row]) for j in range(m)
                ],
            }
            for function, truth in truths.items():
                as_float = np.array([[float(value) for value in truth]])
                assert_rows_close(answers[function][row : row + 1].astype(np.float32), as_float)


@pytest.mark.parametrize("m", length_of_some_variants(4, True))
def test_rows_of_unusual_logits(backend, m):
    """No class, one class, NaN, infinity: the limits, and each in its row alone."""
    z = logits(6, m, np.float32)
    z[0] = -np.inf
    z[1, 1:] = -np.inf
    z[2, m // 2] = np.nan
    z[3, m - 1] = np.inf
    t = np.array([0, 0, 0, 0, m, -1])
    softmax, log_softmax, log1m_softmax, but_one = (run(backend, function, z.copy(), t) for function in FUNCTIONS)
    assert not softmax[0].any()
    assert np.isneginf(log_softmax[0]).all()
    assert not log1m_softmax[0].any()
    assert not but_one[0].any()
    np.testing.assert_array_equal(softmax[1], np.arange(m) == 0)
    assert log_softmax[1, 0] == 0
    assert np.isneginf(log_softmax[1, 1:]).all()
    assert np.isneginf(log1m_softmax[1, 0])
    for broken in (2, 3):
        for out in (softmax, log_softmax, log1m_softmax):
            assert np.isnan(out[broken]).all()
        np.testing.assert_array_equal(np.isnan(but_one[broken]), np.arange(m) != 0)
    assert np.isnan(but_one[4:]).all()
    for out in (softmax, log_softmax, log1m_softmax):
        assert not np.isnan(out[[0, 1, 4, 5]]).any()


@pytest.mark.parametrize("m", length_of_some_variants(4, True))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_leaving_out_the_class_that_is_not_finite_does_not_hide_it(backend, m, value):
    z = logits(6, m, np.float32)
    t = left_out(z)
    rows = np.arange(3, 6)
    z[rows, t[rows]] = value
    z[5] = value
    out = run(backend, "all_but_one_softmax", z, t)
    left = np.arange(m) == t[:, None]
    np.testing.assert_array_equal(np.isnan(out), np.isin(np.arange(6), rows)[:, None] & ~left)
    assert not out[left].any()


@EVERY_FUNCTION
def test_no_rows(backend, function):
    assert run(backend, function, np.empty((0, 4), np.float32), np.empty(0, np.int64)).shape == (0, 4)
