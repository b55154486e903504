"""Batch normalisation and activation: a = act(weight · x̂ + bias), x̂ = (x - mean) / √(variance + eps), by columns."""

import numpy as np

from gpu_nn.kernels.numpy_kernels.normalisation import activate, derive, quiet, sum_columns, summed_blocks
from gpu_nn.kernels.numpy_kernels.rows import scratch


@quiet
def batch_statistics(
    x: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    running_mean: np.ndarray,
    running_variance: np.ndarray,
    momentum: float,
) -> None:
    """mean, variance: of each column of x, (n, width), n ≥ 2; the variance is that of these n rows, Σ (x - mean)² / n.

    running ← running + momentum · (batch - running), there with Σ (x - mean)² / (n - 1).
    """
    n = len(x)
    # Relative to the first row, so that a column of equal values has variance 0.
    mean[...] = x[0]
    mean += _sums(x, mean)[0] / n
    # Where the first row is an outlier, Σ (x - mean) corrects the mean.
    left, squares = _sums(x, mean, squares=True)
    mean += left / n
    variance[...] = squares / n
    running_mean += momentum * (mean - running_mean)
    running_variance += momentum * (squares / (n - 1) - running_variance)


def _sums(x: np.ndarray, mean: np.ndarray, squares: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Σ_r (x - mean), and with `squares` Σ_r (x - mean)², in float64."""
    n, width = x.shape
    plain, square = np.zeros(width), np.zeros(width)
    for block in summed_blocks(n, width):
        off = scratch.take("standard", x[block].shape, x.dtype)
        np.subtract(x[block], mean, out=off)
        sum_columns(off, plain)
        if squares:
            off *= off
            sum_columns(off, square)
    return plain, square


@quiet
def batch_norm(
    x: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    out: np.ndarray,
    eps: float,
    activation: str,
) -> None:
    """out = act(weight · (x - mean) / √(variance + eps) + bias). x, out: (n, width); the others: (width,)."""
    scale = 1 / np.sqrt(variance + x.dtype.type(eps))
    for block in summed_blocks(*x.shape):
        activate(_standard(x[block], mean, scale), weight, bias, out[block], activation)


@quiet
def batch_norm_backward(
    d: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    weight_grad: np.ndarray,
    bias_grad: np.ndarray,
    eps: float,
    activation: str,
    of_batch: bool,
) -> None:
    """d, ∂C/∂out, becomes ∂C/∂x; weight_grad = Σ_r dz x̂ and bias_grad = Σ_r dz, where dz = d · act'.

    of_batch: mean and variance are those of x, and change with it; else they are constants.
    """
    n, width = x.shape
    scale = 1 / np.sqrt(variance + x.dtype.type(eps))
    weight_total, bias_total = np.zeros(width), np.zeros(width)
    for block in summed_blocks(n, width):
        derive(d[block], _standard(x[block], mean, scale), weight, bias, activation, weight_total, bias_total)
    weight_grad[...], bias_grad[...] = weight_total, bias_total
    for block in summed_blocks(n, width):
        dz = d[block]
        if of_batch:
            standard = _standard(x[block], mean, scale)
            standard *= weight_grad / n
            dz -= standard
            dz -= bias_grad / n
        dz *= weight * scale


def _standard(x: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    standard = scratch.take("standard", x.shape, x.dtype)
    np.subtract(x, mean, out=standard)
    standard *= scale
    return standard
