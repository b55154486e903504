"""Optimizer steps over the flat parameter vector, one launch each.

Arrays of one element hold what changes from step to step: learning_rate and norm are float64, step is int64,
gradient_scale is of the gradient's type. A step uses gradient_scale · gradient; with a gradient_scale of NaN
it changes nothing. Weight decay applies to the first `decayed` elements, where the weights lie.
"""

import math
from collections.abc import Iterator
from functools import cache

import numpy as np

from gpu_nn.device import Array
from gpu_nn.kernels.cuda_kernels.launch import Kernel, launch
from gpu_nn.kernels.cuda_kernels.launch_config import CUDA_FLOATS, THREADS, elementwise_grid, scratch

# Blocks that share out the sum of a norm; a constant, so that it is cut alike on every GPU.
_NORM_BLOCKS = 1024

_DTYPES = ("float32", "float64")
_COUNTERS = {"int64": "long long", "uint64": "unsigned long long"}


@cache
def _sgd(dtype: str, momentum: bool) -> Kernel:
    number = np.dtype(dtype).type
    name = f"sgd<{CUDA_FLOATS[dtype]}, {str(momentum).lower()}>"
    arrays = (dtype, dtype, dtype, "float64", dtype)
    return Kernel("optimizer.cu", name, arrays, (number, np.bool_, number, np.int64, np.int64))


@cache
def _adam(dtype: str) -> Kernel:
    number = np.dtype(dtype).type
    arrays = (dtype, dtype, dtype, dtype, "float64", "int64", dtype)
    numbers = (*(number,) * 8, np.bool_, np.int64, np.int64)
    return Kernel("optimizer.cu", f"adam<{CUDA_FLOATS[dtype]}>", arrays, numbers)


@cache
def _square_sum(dtype: str) -> Kernel:
    return Kernel("optimizer.cu", f"square_sum<{CUDA_FLOATS[dtype]}>", (dtype, "float64"), (np.int64, np.int64))


@cache
def _gradient_norm() -> Kernel:
    return Kernel("optimizer.cu", "gradient_norm", ("float64", "float64"), (np.int32,))


@cache
def _clip_scale(dtype: str) -> Kernel:
    return Kernel("optimizer.cu", f"clip_scale<{CUDA_FLOATS[dtype]}>", ("float64", dtype), (np.float64,))


@cache
def _flush_subnormals(dtype: str) -> Kernel:
    number = np.dtype(dtype).type
    return Kernel("optimizer.cu", f"flush_subnormals<{CUDA_FLOATS[dtype]}>", (dtype,), (number, np.int64))


@cache
def _increment(dtype: str) -> Kernel:
    return Kernel("optimizer.cu", f"increment<{_COUNTERS[dtype]}>", (dtype,))


def every_kernel() -> Iterator[Kernel]:
    """Each instantiation that a launch can request."""
    for dtype in _DTYPES:
        yield from (_sgd(dtype, False), _sgd(dtype, True), _adam(dtype), _square_sum(dtype))
        yield from (_clip_scale(dtype), _flush_subnormals(dtype))
    yield _gradient_norm()
    yield from map(_increment, _COUNTERS)


def sgd(
    parameter: Array,
    gradient: Array,
    velocity: Array | None,
    learning_rate: Array,
    *,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    decayed: int,
    gradient_scale: Array | None = None,
) -> None:
    """v ← momentum·v + g;  parameter ← parameter - η v, with Nesterov - η (g + momentum·v).  g includes weight_decay·w.

    velocity is None without momentum.
    """
    size = parameter.size
    kernel = _sgd(parameter.dtype.name, velocity is not None)
    arrays = (parameter, gradient, velocity, learning_rate, gradient_scale)
    numbers = (momentum, nesterov, weight_decay, decayed, size)
    launch(kernel, elementwise_grid(size, parameter.itemsize), (THREADS,), arrays, (size, size, size, 1, 1), numbers)


def adam(
    parameter: Array,
    gradient: Array,
    mean: Array,
    square: Array,
    learning_rate: Array,
    step: Array,
    *,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    decayed: int,
    gradient_scale: Array | None = None,
) -> None:
    """One step of Adam (Kingma & Ba 2015), or of AdamW (Loshchilov & Hutter 2019) when decoupled; step counts from 1.

    mean and square hold the moments without their factors: Σ_i β₁^i g and Σ_i β₂^i g², so a step multiplies each once.
    With m = (1-β₁) mean, v = (1-β₂) square and c_i = 1 - β_i^step,

        parameter ← parameter - η (m/c₁) / (√(v/c₂) + ε) = parameter - η' mean / (√square + ε')
    """
    size = parameter.size
    arrays = (parameter, gradient, mean, square, learning_rate, step, gradient_scale)
    numbers = (
        beta1,
        beta2,
        _log(beta1),
        _log(beta2),
        1 - beta1,
        1 - beta2,
        eps,
        weight_decay,
        decoupled,
        decayed,
        size,
    )
    grid = elementwise_grid(size, parameter.itemsize)
    launch(_adam(parameter.dtype.name), grid, (THREADS,), arrays, (*(size,) * 4, 1, 1, 1), numbers)


def _log(beta: float) -> float:
    return math.log(beta) if beta else -math.inf


def gradient_norm(gradient: Array, out: Array) -> None:
    """out_0 = √(Σ g²)."""
    size = gradient.size
    (count,) = elementwise_grid(size, gradient.itemsize)
    blocks = min(count, _NORM_BLOCKS)
    partial = scratch(gradient, "float64", blocks)
    launch(_square_sum(gradient.dtype.name), (blocks,), (THREADS,), (gradient, partial), (size, blocks), (size, count))
    launch(_gradient_norm(), (1,), (THREADS,), (partial, out), (blocks, 1), (blocks,))


def clip_scale(norm: Array, max_norm: float, out: Array) -> None:
    """out_0 = min(1, max_norm / norm)."""
    launch(_clip_scale(out.dtype.name), (1,), (1,), (norm, out), (1, 1), (max_norm,))


def flush_subnormals(state: Array) -> None:
    """Set to 0 what is about to decay into subnormal numbers, as on the CPU, where they cost time."""
    threshold = np.finfo(state.dtype.name).tiny * 2.0**26
    kernel = _flush_subnormals(state.dtype.name)
    launch(
        kernel,
        elementwise_grid(state.size, state.itemsize),
        (THREADS,),
        (state,),
        (state.size,),
        (threshold, state.size),
    )


def increment(counter: Array) -> None:
    """counter_0 += 1, on the device."""
    launch(_increment(counter.dtype.name), (1,), (1,), (counter,), (1,))
