"""Loss and output gradient of the softmax cross entropy with its all-but-one terms; cuda_src/README.md derives them.

With y smoothed first, A_t = w_t y_t and B_t = λ w_t (1-y_t), a row's cost and gradient are

    C   = -Σ_t [A_t ln p_t + B_t ln(1-p_t)]
        = A log1p(q) + Σ_t A_t (M₁-z_t) - B_k ln(1-p_k) + Σ_{t≠k} B_t log1p(o_t)
    g_k = p_k (A' - R + B_k) - A_k c_k
    g_j = s_j (c_k (A - R) - B_k p_k) + B_j o_j - A_j                                  j ≠ k

where A = Σ_t A_t,  A' = Σ_{t≠k} A_t,  R = Σ_{t≠k} B_t o_t.
"""

import numpy as np

from gpu_nn.device import Array
from gpu_nn.kernels.numpy_kernels.costs import DenseCost, IndexCost, OneHotCost, times
from gpu_nn.kernels.numpy_kernels.rows import RowState, all_finite, blocks, compute_dtype
from gpu_nn.kernels.numpy_kernels.small_batch import CLASSES, ELEMENTS, small_batch


def softmax_cross_entropy(
    z: np.ndarray,
    y: np.ndarray,
    loss: np.ndarray,
    dz: np.ndarray | None,
    *,
    complement_weight: float = 1.0,
    class_weight: np.ndarray | None = None,
    row_scale: np.ndarray | None = None,
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
    one_hot = y.ndim == 1 and class_weight is None and not label_smoothing
    if one_hot and row_scale is None and ignore_index is None and z.dtype == np.float32:
        small = 0 < n * m <= ELEMENTS and m <= CLASSES and _legal(y, m, None)[1] is None
        if small and small_batch(z, y, loss, dz, complement_weight, scale):
            return
    dtype = compute_dtype(z.dtype)
    if dtype.type(scale) == 0:
        for output in (loss, dz):
            if output is not None:
                output[...] = 0
        return
    cost: OneHotCost | IndexCost | DenseCost
    if y.ndim == 2:
        cost = DenseCost(complement_weight, class_weight, label_smoothing)
    elif one_hot:
        cost = OneHotCost(complement_weight)
    else:
        cost = IndexCost(m, dtype, complement_weight, class_weight, label_smoothing)
    with np.errstate(all="ignore"):
        for block in blocks(n, m):
            target: Array = y[block]
            factor: Array = scale
            wrong = dead = None
            if y.ndim == 1:
                target, wrong, dead = _legal(target, m, ignore_index)
            if row_scale is not None:
                factor = row_scale[block] * scale
                if not factor.all():
                    dead = (factor == 0) if dead is None else dead | (factor == 0)
            loss_block, dz_block = loss[block], None if dz is None else dz[block]
            _block(z[block], target, cost, factor, loss_block, dz_block)
            for rows, value in ((wrong, np.nan), (dead, 0)):
                if rows is not None:
                    loss_block[rows] = value
                    if dz_block is not None:
                        dz_block[rows] = value


def _legal(y: Array, m: int, ignore_index: int | None) -> tuple[Array, Array | None, Array | None]:
    """The labels with 0 in place of those that cannot be used, which rows are out of range, and which are ignored."""
    unsigned: Array = y.view(np.uint64 if y.itemsize == 8 else np.uint32)
    if ignore_index is None and np.maximum.reduce(unsigned) < m:
        return y, None, None
    wrong = unsigned >= m
    ignored = None if ignore_index is None else y == ignore_index
    return np.where(wrong if ignored is None else wrong | ignored, 0, y), wrong, ignored


def _block(
    z: np.ndarray,
    y: np.ndarray,
    cost: "OneHotCost | IndexCost | DenseCost",
    factor: float | np.ndarray,
    loss: np.ndarray,
    dz: np.ndarray | None,
) -> None:
    state = RowState(z)
    cost.set_block(state, y)
    a_k, a_rest, b_k = cost.a_k, cost.a_rest, cost.b_k
    a = cost.a_total
    a_less_r, a_rest_less_r = a, a_rest
    rows_loss = cost.gap_sum(z)
    rows_loss += a * state.log1p_q
    if cost.complement_weight:
        odds, flat_odds = state.odds()
        r, complement = cost.complement(odds, flat_odds)
        a_less_r, a_rest_less_r = a - r, a_rest - r
        rows_loss += complement
        log1m = state.log1m_p_k()
        rows_loss -= times(b_k, log1m) if state.has_masked_rows else b_k * log1m
    # A masked class has no gradient, though it may have a target; then the loss is not finite.
    masked = None if all_finite(rows_loss) else np.isneginf(z)
    np.multiply(rows_loss, factor, out=loss)
    if dz is None:
        return

    e = state.e
    slope = a_less_r * state.c_k
    slope -= b_k * state.p_k
    slope /= state.sum_exp
    e *= slope[:, None]
    cost.subtract_a(e, state.flat_e)
    if cost.complement_weight:
        e += odds
    g_k = a_rest_less_r + b_k
    g_k *= state.p_k
    g_k -= a_k * state.c_k
    state.flat_e[state.flat_k] = g_k
    np.multiply(e, factor[:, None] if isinstance(factor, np.ndarray) else factor, out=dz, casting="same_kind")
    if masked is not None:
        dz[masked] = 0
