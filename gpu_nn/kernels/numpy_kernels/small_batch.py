"""Loss and output gradient of a small batch of labels, where NumPy calls take longer than arithmetic.

In float64, logits of float32 need neither the row state nor a maximum: e_t = e^{z_t} does not overflow, and each sum
over the other classes, Σ_{s≠t} v_s, is a product with J = 1 - I, which never subtracts.
For a row with label l,

    o_t = e_t/(eJ)_t        u_t = o_t for t ≠ l, u_l = 1/o_l        C = log1p(u_l) + λ Σ_{t≠l} log1p(u_t)
    g_t = p_t (1 + λ - λ (oJ)_t),  t ≠ l        g_l = -p_l (u_l + λ (oJ)_l)        with o_l = 0 in oJ
"""

from functools import lru_cache

import numpy as np

from gpu_nn.kernels.numpy_kernels.rows import scratch

ELEMENTS = 4096
CLASSES = 64

# For logits within ±300 the odds are at most e^{2·300} times the classes, which leaves range in float64 for λ.
_LARGEST_LOGIT = 300.0


@lru_cache(maxsize=64)
def _matrices(m: int, complement_weight: float, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """J; rows of (1+λ)·scale at all classes but the label; the matrix that maps o times such rows to λ·scale·(oJ)."""
    others = 1 - np.eye(m)
    gain = 1 + complement_weight
    return others, others * (gain * scale), others * (complement_weight / gain)


@lru_cache(maxsize=64)
def _row_starts(n: int, m: int) -> np.ndarray:
    """The flat index of the first element of each row of an (n, m) array."""
    return np.arange(0, n * m, m)


def small_batch(
    z: np.ndarray, y: np.ndarray, loss: np.ndarray, dz: np.ndarray | None, complement_weight: float, scale: float
) -> bool:
    """softmax_cross_entropy for legal labels y; False, with nothing written, for logits out of its range."""
    if not np.maximum.reduce(np.abs(z.reshape(-1))) <= _LARGEST_LOGIT:  # so is NaN
        return False
    n, m = z.shape
    others, off_rows, back = _matrices(m, complement_weight, scale)
    label = _row_starts(n, m) + y
    e = np.exp(z, dtype=np.float64)
    rest = e.dot(others)
    odds = e / rest
    flat_odds = odds.reshape(-1)
    inverse = 1 / flat_odds[label]
    if dz is not None:
        slope = off_rows.take(y, 0)
        pull = (odds * slope).dot(back)
    flat_odds[label] = inverse
    rows_loss = np.log1p(odds).dot(scratch.ones(m, odds.dtype))
    if complement_weight != 1:
        rows_loss *= complement_weight
        rows_loss += (1 - complement_weight) * np.log1p(inverse)
    np.multiply(rows_loss, scale, out=loss, casting="same_kind")
    if dz is None:
        return True
    inverse *= -scale
    slope.reshape(-1)[label] = inverse
    slope -= pull
    rest += e
    e /= rest
    np.multiply(e, slope, out=dz, casting="same_kind")
    return True
