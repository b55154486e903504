"""A dense layer, a = act(b + x·w), and its backward pass: products with what goes along with them (seed, section 3)."""

from functools import cache
from typing import Any

import numpy as np

from gpu_nn.device import Array, cupy_module
from gpu_nn.kernels.cuda_kernels import cublaslt
from gpu_nn.kernels.cuda_kernels.activation import bias_activation, bias_activation_backward
from gpu_nn.kernels.cuda_kernels.linear import matmul

# What a product of cublasLt takes along. Not its GELU, which is the one by tanh; nor the derivative of ReLU, for which
# the forward pass would have to write a mask of bits.
_EPILOGUES = {"identity": "BIAS", "relu": "RELU_BIAS"}


def dense(x: Array, w: Array, b: Array | None, z: Array, a: Array, activation: str, tf32: bool = False) -> None:
    """a = act(z), z = b + x·w. x: (n, inputs). w: (inputs, units). a is z where the derivative is of the output.

    tf32: whether factors of float32 may be rounded to 10 bits after the point, where the device gains by it.
    """
    fused = b is not None and activation in _EPILOGUES and a is z and (activation != "relu" or _relu_keeps_nan())
    if not fused or not cublaslt.gemm(x, w, z, epilogue=_EPILOGUES[activation], bias=b, tf32=tf32):
        matmul(x, w, z, tf32)
        bias_activation(z, b, a, activation)


def _relu_keeps_nan() -> bool:
    """Whether cublasLt's ReLU leaves NaN as it is, as ours does: a training that diverges must show it."""
    module = cupy_module()
    return cublaslt.available() and _found_to_keep_nan(module, module.cuda.get_device_id())


@cache
def _found_to_keep_nan(module: Any, device: int) -> bool:
    zeros, nan = module.zeros((16, 16), np.float32), module.full(16, np.nan, np.float32)
    out = module.zeros((16, 16), np.float32)
    return cublaslt.gemm(zeros, zeros, out, epilogue="RELU_BIAS", bias=nan) and bool(module.isnan(out).all())


def dense_backward(
    x: Array,
    w_transposed: Array,
    da: Array,
    saved: Array,
    dw: Array,
    db: Array | None,
    dx: Array | None,
    activation: str,
    tf32: bool = False,
) -> None:
    """da becomes δ = ∂C/∂z; db = Σ_r δ, dw = xᵀδ, dx = δ wᵀ. saved: a, or z where the derivative is of the input.

    x, w and da may be of a half type, with dw and db of float32; tf32 as in `dense`.
    """
    # The kernel of an activation sums the columns on its way; where there is none, the product does.
    if activation != "identity" or db is None or not cublaslt.gemm(x.T, da, dw, epilogue="BGRADA", bias=db, tf32=tf32):
        bias_activation_backward(da, saved, db, activation)
        matmul(x.T, da, dw, tf32)
    if dx is not None:
        matmul(da, w_transposed, dx, tf32)
