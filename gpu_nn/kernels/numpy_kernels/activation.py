"""a = act(z + b) and its backward pass, with the bias gradient's column sum."""

import numpy as np

from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.kernels.numpy_kernels.linear import column_sum
from gpu_nn.kernels.numpy_kernels.rows import BLOCK_ELEMENTS, blocks, scratch


def bias_activation(z: np.ndarray, b: np.ndarray | None, a: np.ndarray, activation: str) -> None:
    """z += b and a = act(z), (n, width) and (width,). a is z itself where the derivative is of the output."""
    if z.size <= BLOCK_ELEMENTS:
        _add_and_activate(z, b, a, activation)
        return
    for block in blocks(*z.shape):
        z_block = z[block]
        _add_and_activate(z_block, b, z_block if a is z else a[block], activation)


def _add_and_activate(z: np.ndarray, b: np.ndarray | None, a: np.ndarray, activation: str) -> None:
    if b is not None:
        z += b
    if activation != "identity" or a is not z:
        ACTIVATIONS[activation].forward(z, a)


def bias_activation_backward(da: np.ndarray, saved: np.ndarray, db: np.ndarray | None, activation: str) -> None:
    """da becomes ∂C/∂z = ∂C/∂a · act'(z); db_j = Σ_r ∂C/∂z_rj. saved: a, or z where the derivative is of the input."""
    if activation != "identity":
        if da.size > BLOCK_ELEMENTS:
            for block in blocks(*da.shape):
                _times_derivative(da[block], saved[block], activation)
        else:
            _times_derivative(da, saved, activation)
    if db is not None:
        column_sum(da, db)


def _times_derivative(da: np.ndarray, saved: np.ndarray, activation: str) -> None:
    work = scratch.take("work", da.shape, da.dtype)
    ACTIVATIONS[activation].derivative(saved, work)
    da *= work
