"""Grids and blocks of the kernels that process whole arrays, and the scratch memory for partial sums."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

from gpu_nn.device import Array, cupy_module

# As in vectors.cuh.
WARP = 32
THREADS = 256
ACCESS_BYTES = 16

# As in columns.cuh.
DEPTH = 2

# As in philox.cuh: elements for which one block of the generator has a random word.
ELEMENTS_PER_DRAW = 8
_WORD = (1 << 64) - 1

# What a dtype is called in CUDA, and in which one its numbers are computed.
CUDA_FLOATS = {"float32": "float", "float64": "double", "float16": "__half", "bfloat16": "__nv_bfloat16"}
COMPUTED = {"float32": "float32", "float64": "float64", "float16": "float32", "bfloat16": "float32"}

# Enough blocks to fill any GPU; a constant, so that every GPU splits a sum alike.
_BLOCKS = 1024

# CUDA's limit of blocks along y.
_MAX_CHUNKS = 65535

# At least so many rows a chunk: the partial sums of a chunk cost one more write and read, where the backward pass of an
# activation moves three values a row.
_MIN_ROWS = 8


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def elementwise_grid(size: int, itemsize: int) -> tuple[int]:
    """The grid of a kernel whose blocks cut a flat array into tiles of vectors."""
    vector = ACCESS_BYTES // itemsize
    return (ceil_div(size + vector - 1, THREADS * vector) if size else 0,)


def row_chunks(n: int, groups: int) -> tuple[int, int]:
    """Blocks, and rows of each, of a kernel whose blocks store column sums of their rows, `groups` rows at a time."""
    rows = max(2 * groups, _MIN_ROWS, ceil_div(n, _BLOCKS))
    return ceil_div(n, rows), rows


def philox_grid(size: int) -> tuple[int]:
    """The grid of a kernel whose threads draw one block of random words each."""
    return (ceil_div(size, THREADS * ELEMENTS_PER_DRAW),)


def key_words(seed: int) -> tuple[int, int]:
    """A seed of up to 128 bits as the two words of Philox's key."""
    return seed & _WORD, seed >> 64


class Columns(NamedTuple):
    """The launch configuration of a kernel of columns.cuh, and the partial sums that it stores where it sums
    columns."""

    grid: tuple[int, int]
    block: tuple[int]
    span: int  # elements of a row of the flat array
    rows: int  # of a chunk, in such rows
    partial_rows: int  # rows of `width` partial sums


@lru_cache(maxsize=1024)
def columns(n: int, width: int, itemsize: int, summed: bool, depth: int = DEPTH) -> Columns:
    """The configuration for an (n, width) matrix.

    summed: the kernel sums columns, so a chunk has many rows; else it has `depth`.
    """
    vector = ACCESS_BYTES // itemsize
    span = math.lcm(max(width, 1), vector)
    if span <= THREADS * vector:
        # No wider than the matrix fills: further threads would be idle.
        span *= max(1, min(THREADS * vector // span, ceil_div(n * width, span)))
    vectors = span // vector
    column_tiles = ceil_div(vectors, THREADS)
    threads = ceil_div(ceil_div(vectors, column_tiles), WARP) * WARP
    rows = ceil_div(n * width, span)
    chunk = max(_MIN_ROWS, ceil_div(rows * column_tiles, _BLOCKS)) if summed else depth
    chunk = max(chunk, ceil_div(rows, _MAX_CHUNKS))
    chunks = ceil_div(rows, chunk)
    return Columns(
        grid=(column_tiles, chunks),
        block=(threads,),
        span=span,
        rows=chunk,
        partial_rows=chunks * (1 if column_tiles == 1 else span // width),
    )


class _Capture(threading.local):
    target: int | None = None  # the stream in which the graph will be launched


_capture = _Capture()


def launch_stream() -> int:
    """The current stream; during capture of a CUDA graph, the stream in which the graph will be launched."""
    pointer: int = cupy_module().cuda.get_current_stream().ptr if _capture.target is None else _capture.target
    return pointer


@contextmanager
def capturing_for(stream: int) -> Iterator[None]:
    """Within it, captured work uses the scratch memory of that stream."""
    _capture.target = stream
    try:
        yield
    finally:
        _capture.target = None


_scratch: dict[tuple[Any, ...], Array] = {}


def scratch(like: Array, dtype: str, size: int) -> Array:
    """Memory of that size through which one kernel of an operation passes results to the next, on the device of `like`.

    Each stream has its own, since operations in one stream run one after the other. It is never freed, since a captured
    CUDA graph may use it. The launch configurations bound it to a few MiB.
    """
    module = cupy_module()
    key = (id(module), getattr(like.device, "id", 0), launch_stream(), dtype)
    array = _scratch.get((*key, size))
    if array is None:
        capacity = 1 << (max(size, 1) - 1).bit_length()
        memory = _scratch.get((*key, "memory", capacity))
        if memory is None:
            memory = _scratch[(*key, "memory", capacity)] = module.empty(capacity, dtype)
        array = _scratch[(*key, size)] = memory[:size]
    return array
