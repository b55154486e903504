"""Dynamic loss scaling for float16 (Micikevicius et al. 2018), decided on the gradient's device."""

import math
from collections.abc import Iterator
from functools import cache

import numpy as np

from gpu_nn.device import Array
from gpu_nn.kernels.cuda_kernels.launch import Kernel, launch
from gpu_nn.kernels.cuda_kernels.launch_config import THREADS, ceil_div


@cache
def _scale_rows() -> Kernel:
    return Kernel("loss_scale.cu", "scale_rows", ("float32",) * 3, (np.int64,))


@cache
def _adjust_loss_scale() -> Kernel:
    arrays = ("float64", "float32", "int64", "int64", "float32")
    return Kernel("loss_scale.cu", "adjust_loss_scale", arrays, (np.float64, np.float64, np.float64, np.int64))


def every_kernel() -> Iterator[Kernel]:
    """Each instantiation that a launch can request."""
    yield _scale_rows()
    yield _adjust_loss_scale()


def scale_rows(weight: Array | None, loss_scale: Array, out: Array) -> None:
    """out_r = weight_r · loss_scale_0, (n,); weight None for 1 each."""
    n = out.size
    launch(_scale_rows(), (ceil_div(n, THREADS),), (THREADS,), (weight, loss_scale, out), (n, 1, n), (n,))


def adjust_loss_scale(
    norm: Array,
    loss_scale: Array,
    good_steps: Array,
    step: Array,
    gradient_scale: Array,
    *,
    max_norm: float | None,
    factor: float,
    most: float,
    interval: int,
) -> None:
    """Scale and counters after a step; norm_0 is the norm of the scaled gradient. All arrays have one element.

    If norm_0 is finite, gradient_scale removes the scale and clips to max_norm, step_0 += 1, and after `interval` such
    steps in a row the scale is multiplied by `factor`, up to `most`. Else gradient_scale is NaN, at which optimizers
    change nothing, and the scale is divided by `factor`, down to 1.
    """
    arrays = (norm, loss_scale, good_steps, step, gradient_scale)
    numbers = (math.inf if max_norm is None else max_norm, factor, most, interval)
    launch(_adjust_loss_scale(), (1,), (1,), arrays, (1,) * 5, numbers)
