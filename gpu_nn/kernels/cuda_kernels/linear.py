"""The matrix products of a layer, z = b + a·w with w of shape (inputs, outputs)."""

from collections.abc import Iterator
from functools import cache
from importlib import import_module

import numpy as np

from gpu_nn.device import Array, cupy_module
from gpu_nn.kernels.cuda_kernels import cublaslt
from gpu_nn.kernels.cuda_kernels.launch import Kernel, launch
from gpu_nn.kernels.cuda_kernels.launch_config import COMPUTED, CUDA_FLOATS, ceil_div, columns, scratch

# As in linear.cu: columns and threads of a block of column_sum.
_COLUMNS_A_BLOCK, _THREADS_OF_SUM = 32, 1024


def matmul(a: Array, b: Array, out: Array, tf32: bool = False) -> None:
    """out = a·b. a and b may be transposed views. tf32: whether factors of float32 may be rounded to TF32."""
    if not cublaslt.gemm(a, b, out, tf32=tf32):
        cupy_module().matmul(a, b, out=out)


def matmul_add(a: Array, b: Array, out: Array) -> None:
    """out += a·b."""
    if out.size == 0 or a.size == 0:  # cuBLAS rejects leading dimensions of 0
        return
    if cublaslt.gemm(a, b, out, add=True):
        return
    cupy = cupy_module()
    if out.dtype.name in ("float32", "float64"):
        # beta = 1 adds to out. CuPy computes a C-contiguous out as the transpose of bᵀ·aᵀ, without a copy.
        import_module(f"{cupy.__name__}.cublas").gemm("N", "N", a, b, out=out, alpha=1.0, beta=1.0)
    else:
        out += cupy.matmul(a, b)


@cache
def _chunk_sums(dtype: str) -> Kernel:
    numbers = (np.int32, np.int32, np.int32, np.int64)
    return Kernel("linear.cu", f"chunk_sums<{CUDA_FLOATS[dtype]}>", (dtype, COMPUTED[dtype]), numbers)


@cache
def _column_sum(computed: str, dtype: str) -> Kernel:
    name = f"column_sum<{CUDA_FLOATS[computed]}, {CUDA_FLOATS[dtype]}>"
    return Kernel("linear.cu", name, (computed, dtype), (np.int64, np.int32, np.bool_))


def every_kernel() -> Iterator[Kernel]:
    """Each instantiation that a launch can request."""
    for dtype, computed in COMPUTED.items():
        yield _chunk_sums(dtype)
        yield _column_sum(computed, dtype)


def column_sum(a: Array, out: Array) -> None:
    """out_j = Σ_r a_rj."""
    _sum(a, out, add=False)


def column_sum_add(a: Array, out: Array) -> None:
    """out_j += Σ_r a_rj."""
    _sum(a, out, add=True)


def _sum(a: Array, out: Array, add: bool) -> None:
    n, width = a.shape
    dtype = a.dtype.name
    shape = columns(n, width, a.itemsize, summed=True)
    partial = scratch(a, COMPUTED[dtype], shape.partial_rows * width)
    numbers = (width, shape.span, shape.rows, a.size)
    launch(_chunk_sums(dtype), shape.grid, shape.block, (a, partial), (a.size, partial.size), numbers)
    add_partial_sums(partial, shape.partial_rows, out, add)


def add_partial_sums(partial: Array, rows: int, out: Array, add: bool) -> None:
    """The second stage of a column sum: out_j = Σ_r partial_rj, or out_j += where `add`. partial: (rows · width,)."""
    width = out.size
    kernel = _column_sum(partial.dtype.name, out.dtype.name)
    grid = (ceil_div(width, _COLUMNS_A_BLOCK),)
    launch(kernel, grid, (_THREADS_OF_SUM,), (partial, out), (rows * width, width), (rows, width, add))
