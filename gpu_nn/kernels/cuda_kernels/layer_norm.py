"""Layer normalisation and activation: a = act(weight · x̂ + bias), x̂ = (x - mean) / √(variance + eps), by rows."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from gpu_nn.device import Array
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.kernels.cuda_kernels.launch import Kernel, launch
from gpu_nn.kernels.cuda_kernels.launch_config import COMPUTED, CUDA_FLOATS, THREADS, ceil_div, row_chunks
from gpu_nn.kernels.cuda_kernels.normalisation import add_gradients, partial_gradients

# The longest row, in bytes, that so many lanes take; a block takes longer ones.
SHUFFLE_SHARDS = ((256, 8), (2048, 32))

# Two sums of each column for each row at work fit into the 48 KB that a block has unasked; beyond, where even those of
# one row do not, they stay in device memory.
_SHARED_BYTES = 48 * 1024
LONGEST_IN_SHARED = _SHARED_BYTES // 2


def lanes(row_bytes: int) -> int:
    """How many threads share a row."""
    return next((count for longest, count in SHUFFLE_SHARDS if row_bytes <= longest), THREADS)


@cache
def _forward(dtype: str, activation: str, lanes: int) -> Kernel:
    name = f"layer_norm<{CUDA_FLOATS[dtype]}, {activation}_activation, {lanes}>"
    computed = COMPUTED[dtype]
    arrays = (dtype, computed, computed, dtype, computed, computed)
    return Kernel("layer_norm.cu", name, arrays, (np.int64, np.int32, np.dtype(computed).type))


@cache
def _backward(dtype: str, activation: str, lanes: int) -> Kernel:
    name = f"layer_norm_backward<{CUDA_FLOATS[dtype]}, {activation}_activation, {lanes}>"
    computed = COMPUTED[dtype]
    numbers = (np.int64, np.int32, np.int32, np.bool_, np.dtype(computed).type)
    return Kernel("layer_norm.cu", name, (dtype, dtype, *(computed,) * 6), numbers)


def every_kernel() -> Iterator[Kernel]:
    """Each instantiation that a launch can request."""
    for dtype in CUDA_FLOATS:
        for count in (*(count for _, count in SHUFFLE_SHARDS), THREADS):
            for activation in ACTIVATIONS:
                yield _forward(dtype, activation, count)
                yield _backward(dtype, activation, count)


def layer_norm(
    x: Array, weight: Array, bias: Array, out: Array, mean: Array, variance: Array, eps: float, activation: str
) -> None:
    """out = act(weight · (x - mean) / √(variance + eps) + bias), with mean and variance, (n,), of the rows of x.

    x, out: (n, width). weight, bias: (width,). The variance of a row is Σ_j (x_j - mean)² / width. x and out may
    be of a half type, the others then of float32.
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
    """d, ∂C/∂out, becomes ∂C/∂x; weight_grad = Σ_r dz x̂ and bias_grad = Σ_r dz, where dz = d · act'.

    d and x may be of a half type, the others then of float32.
    """
    n, width = x.shape
    dtype, count = x.dtype.name, lanes(width * x.itemsize)
    sums_bytes = 2 * width * weight.itemsize
    in_shared = sums_bytes <= _SHARED_BYTES
    groups = THREADS // count
    if in_shared:
        # As many rows at a time as have room for their sums, which are twice as long as rows of a half type.
        groups = min(groups, 1 << (_SHARED_BYTES // sums_bytes).bit_length() - 1)
    blocks, rows = row_chunks(n, groups)
    size, partial = blocks * width, partial_gradients(x, blocks)
    launch(
        _backward(dtype, activation, count),
        (blocks,),
        (groups * count,),
        (d, x, mean, variance, weight, bias, *partial),
        (x.size, x.size, n, n, width, width, size, size),
        (n, width, rows, in_shared, eps),
        shared_bytes=groups * sums_bytes if in_shared else 0,
    )
    add_gradients(partial, blocks, weight_grad, bias_grad)
