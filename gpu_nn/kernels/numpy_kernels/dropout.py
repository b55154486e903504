"""Inverted dropout with a counter-based mask: the same seed and counter give the same mask on every device."""

import numpy as np

# Philox words are drawn a block at a time, so that nothing grows with the batch.
_BLOCK_ELEMENTS = 1 << 16


def dropout(a: np.ndarray, mask: np.ndarray, rate: float, seed: int, counter: np.ndarray) -> None:
    """Zero each element of `a` with probability `rate`, in place, and divide the others by 1-rate.

    mask: bool of the shape of a, True where an element stays. counter: (1,) uint64, the number of the draw.
    Element i stays when 32-bit word i of Philox4x64-10, key (seed, 0) and first 256-bit counter (1, 0, 0, draw), is at
    least rate · 2³².
    """
    words = np.random.Philox(key=seed, counter=int(counter[0]) << 192)
    threshold = np.uint32(rate * 2.0**32)
    flat, flat_mask, keep = a.reshape(-1), mask.reshape(-1), a.dtype.type(1 / (1 - rate))
    for start in range(0, flat.size, _BLOCK_ELEMENTS):
        part = slice(start, min(start + _BLOCK_ELEMENTS, flat.size))
        size = part.stop - start
        word = words.random_raw((size + 1) // 2).astype("<u8", copy=False).view(np.uint32)[:size]
        np.greater_equal(word, threshold, out=flat_mask[part])
        flat[part] *= flat_mask[part]
        flat[part] *= keep


def dropout_backward(da: np.ndarray, mask: np.ndarray, rate: float) -> None:
    """∂C/∂a in place of ∂C/∂(dropped a)."""
    da *= mask
    da *= da.dtype.type(1 / (1 - rate))
