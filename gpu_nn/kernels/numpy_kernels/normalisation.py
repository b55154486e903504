"""What layer and batch normalisation share: the affine map with its activation, and column sums of blocks of rows."""

from collections.abc import Iterator

import numpy as np

from gpu_nn.kernels.activations import ACTIVATIONS, slope
from gpu_nn.kernels.numpy_kernels.rows import blocks, scratch

# Columns are summed sequentially within a block, which keeps the digits of float32 up to this many rows.
_ROWS_OF_A_SUM = 4096
_ELEMENTS_A_ROW = (1 << 16) // _ROWS_OF_A_SUM

# Values that are not finite show in the result, as on a GPU.
quiet = np.errstate(invalid="ignore", over="ignore")


def summed_blocks(n: int, width: int) -> Iterator[slice]:
    """The rows 0…n in blocks that stay in the cache and whose columns can be summed."""
    return blocks(n, max(width, _ELEMENTS_A_ROW))


def sum_columns(block: np.ndarray, total: np.ndarray) -> None:
    """total_j += Σ_r block_rj, total of float64."""
    total += scratch.ones(len(block), block.dtype) @ block


def activate(standard: np.ndarray, weight: np.ndarray, bias: np.ndarray, out: np.ndarray, activation: str) -> None:
    """out = act(weight · x̂ + bias); x̂ is overwritten."""
    standard *= weight
    standard += bias
    ACTIVATIONS[activation].forward(standard, out)


def derive(
    d: np.ndarray,
    standard: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    activation: str,
    weight_total: np.ndarray,
    bias_total: np.ndarray,
) -> None:
    """d ← dz = d · act'(weight · x̂ + bias); weight_total += Σ_r dz x̂, bias_total += Σ_r dz."""
    work = scratch.take("work", standard.shape, standard.dtype)
    if activation != "identity":
        z = scratch.take("affine", standard.shape, standard.dtype)
        np.multiply(standard, weight, out=z)
        z += bias
        slope(z, activation, work)
        d *= work
    sum_columns(np.multiply(d, standard, out=work), weight_total)
    sum_columns(d, bias_total)
