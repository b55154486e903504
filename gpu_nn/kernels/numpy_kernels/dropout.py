"""Inverted dropout with a counter-based mask: the same seed and counter give the same mask on every device."""

import numpy as np

from gpu_nn.kernels.numpy_kernels.philox import words


def dropout(a: np.ndarray, out: np.ndarray, mask: np.ndarray, rate: float, seed: int, counter: np.ndarray) -> None:
    """out = a with each element 0 with probability `rate`, and the others divided by 1-rate. out may be a.

    mask: bool of the shape of a, True where an element is kept. counter: (1,) uint64, the number of the draw.
    Element i is kept when 32-bit word i of Philox4x64-10, key (seed, 0) and first 256-bit counter (1, 0, 0, draw), is
    at least rate · 2³².
    """
    threshold, keep = np.uint32(rate * 2.0**32), a.dtype.type(1 / (1 - rate))
    flat, flat_out, flat_mask = a.reshape(-1), out.reshape(-1), mask.reshape(-1)
    for part, word in words(seed, counter, a.size):
        np.greater_equal(word[: part.stop - part.start], threshold, out=flat_mask[part])
        np.multiply(flat[part], flat_mask[part], out=flat_out[part])
        flat_out[part] *= keep


def dropout_backward(da: np.ndarray, mask: np.ndarray, rate: float) -> None:
    """da: ∂C/∂out on entry, ∂C/∂a on return."""
    da *= mask
    da *= da.dtype.type(1 / (1 - rate))
