"""The same numbers in another type, between float32 and the half types."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from gpu_nn.device import Array
from gpu_nn.kernels.cuda_kernels.launch import Kernel, launch
from gpu_nn.kernels.cuda_kernels.launch_config import CUDA_FLOATS, THREADS, elementwise_grid

_HALVES = ("float16", "bfloat16")


@cache
def _cast(source: str, out: str) -> Kernel:
    return Kernel("cast.cu", f"cast<{CUDA_FLOATS[source]}, {CUDA_FLOATS[out]}>", (source, out), (np.int64,))


def every_kernel() -> Iterator[Kernel]:
    """Each instantiation that a launch can request."""
    for half in _HALVES:
        yield _cast("float32", half)
        yield _cast(half, "float32")


def cast(source: Array, out: Array) -> None:
    """out_i = source_i, to the nearest number that the type of out has; both of one size."""
    size = source.size
    grid = elementwise_grid(size, out.itemsize)
    launch(_cast(source.dtype.name, out.dtype.name), grid, (THREADS,), (source, out), (size, size), (size,))
