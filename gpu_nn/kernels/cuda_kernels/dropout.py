"""Inverted dropout with a counter-based mask: the same seed and counter give the same mask on every device."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from gpu_nn.device import Array
from gpu_nn.kernels.cuda_kernels.launch import Kernel, launch
from gpu_nn.kernels.cuda_kernels.launch_config import (
    COMPUTED,
    CUDA_FLOATS,
    THREADS,
    elementwise_grid,
    key_words,
    philox_grid,
)


@cache
def _dropout(dtype: str) -> Kernel:
    numbers = (np.uint64, np.uint64, np.uint32, np.dtype(COMPUTED[dtype]).type, np.int64)
    return Kernel("dropout.cu", f"dropout<{CUDA_FLOATS[dtype]}>", (dtype, dtype, "bool", "uint64"), numbers)


@cache
def _backward(dtype: str) -> Kernel:
    numbers = (np.dtype(COMPUTED[dtype]).type, np.int64)
    return Kernel("dropout.cu", f"dropout_backward<{CUDA_FLOATS[dtype]}>", (dtype, "bool"), numbers)


def every_kernel() -> Iterator[Kernel]:
    """Each instantiation that a launch can request."""
    for dtype in CUDA_FLOATS:
        yield _dropout(dtype)
        yield _backward(dtype)


def dropout(a: Array, out: Array, mask: Array, rate: float, seed: int, counter: Array) -> None:
    """out = a with each element 0 with probability `rate`, and the others divided by 1-rate. out may be a.

    mask: bool of the shape of a, True where an element is kept. counter: (1,) uint64, the number of the draw.
    Element i is kept when 32-bit word i of Philox4x64-10, key (seed, 0) and first 256-bit counter (1, 0, 0, draw), is
    at least rate · 2³².
    """
    numbers = (*key_words(seed), int(rate * 2.0**32), 1 / (1 - rate), a.size)
    sizes = (a.size, a.size, a.size, 1)
    launch(_dropout(a.dtype.name), philox_grid(a.size), (THREADS,), (a, out, mask, counter), sizes, numbers)


def dropout_backward(da: Array, mask: Array, rate: float) -> None:
    """da: ∂C/∂out on entry, ∂C/∂a on return."""
    kernel = _backward(da.dtype.name)
    grid = elementwise_grid(da.size, da.itemsize)
    launch(kernel, grid, (THREADS,), (da, mask), (da.size, da.size), (1 / (1 - rate), da.size))
