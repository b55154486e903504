"""The rows of a batch, gathered from the data set into the batch's own memory."""

import numpy as np

_CAST_ELEMENTS = 1 << 16


def gather(source: np.ndarray, order: np.ndarray, out: np.ndarray, first: np.ndarray | None = None) -> None:
    """out_i = source[order[first_0 + i]], cast to the type of out. source: 1-D or 2-D.

    order: row numbers, int64, within range. first: (1,) of int64, the index in the order at which the batch begins;
    None stands for 0 and the whole order.
    """
    rows = order
    if first is not None:
        begin = first.item()
        rows = order[begin : begin + len(out)]
    if source.dtype == out.dtype:
        # mode="raise" would gather into a temporary first.
        source.take(rows, 0, out, "clip")
        return
    step = max(1, _CAST_ELEMENTS * len(source) // max(source.size, 1))
    for start in range(0, len(rows), step):
        out[start : start + step] = source[rows[start : start + step]]
