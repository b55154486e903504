"""Layer normalisation and activation: a = act(weight · x̂ + bias), x̂ = (x - mean) / √(variance + eps), by rows."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from gpu_nn.device import Array
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.kernels.cuda_kernels.launch import Kernel, launch
from gpu_nn.kernels.cuda_kernels.linear import add_partial_sums
from gpu_nn.kernels.cuda_kernels.shapes import CUDA_FLOATS, THREADS, ceil_div, row_chunks, scratch

_DTYPES = ("float32", "float64")

# The longest row, in bytes, that so many lanes take; a block takes longer ones.
LANES = ((256, 8), (2048, 32))

# Two sums of each column fit into the 48 KB that a block has unasked; beyond, they stay in device memory.
LONGEST_IN_SHARED = 24 * 1024


def lanes(row_bytes: int) -> int:
    """How many threads share a row."""
    return next((count for longest, count in LANES if row_bytes <= longest), THREADS)


@cache
def _forward(dtype: str, activation: str, lanes: int) -> Kernel:
    name = f"layer_norm<{CUDA_FLOATS[dtype]}, {activation}_activation, {lanes}>"
    return Kernel("layer_norm.cu", name, (dtype,) * 6, (np.int64, np.int32, np.dtype(dtype).type))


@cache
def _backward(dtype: str, activation: str, lanes: int) -> Kernel:
    name = f"layer_norm_backward<{CUDA_FLOATS[dtype]}, {activation}_activation, {lanes}>"
    numbers = (np.int64, np.int32, np.int32, np.bool_, np.dtype(dtype).type)
    return Kernel("layer_norm.cu", name, (dtype,) * 8, numbers)


def every_kernel() -> Iterator[Kernel]:
    """Each instantiation that can be asked for."""
    for dtype in _DTYPES:
        for count in (*(count for _, count in LANES), THREADS):
            for activation in ACTIVATIONS:
                yield _forward(dtype, activation, count)
                yield _backward(dtype, activation, count)


def layer_norm(
    x: Array, weight: Array, bias: Array, out: Array, mean: Array, variance: Array, eps: float, activation: str
) -> None:
    """out = act(weight · (x - mean) / √(variance + eps) + bias), with mean and variance, (n,), of the rows of x.

    x, out: (n, width). weight, bias: (width,). The variance of a row is Σ_j (x_j - mean)² / width.
    """
    n, width = x.shape
    count = lanes(width * x.itemsize)
    launch(
        _forward(x.dtype.name, activation, count),
        (ceil_div(n, THREADS // count),),
        (THREADS,),
        (x, weight, bias, out, mean, variance),
        (x.size, width, width, x.size, n, n),
        (n, width, eps),
    )


def layer_norm_backward(
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
) -> None:
    """d, ∂C/∂out, becomes ∂C/∂x; weight_grad = Σ_r dz x̂ and bias_grad = Σ_r dz, where dz = d · act'."""
    n, width = x.shape
    dtype, row_bytes = x.dtype.name, width * x.itemsize
    count = lanes(row_bytes)
    groups = THREADS // count
    blocks, rows = row_chunks(n, groups)
    in_shared = row_bytes <= LONGEST_IN_SHARED
    size = blocks * width
    partial = scratch(x, dtype, 2 * size)
    launch(
        _backward(dtype, activation, count),
        (blocks,),
        (THREADS,),
        (d, x, mean, variance, weight, bias, partial[:size], partial[size:]),
        (x.size, x.size, n, n, width, width, size, size),
        (n, width, rows, in_shared, eps),
        shared_bytes=groups * 2 * row_bytes if in_shared else 0,
    )
    add_partial_sums(partial[:size], blocks, weight_grad, add=False)
    add_partial_sums(partial[size:], blocks, bias_grad, add=False)
