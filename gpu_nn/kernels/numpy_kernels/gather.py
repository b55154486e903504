"""The rows of a batch, gathered from the data set into the batch's own memory."""

import numpy as np

_CAST_ELEMENTS = 1 << 16


def gather(source: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    """out_i = source[rows_i], cast to the type of out. rows: (n,) of int64, within range. source: 1-D or 2-D."""
    if source.dtype == out.dtype:
        # mode="raise" would gather into a temporary first.
        source.take(rows, 0, out, "clip")
        return
    step = max(1, _CAST_ELEMENTS * len(source) // max(source.size, 1))
    for start in range(0, len(rows), step):
        out[start : start + step] = source[rows[start : start + step]]
