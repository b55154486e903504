"""Loss and output gradient of the softmax cross entropy, in one launch."""

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

import numpy as np

from gpu_nn.device import Array
from gpu_nn.kernels.cuda_kernels.launch import Kernel, Limits, launch, limits
from gpu_nn.kernels.cuda_kernels.launch_config import COMPUTED, CUDA_FLOATS
from gpu_nn.kernels.cuda_kernels.row_strategy import ITEMSIZES, Strategy, choose, every_strategy

_CUDA_INDICES = {"int32": "int", "int64": "long long"}
_CUDA_TARGETS = _CUDA_INDICES | CUDA_FLOATS


def softmax_cross_entropy(
    z: Array,
    y: Array,
    loss: Array,
    dz: Array | None,
    *,
    complement_weight: float = 1.0,
    class_weight: Array | None = None,
    row_scale: Array | None = None,
    scale: float = 1.0,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> None:
    """loss_r = f_r C_r and dz_rj = f_r ∂C_r/∂z_rj with f_r = scale · row_scale_r.

    z: (n, m) logits. y: (n,) int32 or int64 class indices, or (n, m) targets in [0, 1]. loss: (n,) of the compute type
    of z. dz: (n, m) of the type of z, may be z itself; None computes the loss alone. class_weight: (m,) and row_scale:
    (n,), both of the compute type.

    A row with f_r = 0 or y_r = ignore_index has loss and gradient 0 whatever it holds; a row whose index is out of
    range has NaN in both.
    """
    n, m = z.shape
    storage, target = z.dtype.name, y.dtype.name
    kernel, strategy = _kernel(storage, target, class_weight is not None, complement_weight != 0, m, limits(z))
    numbers = _numbers(storage, m, ignore_index, scale, complement_weight, label_smoothing)
    launch(
        kernel,
        strategy.grid(n),
        (strategy.threads,),
        (z, y, loss, dz, class_weight, row_scale),
        (z.size, n if target in _CUDA_INDICES else z.size, n, z.size, m, n),
        (n, *numbers, *strategy.numbers),
        strategy.shared_bytes,
    )


@lru_cache(maxsize=1024)
def _kernel(
    storage: str, target: str, weighted: bool, complement: bool, m: int, limits: Limits
) -> tuple[Kernel, Strategy]:
    if storage not in CUDA_FLOATS or target not in _CUDA_TARGETS:
        raise TypeError(
            f"no kernel takes logits of {storage} with y of {target}: logits are {', '.join(CUDA_FLOATS)}, "
            f"y is {', '.join(_CUDA_TARGETS)}"
        )
    indexed = target in _CUDA_INDICES
    strategy = choose(m, ITEMSIZES[storage], limits, indexed and not weighted)
    # Dense targets have a weight for each class in any case.
    return _instantiation(storage, target, weighted and indexed, complement, strategy.any_length()), strategy


@cache
def _instantiation(storage: str, target: str, weighted: bool, complement: bool, strategy: Strategy) -> Kernel:
    flags = f"{str(weighted).lower()}, {str(complement).lower()}"
    types = f"{CUDA_FLOATS[storage]}, {_CUDA_TARGETS[target]}, {flags}"
    value = COMPUTED[storage]
    number = np.dtype(value).type
    return Kernel(
        "softmax_cross_entropy.cu",
        strategy.kernel("softmax_cross_entropy", types),
        arrays=(storage, target, value, storage, value, value),
        numbers=(np.int64, np.int32, np.int64, np.int32, *(number,) * 6, *map(type, strategy.numbers)),
        since=strategy.since,
    )


@lru_cache(maxsize=256)
def _numbers(
    storage: str, m: int, ignore_index: int | None, scale: float, complement_weight: float, smoothing: float
) -> tuple[Any, ...]:
    """The kernel's numbers from `m` on, in its types; differences are computed in float64."""
    number = np.dtype(COMPUTED[storage]).type
    share = smoothing / m
    return (
        np.int32(m),
        np.int64(0 if ignore_index is None else ignore_index),
        np.int32(ignore_index is not None),
        number(scale),
        number(share),
        number(1 - smoothing),
        number(complement_weight * (1 - share)),
        number(complement_weight * (smoothing - share)),
        number(complement_weight),
    )


def every_kernel() -> Iterator[Kernel]:
    """Each instantiation that a launch can request, except some lengths of thread_per_row and types of y: types of
    one kind differ only in how they are read."""
    for storage in CUDA_FLOATS:
        for target, weighted, complement in (
            ("int32", False, True),
            ("int64", False, False),
            ("int64", True, True),
            (storage, False, True),
            (storage, False, False),
        ):
            for strategy in every_strategy(ITEMSIZES[storage], target in _CUDA_INDICES and not weighted):
                yield _instantiation(storage, target, weighted, complement, strategy)
