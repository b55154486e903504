"""End of a training step: stores the batch's cost where the host reads it later, and advances the counters."""

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
    """Each instantiation that a launch can request."""
    yield from map(_record_loss, _DTYPES)


def record_loss(
    row_losses: Array,
    step_losses: Array,
    position: Array | None,
    loss_scale: Array | None = None,
    rows: int | None = None,
) -> None:
    """step_losses[position_1] = Σ_r row_losses_r;  position_0 += rows, the rows done;  position_1 += 1.

    row_losses: (n,). position: (2,) of int64, with position_1 within step_losses; None stands for 0, and
    nothing is advanced. loss_scale: (1,) of float32, by which the rows' costs are multiplied and their sum is divided.
    rows: None stands for n.
    """
    n = row_losses.size
    arrays, sizes = (row_losses, step_losses, position, loss_scale), (n, step_losses.size, 2, 1)
    kernel, numbers = _record_loss(row_losses.dtype.name), (n, n if rows is None else rows)
    launch(kernel, (1,), (THREADS,), arrays, sizes, numbers)
