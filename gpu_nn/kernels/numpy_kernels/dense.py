"""A dense layer, a = act(b + x·w), and its backward pass: matrix products with bias and activation."""

import numpy as np

from gpu_nn.kernels.numpy_kernels.activation import bias_activation, bias_activation_backward
from gpu_nn.kernels.relu_backward_fusion import ReluBackwardFusion


def dense(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    z: np.ndarray,
    a: np.ndarray,
    activation: str,
    tf32: bool = False,
    relu_fusion: ReluBackwardFusion | None = None,
) -> None:
    """a = act(z), z = b + x·w. x: (n, inputs). w: (inputs, units). a is z where the derivative is of the output.

    tf32: whether factors of float32 may be rounded to 10 bits after the point, where the device gains by it.
    relu_fusion: where the layer above fuses this layer's ReLU into its backward pass.
    """
    np.dot(x, w, out=z)
    bias_activation(z, b, a, activation)


def dense_backward(
    x: np.ndarray,
    w_transposed: np.ndarray,
    da: np.ndarray,
    saved: np.ndarray,
    dw: np.ndarray,
    db: np.ndarray | None,
    dx: np.ndarray | None,
    activation: str,
    tf32: bool = False,
    below: ReluBackwardFusion | None = None,
) -> None:
    """da becomes δ = ∂C/∂z; db = Σ_r δ, dw = xᵀδ, dx = δ wᵀ. saved: a, or z where the derivative is of the input.

    x, w and da may be of a half type, with dw and db of float32; tf32 as in `dense`. below: of the layer
    that computed x; this call then computes that layer's bias gradient too, and dx is its ∂C/∂z instead of its ∂C/∂a.
    """
    bias_activation_backward(da, saved, db, activation)
    np.dot(x.T, da, out=dw)
    if dx is not None:
        np.dot(da, w_transposed, out=dx)
        if below is not None:
            bias_activation_backward(dx, below.a, below.bias_grad, "relu")


def relu_mask_bytes(units: int) -> int:
    """Bytes of a row of `ReluBackwardFusion.mask`; 0 where no matrix product writes one."""
    return 0
