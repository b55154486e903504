"""A dense layer, a = act(b + x·w), and its backward pass: matrix products with bias and activation."""

from functools import cache
from typing import Any

import numpy as np

from gpu_nn.device import Array, cupy_module
from gpu_nn.kernels.cuda_kernels import cublaslt
from gpu_nn.kernels.cuda_kernels.activation import bias_activation, bias_activation_backward
from gpu_nn.kernels.cuda_kernels.launch_config import ceil_div
from gpu_nn.kernels.cuda_kernels.linear import column_sum, matmul
from gpu_nn.kernels.relu_backward_fusion import ReluBackwardFusion

# Epilogues of cublasLt's products. Its GELU is the tanh approximation, so it is not used.
_EPILOGUES = {"identity": "BIAS", "relu": "RELU_BIAS"}


def dense(
    x: Array,
    w: Array,
    b: Array | None,
    z: Array,
    a: Array,
    activation: str,
    tf32: bool = False,
    relu_fusion: ReluBackwardFusion | None = None,
) -> None:
    """a = act(z), z = b + x·w. x: (n, inputs). w: (inputs, units). a is z where the derivative is of the output.

    tf32: whether factors of float32 may be rounded to 10 bits after the point, where the device gains by it.
    relu_fusion: where the layer above fuses this layer's ReLU into its backward pass.
    """
    fused = b is not None and activation in _EPILOGUES and a is z and (activation != "relu" or _relu_keeps_nan())
    if relu_fusion is not None:
        mask = relu_fusion.mask
        relu_fusion.masked = (
            fused
            and mask is not None
            and cublaslt.gemm(x, w, z, epilogue="RELU_AUX_BIAS", bias=b, mask=mask, tf32=tf32)
        )
        if relu_fusion.masked:
            return
    if not fused or not cublaslt.gemm(x, w, z, epilogue=_EPILOGUES[activation], bias=b, tf32=tf32):
        matmul(x, w, z, tf32)
        bias_activation(z, b, a, activation)


def relu_mask_bytes(units: int) -> int:
    """Bytes of a row of `ReluBackwardFusion.mask`; 0 where no matrix product writes one."""
    module = cupy_module()
    there = cublaslt.available() and _masks_positive(module, module.cuda.get_device_id())
    return ceil_div(units, cublaslt.MASK_BITS) * cublaslt.MASK_BITS // 8 if there else 0


@cache
def _masks_positive(module: Any, device: int) -> bool:
    """Whether cublasLt's mask says z > 0, as our derivative does, and keeps NaN; its manual leaves z = 0 open."""
    units = 4
    bias = module.array([-1, 0, 1, np.nan], np.float32)
    zeros, ones = module.zeros((units, units), np.float32), module.full((units, units), 1, np.float32)
    a, dx, mask = (
        module.zeros((units, columns), kind)
        for columns, kind in ((units, "f4"), (units, "f4"), (cublaslt.MASK_BITS // 8, "u1"))
    )
    return (
        cublaslt.gemm(zeros, zeros, a, epilogue="RELU_AUX_BIAS", bias=bias, mask=mask)
        and cublaslt.gemm(ones, ones, dx, epilogue="DRELU", mask=mask)
        and bool((dx[:, :3] == module.array([0, 0, units], np.float32)).all())
        and bool(module.isnan(a[:, 3]).all())
    )


def _relu_keeps_nan() -> bool:
    """Whether cublasLt's ReLU keeps NaN, as ours does, so that a diverging training shows it."""
    module = cupy_module()
    return cublaslt.available() and _keeps_nan(module, module.cuda.get_device_id())


@cache
def _keeps_nan(module: Any, device: int) -> bool:
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
    below: ReluBackwardFusion | None = None,
) -> None:
    """da becomes δ = ∂C/∂z; db = Σ_r δ, dw = xᵀδ, dx = δ wᵀ. saved: a, or z where the derivative is of the input.

    x, w and da may be of a half type, with dw and db of float32; tf32 as in `dense`. below: of the layer
    that computed x; this call then computes that layer's bias gradient too, and dx is its ∂C/∂z instead of its ∂C/∂a.
    """
    # The kernel of an activation also sums the columns; without an activation the product does.
    if activation != "identity" or db is None or not cublaslt.gemm(x.T, da, dw, epilogue="BGRADA", bias=db, tf32=tf32):
        bias_activation_backward(da, saved, db, activation)
        matmul(x.T, da, dw, tf32)
    if dx is not None and not (below is not None and _product_with_relu_backward(da, w_transposed, dx, tf32, below)):
        matmul(da, w_transposed, dx, tf32)
        if below is not None:
            bias_activation_backward(dx, below.a, below.bias_grad, "relu")


def _product_with_relu_backward(
    da: Array, w_transposed: Array, dx: Array, tf32: bool, below: ReluBackwardFusion
) -> bool:
    """dx = (da wᵀ) ∘ relu' and the bias gradient below; False, with nothing done, where no product can."""
    if not below.masked:
        return False
    bias = below.bias_grad
    # The product writes the bias gradient in the type of dx only.
    summed = bias is not None and bias.dtype == dx.dtype
    epilogue, bias_of_product = ("DRELU_BGRAD", bias) if summed else ("DRELU", None)
    if not cublaslt.gemm(da, w_transposed, dx, epilogue=epilogue, bias=bias_of_product, mask=below.mask, tf32=tf32):
        return False
    if bias is not None and not summed:
        column_sum(dx, bias)
    return True
