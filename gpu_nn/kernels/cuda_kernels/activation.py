"""a = act(z + b) and its backward pass, with the bias gradient's column sum."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from gpu_nn.device import Array
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.kernels.cuda_kernels.launch import Kernel, launch
from gpu_nn.kernels.cuda_kernels.launch_config import COMPUTED, CUDA_FLOATS, columns, scratch
from gpu_nn.kernels.cuda_kernels.linear import add_partial_sums, column_sum

_NUMBERS = (np.int32, np.int32, np.int32, np.int64)  # width, span, rows, size


@cache
def _forward(dtype: str, activation: str) -> Kernel:
    name = f"bias_activation<{CUDA_FLOATS[dtype]}, {activation}_activation>"
    return Kernel("activation.cu", name, (dtype, dtype, dtype), _NUMBERS)


@cache
def _backward(dtype: str, activation: str) -> Kernel:
    name = f"bias_activation_backward<{CUDA_FLOATS[dtype]}, {activation}_activation>"
    return Kernel("activation.cu", name, (dtype, dtype, COMPUTED[dtype]), _NUMBERS)


def every_kernel() -> Iterator[Kernel]:
    """Each instantiation that a launch can request."""
    for activation in ACTIVATIONS:
        for dtype in CUDA_FLOATS:
            yield _forward(dtype, activation)
            if activation != "identity":
                yield _backward(dtype, activation)


def bias_activation(z: Array, b: Array | None, a: Array, activation: str) -> None:
    """z += b and a = act(z), (n, width) and (width,). a is z itself where the derivative is of the output."""
    if activation == "identity" and b is None and a is z:
        return
    n, width = z.shape
    shape = columns(n, width, z.itemsize, summed=False)
    numbers = (width, shape.span, shape.rows, z.size)
    launch(_forward(z.dtype.name, activation), shape.grid, shape.block, (z, b, a), (z.size, width, z.size), numbers)


def bias_activation_backward(da: Array, saved: Array, db: Array | None, activation: str) -> None:
    """da becomes ∂C/∂z = ∂C/∂a · act'(z); db_j = Σ_r ∂C/∂z_rj. saved: a, or z where the derivative is of the input."""
    if activation == "identity":
        if db is not None:
            column_sum(da, db)
        return
    n, width = da.shape
    dtype = da.dtype.name
    shape = columns(n, width, da.itemsize, summed=db is not None)
    partial = None if db is None else scratch(da, COMPUTED[dtype], shape.partial_rows * width)
    sizes = (da.size, da.size, shape.partial_rows * width)
    numbers = (width, shape.span, shape.rows, da.size)
    launch(_backward(dtype, activation), shape.grid, shape.block, (da, saved, partial), sizes, numbers)
    if db is not None:
        add_partial_sums(partial, shape.partial_rows, db, add=False)
