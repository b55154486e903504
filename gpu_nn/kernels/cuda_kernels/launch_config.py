"""Launch shapes of the kernels that go through whole arrays, and the memory for partial sums."""

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

# As in philox.cuh: elements for which one block of random words is enough.
DRAWN = 8
_WORD = (1 << 64) - 1

# What a dtype is called in CUDA, and in which one its numbers are computed.
CUDA_FLOATS = {"float32": "float", "float64": "double", "float16": "__half", "bfloat16": "__nv_bfloat16"}
COMPUTED = {"float32": "float32", "float64": "float64", "float16": "float32", "bfloat16": "float32"}

# Enough blocks to fill every GPU there is; a constant, so that sums are cut alike on all of them.
_BLOCKS = 1024

# A grid's y has no more blocks.
_MOST_CHUNKS = 65535

# Partial sums are a write and a read more for each chunk of rows, of three a row in the backward pass of an activation.
_ROWS_SUMMED = 8


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def elementwise_grid(size: int, itemsize: int) -> tuple[int]:
    """The grid of a kernel whose blocks cut a flat array into tiles of vectors."""
    pack = ACCESS_BYTES // itemsize
    return (ceil_div(size + pack - 1, THREADS * pack) if size else 0,)


def row_chunks(n: int, groups: int) -> tuple[int, int]:
    """Blocks and rows of each where the blocks of a kernel leave column sums of their rows, `groups` rows at a time."""
    rows = max(2 * groups, _ROWS_SUMMED, ceil_div(n, _BLOCKS))
    return ceil_div(n, rows), rows


def philox_grid(size: int) -> tuple[int]:
    """The grid of a kernel whose threads draw a block of random words each."""
    return (ceil_div(size, THREADS * DRAWN),)


def key_words(seed: int) -> tuple[int, int]:
    """A seed of up to 128 bits as the two words of Philox's key."""
    return seed & _WORD, seed >> 64


class Columns(NamedTuple):
    """The launch of a kernel of columns.cuh, and what it leaves when it sums columns."""

    grid: tuple[int, int]
    block: tuple[int]
    span: int  # elements of a row of the flat array
    rows: int  # such rows of a chunk
    partial_rows: int  # rows of `width` partial sums


@lru_cache(maxsize=1024)
def columns(n: int, width: int, itemsize: int, summed: bool, depth: int = DEPTH) -> Columns:
    """The shape for an (n, width) matrix. summed: its columns are added up, so that a chunk should have many rows; else
    it has `depth` of them."""
    pack = ACCESS_BYTES // itemsize
    span = math.lcm(max(width, 1), pack)
    if span <= THREADS * pack:
        # No wider than needed: what a short matrix does not fill stays idle.
        span *= max(1, min(THREADS * pack // span, ceil_div(n * width, span)))
    packs = span // pack
    column_tiles = ceil_div(packs, THREADS)
    threads = ceil_div(ceil_div(packs, column_tiles), WARP) * WARP
    rows = ceil_div(n * width, span)
    chunk = max(_ROWS_SUMMED, ceil_div(rows * column_tiles, _BLOCKS)) if summed else depth
    chunk = max(chunk, ceil_div(rows, _MOST_CHUNKS))
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


def stream_at_work() -> int:
    """The current stream; while a CUDA graph is captured in one of its own, the stream in which it will be launched."""
    pointer: int = cupy_module().cuda.get_current_stream().ptr if _capture.target is None else _capture.target
    return pointer


@contextmanager
def capturing_for(stream: int) -> Iterator[None]:
    """While it lasts, work is captured for that stream: it shares the scratch memory that it has there."""
    _capture.target = stream
    try:
        yield
    finally:
        _capture.target = None


_scratch: dict[tuple[Any, ...], Array] = {}


def scratch(like: Array, dtype: str, size: int) -> Array:
    """Memory of that size for what two kernels of one operation hand over, on the device of `like`.

    It belongs to the stream at work, in which the next operation begins when this one has ended, and is never freed: a
    captured CUDA graph may hold it. What it takes is bounded by the launch shapes: a few MiB.
    """
    module = cupy_module()
    key = (id(module), getattr(like.device, "id", 0), stream_at_work(), dtype)
    array = _scratch.get((*key, size))
    if array is None:
        capacity = 1 << (max(size, 1) - 1).bit_length()
        memory = _scratch.get((*key, "memory", capacity))
        if memory is None:
            memory = _scratch[(*key, "memory", capacity)] = module.empty(capacity, dtype)
        array = _scratch[(*key, size)] = memory[:size]
    return array
