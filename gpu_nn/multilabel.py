"""Multi-label classification with one softmax: how several labels a row are read from its outputs.

The network has one output more than labels, the *reference*, the last, whose target is ½ in every row. Where the
expected cost is minimal, its outputs are in the order of the expected targets: exchanging the outputs p_s, p_t of two
classes changes only -(Q_s - Q_t) (f(p_s) - f(p_t)), with Q the expected targets and f(p) = ln p - λ ln(1-p), which
increases with p. So label t is more probable than not exactly where p_t is above the reference's: `threshold`. The
condition of the minimum, ∂C/∂p_t = const, solved for Q_t with Q = ½ at the reference r, gives the label's probability:

    Q_t = [λ p_t + ½ (1-p_t) (ρ_t - λ s_t)] / (1 - p_t + λ p_t),    ρ_t = p_t/p_r,   s_t = p_t/(1-p_r) = soft(z_{≠r}, t)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_nn.device import Array
from gpu_nn.validation import check_number

REFERENCE = 0.5

# ρ is at most e to this power, which float32 can represent; the probability rounds to 1 long before.
LARGEST_LOGARITHM = 80.0


@dataclass(frozen=True)
class Multilabel:
    """Marks a network as multi-label. complement_weight: λ of the cost that it was trained with.

    Raises ValueError for a λ that is not a finite number ≥ 0.
    """

    complement_weight: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "complement_weight", check_number("complement_weight", self.complement_weight))

    def probabilities(self, xp: Any, softmax: Any, logits: Array) -> Array:
        """The probability of each label, (n, labels), in [0, 1), above ½ exactly where `threshold` gives 1.

        logits: (n, labels + 1), which are overwritten.  xp, softmax: the array module and kernel of their device.
        """
        above = _is_above_reference(logits)
        ratio = xp.exp(xp.minimum(scores(logits), LARGEST_LOGARITHM))
        share = logits[:, :-1].copy()
        softmax(share, share)
        softmax(logits, logits)
        p, weight = logits[:, :-1], self.complement_weight
        q = ratio / 2
        if weight:
            q = (weight * p + (1 - p) * (ratio - weight * share) / 2) / (1 - p + weight * p)
        # Away from a minimum of the cost Q may be outside of [0, 1); 1 itself would claim certainty. Q is above ½ where
        # p_t is above p_r for all outputs, but rounding may put q on the other side.
        least, most = bounds_above_half(logits.dtype)
        return xp.where(above, xp.clip(q, least, most), xp.clip(q, 0, REFERENCE))


def scores(logits: Array) -> Array:
    """ln(p_t/p_r), (n, labels), positive where `threshold` gives 1. logits: (n, labels + 1)."""
    return logits[:, :-1] - logits[:, -1:]


def threshold(logits: Array) -> Array:
    """0/1 flags of the labels, (n, labels) of int64. logits: (n, labels + 1)."""
    return _is_above_reference(logits).astype(np.int64)


def _is_above_reference(logits: Array) -> Array:
    return logits[:, :-1] > logits[:, -1:]


def bounds_above_half(dtype: Any) -> tuple[float, float]:
    """The smallest number of the type above ½, and the largest below 1."""
    step = float(np.finfo(dtype).epsneg)
    return REFERENCE + step, 1 - step
