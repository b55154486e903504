"""softmax, its logarithm, ln(1 - softmax), and the softmax with one class left out."""

from collections.abc import Iterator
from functools import cache, lru_cache

import numpy as np

from gpu_nn.device import Array
from gpu_nn.kernels.cuda_kernels.launch import Kernel, Limits, launch, limits
from gpu_nn.kernels.cuda_kernels.launch_config import CUDA_FLOATS
from gpu_nn.kernels.cuda_kernels.row_strategy import ITEMSIZES, Strategy, choose, every_strategy

_OPERATIONS = ("Softmax", "LogSoftmax", "Log1mSoftmax", "AllButOneSoftmax")


def softmax(z: Array, out: Array) -> None:
    """out_j = p_j."""
    _launch("Softmax", z, None, out)


def log_softmax(z: Array, out: Array) -> None:
    """out_j = ln p_j = (z_j - M₁) - log1p(q)."""
    _launch("LogSoftmax", z, None, out)


def log1m_softmax(z: Array, out: Array) -> None:
    """out_j = ln(1 - p_j) = -log1p(o_j), and at the maximum (M₂-M₁) + ln E - log1p(q)."""
    _launch("Log1mSoftmax", z, None, out)


def all_but_one_softmax(z: Array, t: Array, out: Array) -> None:
    """out_rj = soft(z_{≠t}, j) with t = t_r, (n,) of int64: s_j where t is the maximum, else p_j/(1-p_t); 0 at t.

    A row whose t is out of range is NaN.
    """
    _launch("AllButOneSoftmax", z, t, out)


def _launch(operation: str, z: Array, t: Array | None, out: Array) -> None:
    n, m = z.shape
    kernel, strategy = _kernel(operation, z.dtype.name, m, limits(z))
    launch(
        kernel,
        strategy.grid(n),
        (strategy.threads,),
        (z, out, t),
        (z.size, z.size, n),
        (n, m, *strategy.numbers),
        strategy.shared_bytes,
    )


@lru_cache(maxsize=1024)
def _kernel(operation: str, storage: str, m: int, limits: Limits) -> tuple[Kernel, Strategy]:
    if storage not in CUDA_FLOATS:
        raise TypeError(f"no kernel takes logits of {storage}: they are {', '.join(CUDA_FLOATS)}")
    strategy = choose(m, ITEMSIZES[storage], limits)
    return _instantiation(operation, storage, strategy.any_length()), strategy


@cache
def _instantiation(operation: str, storage: str, strategy: Strategy) -> Kernel:
    name = strategy.kernel("softmax", f"{operation}, {CUDA_FLOATS[storage]}")
    return Kernel(
        "softmax.cu",
        name,
        arrays=(storage, storage, "int64"),
        numbers=(np.int64, np.int32, *map(type, strategy.numbers)),
        since=strategy.since,
    )


def every_kernel() -> Iterator[Kernel]:
    """Each instantiation that a launch can request, except some lengths of thread_per_row."""
    for operation in _OPERATIONS:
        for storage in CUDA_FLOATS:
            for strategy in every_strategy(ITEMSIZES[storage]):
                yield _instantiation(operation, storage, strategy.any_length())
