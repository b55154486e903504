"""Comparison of the loss and its gradient with a float64 reference, within stated tolerances."""

from typing import Any

import numpy as np

from gpu_nn.device import CPU
from gpu_nn.kernels import kernels_for

numpy_kernels = kernels_for(CPU)


def tolerance_of(dtype: np.dtype) -> float:
    """The largest allowed error of a row, relative to the row's largest value."""
    return 1e-13 if dtype == np.float64 else 4e-6


def smallest_normal(dtype: np.dtype) -> float:
    """Of the type that is computed in: a GPU may flush smaller numbers to 0."""
    return 2.0**-1022 if dtype == np.float64 else 2.0**-126


def dense(y: np.ndarray, m: int) -> np.ndarray:
    """Targets (n, m) in float64, of class indices (n,) or of targets."""
    return y.astype(np.float64) if y.ndim == 2 else (y[:, None] == np.arange(m)).astype(np.float64)


def cross_entropy(z: np.ndarray, y: np.ndarray, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Loss (n,) and gradient (n, m) of the same numbers, by the NumPy kernel in float64."""
    z = z.astype(np.float64)
    for name in ("class_weight", "row_scale"):
        if options.get(name) is not None:
            options[name] = options[name].astype(np.float64)
    loss, dz = np.empty(len(z)), np.empty_like(z)
    if y.ndim == 2:
        y = y.astype(np.float64)
    numpy_kernels.softmax_cross_entropy(z, y, loss, dz, **options)
    return loss, dz


def largest_term(z: np.ndarray, y: np.ndarray, **options: Any) -> np.ndarray:
    """Of each row, the largest sum of the absolute terms of one g_j, as `reference.Exact.terms`."""
    z = z.astype(np.float64)
    n, m = z.shape
    rows, k = np.arange(n), z.argmax(axis=1)
    log_p, log_c, s = np.empty_like(z), np.empty_like(z), np.empty_like(z)
    numpy_kernels.log_softmax(z, log_p)
    numpy_kernels.log1m_softmax(z, log_c)
    numpy_kernels.all_but_one_softmax(z, k, s)
    with np.errstate(all="ignore"):
        odds = np.exp(log_p - log_c)
    odds[rows, k] = 0
    smoothing = options.get("label_smoothing", 0.0)
    targets = dense(y, m) * (1 - smoothing) + smoothing / m
    weight = options.get("class_weight")
    weight = np.ones(m) if weight is None else weight.astype(np.float64)
    a, b = weight * targets, options.get("complement_weight", 1.0) * weight * (1 - targets)
    p_k, c_k = np.exp(log_p[rows, k]), np.exp(log_c[rows, k])
    a_k, b_k = a[rows, k], b[rows, k]
    a_total, r = a.sum(axis=1)[:, None], (b * odds).sum(axis=1)[:, None]
    p, c = np.exp(log_p), np.exp(log_c)
    summands = p * (a_total - a) + b * p + a * c + p * (r - b * odds) + (b_k * p_k)[:, None] * s
    summands[rows, k] = p_k * (a_total[:, 0] - a_k) + b_k * p_k + a_k * c_k + p_k * r[:, 0]
    scale = options.get("scale", 1.0) * (1 if options.get("row_scale") is None else options["row_scale"])
    return np.nan_to_num(summands.max(axis=1) * np.abs(scale))


def assert_rows_close(answer: np.ndarray, reference: np.ndarray, term: np.ndarray | None = None) -> None:
    """Raise AssertionError unless each row's error is within the tolerance of its largest value.

    A 16-bit type may round once more. term: of each row, from `largest_term`; where a row cancels to less than a
    twentieth of it, the tolerance is relative to that twentieth.
    """
    dtype = answer.dtype
    np.testing.assert_equal(answer.shape, reference.shape)
    answer = answer.astype(np.float64)
    same = (answer == reference) | (np.isnan(answer) & np.isnan(reference))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(answer - reference))
    finite = np.where(np.isfinite(reference), np.abs(reference), 0.0)
    measure = finite.max(axis=1, initial=0)
    if term is not None:
        measure = np.maximum(measure, term / 20)
    allowed = tolerance_of(dtype) * measure[:, None] + smallest_normal(dtype)
    if dtype.itemsize == 2:
        allowed = allowed + _ulp(finite, dtype)
    bad = ~(error <= allowed)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise AssertionError(
            f"{bad.sum()} of {bad.size} values are off; the first, row {row} column {column}, is "
            f"{answer[row, column]!r} and should be {reference[row, column]!r}; the tolerance is relative "
            f"to {measure[row]!r}"
        )


def assert_losses_close(answer: np.ndarray, reference: np.ndarray) -> None:
    np.testing.assert_allclose(answer, reference, rtol=tolerance_of(answer.dtype), atol=smallest_normal(answer.dtype))


def _ulp(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The distance of neighbouring numbers of a 16-bit type at these values."""
    bits, lowest = (10, -14) if dtype == np.float16 else (7, -126)
    exponent = np.maximum(np.frexp(values)[1] - 1, lowest)
    return np.ldexp(1.0, exponent - bits)
