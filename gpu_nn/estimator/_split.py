"""The rows of a fit: which of them are held out, and what brings their columns to the same size."""

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from gpu_nn.device import CPU, Array
from gpu_nn.estimator._early_stopping import split_seed_of
from gpu_nn.estimator._validation import moved, place
from gpu_nn.network import Network
from gpu_nn.training.checkpoint import Checkpoint

# Rows at a time for sums in float64 over inputs in float32.
_ROWS = 65536

# A spread of this share of the mean, in float64, is what rounding left of a constant column.
_ROUNDING = 1e-12


@dataclass
class Rows:
    """Inputs, targets and weights of training rows, where X lies; weight None for 1 each. y: as it came."""

    x: Array
    targets: Array
    weight: Array | None
    y: Array

    def part(self, rows: Array) -> "Rows":
        # The labels lie on the host where they are text.
        y = self.y[moved(rows, place(self.y))]
        return Rows(self.x[rows], self.targets[rows], None if self.weight is None else self.weight[rows], y)


def split(targets: Array, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the training and of the held-out part, class indices in equal shares where their counts allow it.

    Raises ValueError when either part would be too small.
    """
    n = len(targets)
    held_out = int(np.ceil(n * fraction))
    if held_out < 2 or n - held_out < 1:
        raise ValueError(
            f"validation_fraction={fraction} of {n} rows leaves {held_out} to validate and {n - held_out} to train; "
            "early_stopping needs at least 2 and 1: choose another fraction, or pass validation=(X, y) to fit"
        )
    stratify = None
    if targets.ndim == 1:
        labels = moved(targets, CPU)
        counts = np.bincount(labels)
        counts = counts[counts > 0]
        stratify = labels if counts.min() > 1 and len(counts) <= min(held_out, n - held_out) else None
    train, test = train_test_split(np.arange(n), test_size=held_out, random_state=seed, stratify=stratify)
    return train, test


def split_seed_at(estimator: Any, checkpoint: Checkpoint, drawn: int) -> int:
    """By which to hold out the rows that the fit before the checkpoint held out. drawn: from random_state."""
    told = split_seed_of(checkpoint)
    if told is not None:
        return told
    # One of before checkpoints said it.
    if not isinstance(estimator.random_state, numbers.Integral):
        raise ValueError(
            f"resume needs to hold out the rows that were held out before, which {checkpoint.path} does not say and "
            f"random_state={estimator.random_state} draws anew: pass validation=(X, y)"
        )
    return drawn


def standardise(net: Network, x: Array, weight: Array | None) -> None:
    """Set the first layer's constants to the columns' mean and standard deviation over x, rows weighted by `weight`.

    x and weight lie in one place. Columns that are constant are shifted only.
    """
    device = place(x)
    xp = device.xp
    with device.active():
        weight = xp.ones(len(x)) if weight is None else weight
        total = weight.sum()
        blocks = [slice(start, start + _ROWS) for start in range(0, len(x), _ROWS)]
        # Two passes: squares of what is left after the mean, so that a column far from 0 keeps its digits.
        shift = sum(weight[b] @ x[b].astype(np.float64) for b in blocks) / total
        spread = xp.sqrt(sum(weight[b] @ (x[b].astype(np.float64) - shift) ** 2 for b in blocks) / total)
        constant = spread <= _ROUNDING * abs(shift)
        scale = 1 / xp.where(constant, 1, spread)
    for name, values in (("0.shift", shift), ("0.scale", scale)):
        net.state[name][...] = net.device.asarray(moved(values, net.device), net.dtype)
