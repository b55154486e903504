"""Random words determined by seed, number of the draw and index alone: the same on every device."""

from collections.abc import Iterator

import numpy as np

# Words are drawn a block at a time, so that memory does not grow with the batch. Even, since words come in pairs.
_BLOCK_ELEMENTS = 1 << 16


def words(seed: int, counter: np.ndarray, size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """The 32-bit words 0 … size-1 of Philox4x64-10 with key (seed, 0) and first counter (1, 0, 0, draw), in parts.

    counter: (1,) uint64, the number of the draw. Each part comes with its slice, and may have one word more.
    """
    generator = np.random.Philox(key=seed, counter=int(counter[0]) << 192)
    for start in range(0, size, _BLOCK_ELEMENTS):
        part = slice(start, min(start + _BLOCK_ELEMENTS, size))
        yield part, generator.random_raw((part.stop - start + 1) // 2).astype("<u8", copy=False).view(np.uint32)
