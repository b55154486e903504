"""The matrix products of a layer, z = b + a·w with w of shape (inputs, outputs)."""

import numpy as np

from gpu_nn.kernels.numpy_kernels.rows import scratch

# Elements of the temporary product: little beside the outputs, and enough for BLAS to run at its full rate.
_PRODUCT_ELEMENTS = 1 << 18


# BLAS sums a column sequentially; sums of this many rows keep the digits of float32.
_ROWS_OF_A_SUM = 4096


def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray, tf32: bool = False) -> None:
    """out = a·b. a and b may be transposed views. tf32: whether factors of float32 may be rounded to TF32."""
    np.dot(a, b, out=out)  # the same BLAS call as matmul's, a microsecond sooner


def matmul_add(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out += a·b."""
    rows, columns = out.shape
    step = max(1, _PRODUCT_ELEMENTS // max(1, rows))
    for start in range(0, columns, step):
        out[:, start : start + step] += a @ b[:, start : start + step]


def column_sum(a: np.ndarray, out: np.ndarray) -> None:
    """out_j = Σ_r a_rj."""
    n = len(a)
    if n <= _ROWS_OF_A_SUM:
        np.dot(scratch.ones(n, a.dtype), a, out=out)
        return
    np.dot(scratch.ones(_ROWS_OF_A_SUM, a.dtype), a[:_ROWS_OF_A_SUM], out=out)
    for start in range(_ROWS_OF_A_SUM, n, _ROWS_OF_A_SUM):
        column_sum_add(a[start : start + _ROWS_OF_A_SUM], out)


def column_sum_add(a: np.ndarray, out: np.ndarray) -> None:
    """out_j += Σ_r a_rj."""
    out += scratch.ones(len(a), a.dtype) @ a
