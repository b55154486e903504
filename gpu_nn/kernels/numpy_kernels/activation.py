"""a = act(z + b) and its backward pass, with the bias gradient's column sum (seed, section 3)."""

from collections.abc import Iterator

import numpy as np

from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.kernels.numpy_kernels.linear import column_sum
from gpu_nn.kernels.numpy_kernels.rows import BLOCK_ELEMENTS, blocks, scratch


def bias_activation(z: np.ndarray, b: np.ndarray | None, a: np.ndarray, activation: str) -> None:
    """z += b and a = act(z), (n, width) and (width,). a is z itself where the derivative is of the output."""
    forward = ACTIVATIONS[activation].forward
    for z_block, a_block in _blocks(z, a):
        if b is not None:
            z_block += b
        if activation != "identity" or a is not z:
            forward(z_block, a_block)


def bias_activation_backward(da: np.ndarray, saved: np.ndarray, db: np.ndarray | None, activation: str) -> None:
    """da becomes ∂C/∂z = ∂C/∂a · act'(z); db_j = Σ_r ∂C/∂z_rj. saved: a, or z where the derivative is of the input."""
    if activation != "identity":
        derivative = ACTIVATIONS[activation].derivative
        for da_block, saved_block in _blocks(da, saved):
            work = scratch.take("work", da_block.shape, da.dtype)
            derivative(saved_block, work)
            da_block *= work
    if db is not None:
        column_sum(da, db)


def _blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if a.size <= BLOCK_ELEMENTS:
        yield a, b
        return
    for block in blocks(*a.shape):
        yield a[block], b[block]
