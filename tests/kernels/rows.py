"""Rows of every length that matters, with all that logits can hold."""

from itertools import pairwise

import ml_dtypes
import numpy as np

from gpu_nn.kernels.cuda_kernels.launch import Limits
from gpu_nn.kernels.cuda_kernels.row_strategy import (
    ACCESS_BYTES,
    REDUCTION_BYTES,
    THREAD_PER_ROW_CLASSES,
    multi_thread_variants,
)

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), BFLOAT16)
A100 = Limits(80, 108, 163 * 1024)  # as the emulated device

# A row longer than one that any block can hold.
LONG = 180_003


def thresholds(itemsize, uniform):
    """The longest row of each variant, up to the last one that keeps a row on the chip."""
    first = THREAD_PER_ROW_CLASSES[itemsize][0 if uniform else 1]
    held = [longest for longest, _ in multi_thread_variants(itemsize, A100)[:-1] if longest > first]
    # The vectors that shared memory holds, and less than one more in head and tail.
    staged = ((A100.shared_bytes - REDUCTION_BYTES) // ACCESS_BYTES + 1) * (ACCESS_BYTES // itemsize) - 1
    return [first, *held, staged]


def lengths_around_thresholds(itemsize, uniform):
    around = {t + d for t in thresholds(itemsize, uniform) for d in (-1, 0, 1)}
    return sorted({2, 3, 4, 5, 10, *around, LONG})


def length_of_each_variant(itemsize, uniform):
    """One odd length of each: its rows begin at every residue of 16 bytes."""
    ends = thresholds(itemsize, uniform)
    between = [(low + high) // 2 | 1 for low, high in pairwise(ends)]
    return [3, ends[0] | 1, *between, LONG]


def length_of_some_variants(itemsize, uniform):
    """One length for each driver: one thread, a part of a warp, a block, shared memory, several passes."""
    one_thread, *registers, staged, passes = length_of_each_variant(itemsize, uniform)
    return [one_thread, registers[1], registers[-3], staged, passes]


def rows_for(m):
    return 40 if m <= 64 else 17 if m <= 1100 else 3 if m <= 40_000 else 2


def logits(n, m, dtype, seed=0):
    """Ordinary rows, a tie at the maximum, an outlier ×1000, masked classes, a lone class, nothing but masked ones."""
    random = np.random.default_rng((seed, n, m))
    z = random.normal(0, 3, (n, m))
    z[1 % n, random.integers(m)] = z[1 % n].max()
    if n > 2:
        z[-1] *= 30
        z[2, random.integers(m)] += 3000
    if n > 10:
        z[3] = 0
        z[4, m // 2 :] = -np.inf
        z[5, 1:] = -np.inf
        z[6] = -np.inf
        z[7] -= 1000
        z[8] = np.round(z[8])
    return z.astype(dtype)
