"""Layer normalisation and activation: a = act(weight · x̂ + bias), x̂ = (x - mean) / √(variance + eps), by rows."""

import numpy as np

from gpu_nn.kernels.numpy_kernels.normalisation import activate, derive, quiet, summed_blocks
from gpu_nn.kernels.numpy_kernels.rows import scratch


@quiet
def layer_norm(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    out: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    eps: float,
    activation: str,
) -> None:
    """out = act(weight · (x - mean) / √(variance + eps) + bias), with mean and variance, (n,), of the rows of x.

    x, out: (n, width). weight, bias: (width,). The variance of a row is Σ_j (x_j - mean)² / width.
    """
    n, width = x.shape
    for block in summed_blocks(n, width):
        rows = x[block]
        standard = scratch.take("standard", rows.shape, x.dtype)
        square = scratch.take("work", rows.shape, x.dtype)
        # Relative to the first value, so that a row of equal values has variance 0.
        np.subtract(rows, rows[:, :1], out=standard)
        np.add(rows[:, 0], _row_mean(standard), out=mean[block])
        np.subtract(rows, mean[block][:, None], out=standard)
        np.multiply(standard, standard, out=square)
        variance[block] = _row_mean(square)
        # Where the first value is an outlier, Σ (x - mean) corrects the mean.
        left = _row_mean(standard)
        mean[block] += left
        standard -= left[:, None]
        standard *= _scale(variance[block], eps)
        activate(standard, weight, bias, out[block], activation)


@quiet
def layer_norm_backward(
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
) -> None:
    """d, ∂C/∂out, becomes ∂C/∂x; weight_grad = Σ_r dz x̂ and bias_grad = Σ_r dz, where dz = d · act'."""
    n, width = x.shape
    weight_total, bias_total = np.zeros(width), np.zeros(width)
    for block in summed_blocks(n, width):
        dz, scale = d[block], _scale(variance[block], eps)
        standard = scratch.take("standard", dz.shape, x.dtype)
        np.subtract(x[block], mean[block][:, None], out=standard)
        standard *= scale
        derive(dz, standard, weight, bias, activation, weight_total, bias_total)
        dz *= weight
        work = scratch.take("work", dz.shape, x.dtype)
        np.multiply(dz, standard, out=work)
        standard *= _row_mean(work)[:, None]
        dz -= _row_mean(dz)[:, None]
        dz -= standard
        dz *= scale
    weight_grad[...], bias_grad[...] = weight_total, bias_total


def _row_mean(rows: np.ndarray) -> np.ndarray:
    mean = rows @ scratch.ones(rows.shape[1], rows.dtype)
    mean /= rows.shape[1]
    return mean


def _scale(variance: np.ndarray, eps: float) -> np.ndarray:
    return 1 / np.sqrt(variance + variance.dtype.type(eps))[:, None]
