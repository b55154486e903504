"""softmax, its logarithm, ln(1 - softmax), and the softmax with one class left out."""

import numpy as np

from gpu_nn.kernels.numpy_kernels.rows import (
    CLASS_MAJOR_LIMIT,
    RowState,
    all_finite,
    blocks,
    compute_dtype,
    scratch,
    sum_over_classes,
)


def softmax(z: np.ndarray, out: np.ndarray) -> None:
    """out_j = p_j = e^{z_j-M₁} / Σ_s e^{z_s-M₁}, which needs only the maximum of a row.

    A row of nothing but -inf is 0.
    """
    with np.errstate(all="ignore"):
        for block in blocks(*z.shape):
            z_block = z[block]
            class_major, dtype = z.shape[1] <= CLASS_MAJOR_LIMIT, compute_dtype(z.dtype)
            e = scratch.take("e", z_block.shape, dtype, class_major)
            source = z_block
            if class_major or z.dtype != dtype:
                np.copyto(e, z_block)
                source = e
            maximum = np.maximum.reduce(source, axis=1)
            if not all_finite(maximum):
                maximum[np.isneginf(maximum)] = 0
            np.exp(np.subtract(source, maximum[:, None], out=e), out=e)
            sum_exp = sum_over_classes(e, class_major)
            sum_exp[sum_exp == 0] = 1
            np.divide(e, sum_exp[:, None], out=out[block], casting="same_kind")


def log_softmax(z: np.ndarray, out: np.ndarray) -> None:
    """out_j = ln p_j = (z_j - M₁) - log1p(q)."""
    with np.errstate(all="ignore"):
        for block in blocks(*z.shape):
            state = RowState(z[block])
            log_p = np.subtract(z[block], state.maximum[:, None], dtype=state.dtype)
            log_p -= state.log1p_q[:, None]
            np.copyto(out[block], log_p, casting="same_kind")


def log1m_softmax(z: np.ndarray, out: np.ndarray) -> None:
    """out_j = ln(1 - p_j) = -log1p(o_j), and at the maximum (M₂-M₁) + ln E - log1p(q)."""
    with np.errstate(all="ignore"):
        for block in blocks(*z.shape):
            state = RowState(z[block])
            odds, _ = state.odds()
            np.log1p(odds, out=odds)
            np.negative(odds, out=odds)
            _store(state, odds, state.log1m_p_k(), out[block])


def all_but_one_softmax(z: np.ndarray, t: np.ndarray, out: np.ndarray) -> None:
    """out_rj = soft(z_{≠t}, j) with t = t_r, (n,) of int64: s_j where t is the maximum, else p_j/(1-p_t); 0 at t.

    A row whose t is out of range is NaN.
    """
    m = z.shape[1]
    with np.errstate(all="ignore"):
        for block in blocks(*z.shape):
            state = RowState(z[block])
            wrong = (t[block] < 0) | (t[block] >= m)
            column = np.where(wrong, 0, t[block])
            # 1/(1-p_t) = 1 + o_t, and 0 in place of o_k, which is not used.
            scale = 1 + state.odds()[1][state.flat_index(column)]
            factor = np.where(column == state.k, 1, state.c_k * scale) / state.sum_exp
            # A row with NaN or +inf is NaN also where that is the class left out.
            factor[np.isnan(state.q)] = np.nan
            state.e *= factor[:, None]
            _store(state, state.e, state.p_k * scale, out[block])
            out[block][state.row_numbers, column] = 0
            out[block][wrong] = np.nan


def _store(state: RowState, values: np.ndarray, value_k: np.ndarray, out: np.ndarray) -> None:
    np.copyto(out, values, casting="same_kind")
    out[state.row_numbers, state.k] = value_k
