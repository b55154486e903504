"""Gaussian noise that is counter-based: the same seed and counter give the same noise on every device."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from gpu_nn.device import Array
from gpu_nn.kernels.cuda_kernels.launch import Kernel, launch
from gpu_nn.kernels.cuda_kernels.launch_config import COMPUTED, CUDA_FLOATS, THREADS, key_words, philox_grid


@cache
def _noise(dtype: str) -> Kernel:
    numbers = (np.uint64, np.uint64, np.dtype(COMPUTED[dtype]).type, np.int64)
    return Kernel("noise.cu", f"noise<{CUDA_FLOATS[dtype]}>", (dtype, dtype, "uint64"), numbers)


def every_kernel() -> Iterator[Kernel]:
    """Each instantiation that a launch can request."""
    for dtype in CUDA_FLOATS:
        yield _noise(dtype)


def noise(x: Array, out: Array, deviation: float, seed: int, counter: Array) -> None:
    """out = x + deviation · ε, ε ~ N(0, 1). out may be x.

    counter: (1,) uint64, the number of the draw. Elements i and i+1, i even, get √(-2 ln((v+½)/2³²)) · (cos, sin) of
    2π w/2³², v and w being the 32-bit words i and i+1 of the stream that `dropout` draws from.
    """
    numbers = (*key_words(seed), deviation, x.size)
    launch(_noise(x.dtype.name), philox_grid(x.size), (THREADS,), (x, out, counter), (x.size, x.size, 1), numbers)
