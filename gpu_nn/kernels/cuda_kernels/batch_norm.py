"""Batch normalisation and activation: a = act(weight · x̂ + bias), x̂ = (x - mean) / √(variance + eps), by columns."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from gpu_nn.device import Array
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.kernels.cuda_kernels.launch import Kernel, launch
from gpu_nn.kernels.cuda_kernels.launch_config import (
    COMPUTED,
    CUDA_FLOATS,
    DEPTH,
    WARP,
    Columns,
    ceil_div,
    columns,
    scratch,
)
from gpu_nn.kernels.cuda_kernels.normalisation import add_gradients, partial_gradients

_SHAPE = (np.int32, np.int32, np.int32, np.int64)  # width, span, rows, size

# Of each column and chunk of rows: count, mean, squares.
_MOMENTS = 3


@cache
def _batch_moments(dtype: str) -> Kernel:
    return Kernel("batch_norm.cu", f"batch_moments<{CUDA_FLOATS[dtype]}>", (dtype, COMPUTED[dtype]), _SHAPE)


@cache
def _batch_statistics(dtype: str) -> Kernel:
    computed = COMPUTED[dtype]
    numbers = (np.int64, np.int32, np.dtype(computed).type)
    arrays = (computed, dtype, *(computed,) * 4)
    return Kernel("batch_norm.cu", f"batch_statistics<{CUDA_FLOATS[dtype]}>", arrays, numbers)


@cache
def _with_activation(function: str, dtype: str, activation: str) -> Kernel:
    computed = COMPUTED[dtype]
    arrays, numbers = {
        "batch_norm": ((dtype, *(computed,) * 4, dtype), 1),
        "batch_norm_sums": ((dtype, dtype, *(computed,) * 6), 1),
        "batch_norm_backward": ((dtype, dtype, *(computed,) * 6), 2),
    }[function]
    name = f"{function}<{CUDA_FLOATS[dtype]}, {activation}_activation>"
    return Kernel("batch_norm.cu", name, arrays, (*_SHAPE, *(np.dtype(computed).type,) * numbers))


def every_kernel() -> Iterator[Kernel]:
    """Each instantiation that a launch can request."""
    for dtype in CUDA_FLOATS:
        yield _batch_moments(dtype)
        yield _batch_statistics(dtype)
        for function in ("batch_norm", "batch_norm_sums", "batch_norm_backward"):
            for activation in ACTIVATIONS:
                yield _with_activation(function, dtype, activation)


def _columns(x: Array, computed: Array, summed: bool) -> Columns:
    """The launch shape for x, whose columns a thread packs as arrays of the type in which they are computed."""
    return columns(*x.shape, computed.itemsize, summed, DEPTH * computed.itemsize // x.itemsize)


def batch_statistics(
    x: Array, mean: Array, variance: Array, running_mean: Array, running_variance: Array, momentum: float
) -> None:
    """mean, variance: of each column of x, (n, width), n ≥ 2; the variance is that of these n rows, Σ (x - mean)² / n.

    running ← running + momentum · (batch - running), there with Σ (x - mean)² / (n - 1). x may be of a half type, the
    others then of float32.
    """
    width, dtype = x.shape[1], x.dtype.name
    shape = _columns(x, mean, summed=True)
    partial = scratch(x, COMPUTED[dtype], shape.partial_rows * width * _MOMENTS)
    numbers = (width, shape.span, shape.rows, x.size)
    launch(_batch_moments(dtype), shape.grid, shape.block, (x, partial), (x.size, partial.size), numbers)
    launch(
        _batch_statistics(dtype),
        (ceil_div(width, WARP),),
        (WARP * WARP,),
        (partial, x, mean, variance, running_mean, running_variance),
        (partial.size, x.size, width, width, width, width),
        (shape.partial_rows, width, momentum),
    )


def batch_norm(
    x: Array, mean: Array, variance: Array, weight: Array, bias: Array, out: Array, eps: float, activation: str
) -> None:
    """out = act(weight · (x - mean) / √(variance + eps) + bias). x, out: (n, width); the others: (width,).

    x and out may be of a half type, the others then of float32.
    """
    width = x.shape[1]
    shape = _columns(x, mean, summed=False)
    launch(
        _with_activation("batch_norm", x.dtype.name, activation),
        shape.grid,
        shape.block,
        (x, mean, variance, weight, bias, out),
        (x.size, width, width, width, width, x.size),
        (width, shape.span, shape.rows, x.size, eps),
    )


def batch_norm_backward(
    d: Array,
    x: Array,
    mean: Array,
    variance: Array,
    weight: Array,
    bias: Array,
    weight_grad: Array,
    bias_grad: Array,
    eps: float,
    activation: str,
    of_batch: bool,
) -> None:
    """d, ∂C/∂out, becomes ∂C/∂x; weight_grad = Σ_r dz x̂ and bias_grad = Σ_r dz, where dz = d · act'.

    of_batch: mean and variance are those of x, and change with it; else they are constants. d and x may be of a half
    type, the others then of float32.
    """
    n, width = x.shape
    dtype = x.dtype.name
    shape = _columns(x, mean, summed=True)
    partial = partial_gradients(x, shape.partial_rows)
    of_columns, numbers = (mean, variance, weight, bias), (width, shape.span, shape.rows, x.size, eps)
    arrays, size = (d, x, *of_columns, *partial), shape.partial_rows * width
    sizes = (x.size, x.size, width, width, width, width, size, size)
    launch(_with_activation("batch_norm_sums", dtype, activation), shape.grid, shape.block, arrays, sizes, numbers)
    add_gradients(partial, shape.partial_rows, weight_grad, bias_grad)
    shape = _columns(x, mean, summed=False)
    launch(
        _with_activation("batch_norm_backward", dtype, activation),
        shape.grid,
        shape.block,
        (d, x, *of_columns, weight_grad, bias_grad),
        (x.size, x.size, *(width,) * 6),
        (width, shape.span, shape.rows, x.size, eps, 1 / n if of_batch and n else 0.0),
    )
