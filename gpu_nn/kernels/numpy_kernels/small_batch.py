"""Loss and output gradient of a small batch of labels, where calls cost more than arithmetic.

With float32 logits and float64 at hand the row state is not needed: every sum over the other classes, Σ_{s≠t} v_s, is a
product with J = 1 - I, which never subtracts. With e_t = e^{z_t-M₁}, S = Σ_t e_t and label l:

    o_t = e_t/(eJ)_t        q = min_t (eJ)_t        -ln p_l = M₁ - z_l + log1p(q)        -ln(1-p_t) = log1p(o_t)
    g_j = p_j (1 + λ - λ (oJ)_j),  j ≠ l            g_l = -λ p_l (oJ)_l - (eJ)_l/S       with o_l = 0 in oJ

This holds while q is far from float64's underflow.
"""

from functools import cache

import numpy as np

from gpu_nn.kernels.numpy_kernels.rows import all_finite, scratch

ELEMENTS = 4096
CLASSES = 64

_FLOAT64 = np.dtype(np.float64)
_SMALLEST_Q = 1e-280


@cache
def _others(m: int) -> np.ndarray:
    return 1 - np.eye(m)


def small_batch(
    z: np.ndarray, y: np.ndarray, loss: np.ndarray, dz: np.ndarray | None, complement_weight: float, scale: float
) -> bool:
    """softmax_cross_entropy for legal labels y; False, with nothing written, for logits that are not fit for it."""
    n, m = z.shape
    others, ones = _others(m), scratch.ones(m, _FLOAT64)
    e, flat_e = scratch.take_with_flat("e", z.shape, _FLOAT64)
    np.subtract(z, np.maximum.reduce(z, axis=1)[:, None], out=e, dtype=_FLOAT64)
    label = scratch.integers(n) * m
    label += y
    height = flat_e[label]  # z_l - M₁
    np.exp(e, out=e)
    rest = e.dot(others)
    q = np.minimum.reduce(rest, axis=1)
    if not (np.minimum.reduce(q) > _SMALLEST_Q and all_finite(height)):
        return False
    rest_label = rest.reshape(-1)[label]
    rows_loss = np.log1p(q)
    rows_loss -= height
    odds = np.divide(e, rest, out=rest)
    odds.reshape(-1)[label] = 0
    complement = np.log1p(odds).dot(ones)
    if complement_weight != 1:
        complement *= complement_weight
        odds *= complement_weight
    rows_loss += complement
    np.multiply(rows_loss, scale, out=loss, casting="same_kind")
    if dz is None:
        return True
    scaled = scale / e.dot(ones)
    e *= scaled[:, None]
    pull = odds.dot(others)
    g_label = flat_e[label] * pull.reshape(-1)[label]
    g_label += rest_label * scaled
    np.subtract(1 + complement_weight, pull, out=pull)
    pull *= e
    pull.reshape(-1)[label] = -g_label
    np.copyto(dz, pull, casting="same_kind")
    return True
