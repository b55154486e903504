"""The end of a training step: the batch's cost goes where the host reads it later, and the counters go on."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from gpu_nn.device import Array
from gpu_nn.kernels.cuda_kernels.launch import Kernel, launch
from gpu_nn.kernels.cuda_kernels.launch_config import CUDA_FLOATS, THREADS

_DTYPES = ("float32", "float64")


@cache
def _record_loss(dtype: str) -> Kernel:
    return Kernel(
        "record_loss.cu", f"record_loss<{CUDA_FLOATS[dtype]}>", (dtype, dtype, "int64", "float32"), (np.int64, np.int64)
    )


def every_kernel() -> Iterator[Kernel]:
    """Each instantiation that can be asked for."""
    yield from map(_record_loss, _DTYPES)


def record_loss(
    row_losses: Array,
    step_losses: Array,
    position: Array | None,
    loss_scale: Array | None = None,
    rows: int | None = None,
) -> None:
    """step_losses[position_1] = Σ_r row_losses_r;  position_0 += rows, those that are done;  position_1 += 1.

    row_losses: (n,). position: (2,) of int64, with position_1 within step_losses; None for the first of them, where
    nothing goes on. loss_scale: (1,) of float32, a factor of the rows' costs that is taken off their sum. rows: n
    where it is None.
    """
    n = row_losses.size
    arrays, sizes = (row_losses, step_losses, position, loss_scale), (n, step_losses.size, 2, 1)
    kernel, numbers = _record_loss(row_losses.dtype.name), (n, n if rows is None else rows)
    launch(kernel, (1,), (THREADS,), arrays, sizes, numbers)
