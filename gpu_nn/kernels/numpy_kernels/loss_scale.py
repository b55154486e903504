"""Dynamic loss scaling for float16 (Micikevicius et al. 2018), decided on the gradient's device."""

import math

import numpy as np


def scale_rows(weight: np.ndarray | None, loss_scale: np.ndarray, out: np.ndarray) -> None:
    """out_r = weight_r · loss_scale_0, (n,); weight None for 1 each."""
    out[...] = loss_scale if weight is None else weight * loss_scale


def adjust_loss_scale(
    norm: np.ndarray,
    loss_scale: np.ndarray,
    good_steps: np.ndarray,
    step: np.ndarray,
    gradient_scale: np.ndarray,
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
    by = float(loss_scale[0])
    if not math.isfinite(norm[0]):
        gradient_scale[0], loss_scale[0], good_steps[0] = math.nan, max(by / factor, 1.0), 0
        return
    true_norm = float(norm[0]) / by
    clipped = max_norm / true_norm if max_norm is not None and max_norm < true_norm else 1.0
    gradient_scale[0] = clipped / by
    step[0] += 1
    good_steps[0] += 1
    if good_steps[0] == interval:
        loss_scale[0], good_steps[0] = min(by * factor, most), 0
