"""The coefficients A_t and B_t of the cost's logarithms for each kind of targets, and the sums that contain them."""

import numpy as np
from numpy.lib.introspect import opt_func_info

from gpu_nn.device import Array
from gpu_nn.kernels.numpy_kernels.rows import RowState, all_finite

# Whether NumPy has a vectorized log1p, which costs as much as four multiplications; the scalar one as sixty.
_VECTOR_LOG1P = all(
    not entry["current"].startswith("baseline") for entry in opt_func_info("^log1p$", "float(32|64)")["log1p"].values()
)

# Without one, a block's factors 1+o are first multiplied, down to this many elements.
_LOG1P_ELEMENTS = 2048


class OneHotCost:
    """A_t = [t = label], B_t = λ [t ≠ label]. After `set_block`: a_total = A, a_k, a_rest = A', b_k of the rows."""

    a_total: Array = 1

    def __init__(self, complement_weight: float):
        self.complement_weight = complement_weight

    def set_block(self, state: RowState, y: np.ndarray) -> None:
        self.state, self.y = state, y
        self.label = state.flat_index(y)
        self.a_k = (y == state.k).astype(state.dtype)
        self.a_rest = 1 - self.a_k
        self.b_k = self.a_rest if self.complement_weight == 1 else self.a_rest * self.complement_weight

    def gap_sum(self, z: np.ndarray) -> Array:
        """Σ_t A_t (M₁-z_t)."""
        return self.state.maximum - z[self.state.row_numbers, self.y]

    def complement(self, odds: np.ndarray, flat_odds: np.ndarray) -> tuple[Array, Array]:
        """R and Σ_{t≠k} B_t log1p(o_t); turns `odds` into B_t o_t."""
        flat_odds[self.label] = 0
        complement = _sum_log1p(self.state, odds)
        if self.complement_weight != 1:
            complement *= self.complement_weight
            odds *= self.complement_weight
        return self.state.sum(odds), complement

    def subtract_a(self, e: np.ndarray, flat_e: np.ndarray) -> None:
        """e -= A, but for column k."""
        flat_e[self.label] -= 1


class IndexCost:
    """A_t and B_t of labels with smoothing or class weights: `on` at the label, `off` at the other classes.

    Each is a number, or (m,) with class weights. The methods are those of OneHotCost.
    """

    def __init__(
        self, m: int, dtype: np.dtype, complement_weight: float, class_weight: np.ndarray | None, smoothing: float
    ):
        self.complement_weight, self.smoothing = complement_weight, smoothing
        self.weighted = class_weight is not None
        share = smoothing / m
        w: Array = np.float64(1) if class_weight is None else class_weight.astype(np.float64)
        self.gain = np.asarray(w * (1 - smoothing), dtype)  # a_on - a_off
        self.a_off = np.asarray(w * share, dtype)
        # A' is the total minus a_off[k]; in float64, since it cancels.
        self.a_off_rest = np.asarray(np.sum(w * np.full(m, share)) - w * share, dtype)
        self.b_on = np.asarray(w * complement_weight * (smoothing - share), dtype)
        self.b_off = np.asarray(w * complement_weight * (1 - share), dtype)

    def set_block(self, state: RowState, y: np.ndarray) -> None:
        self.state, self.y = state, y
        self.label = state.flat_index(y)
        k = state.k
        hit = (y == k).astype(state.dtype)
        miss = 1 - hit
        self.row_gain = self._at(self.gain, y)
        self.a_k = hit * self.row_gain + self._at(self.a_off, k)
        self.a_rest = miss * self.row_gain + self._at(self.a_off_rest, k)
        self.a_total = self.a_k + self.a_rest
        self.b_k = miss * self._at(self.b_off, k) + hit * self._at(self.b_on, k)

    def _at(self, value: np.ndarray, index: np.ndarray) -> np.ndarray:
        return value[index] if self.weighted else value

    def gap_sum(self, z: np.ndarray) -> Array:
        state = self.state
        gaps = times(self.row_gain, state.maximum - z[state.row_numbers, self.y])
        if self.smoothing:
            gaps += state.weighted_gap_sum(z, self.a_off)
        return gaps

    def complement(self, odds: np.ndarray, flat_odds: np.ndarray) -> tuple[Array, Array]:
        state = self.state
        odds_label = flat_odds[self.label]
        flat_odds[self.label] = 0
        if self.weighted:
            work, _ = state.array("work")
            complement = np.log1p(odds, out=work) @ self.b_off
        else:
            complement = self.b_off * _sum_log1p(state, odds)
        b_on = self._at(self.b_on, self.y)
        complement += b_on * np.log1p(odds_label)
        odds *= self.b_off
        flat_odds[self.label] = b_on * odds_label
        return state.sum(odds), complement

    def subtract_a(self, e: np.ndarray, flat_e: np.ndarray) -> None:
        if self.smoothing:
            e -= self.a_off
        flat_e[self.label] -= self.row_gain


class DenseCost:
    """A_t and B_t from a target for each class. The methods are those of OneHotCost."""

    def __init__(self, complement_weight: float, class_weight: np.ndarray | None, smoothing: float):
        self.complement_weight, self.class_weight, self.smoothing = complement_weight, class_weight, smoothing

    def set_block(self, state: RowState, y: np.ndarray) -> None:
        self.state = state
        (self.a, flat_a), (self.b, flat_b) = (a, _), (b, _) = state.array("a"), state.array("b")
        np.copyto(a, y, casting="same_kind")
        if self.smoothing:
            a *= 1 - self.smoothing
            a += self.smoothing / state.m
        np.subtract(1, a, out=b)
        if self.complement_weight != 1:
            b *= self.complement_weight
        if self.class_weight is not None:
            a *= self.class_weight
            b *= self.class_weight
        self.a_k, self.b_k = flat_a[state.flat_k], flat_b[state.flat_k]
        flat_a[state.flat_k] = 0
        flat_b[state.flat_k] = 0
        self.a_rest = state.sum(a)
        self.a_total = self.a_k + self.a_rest

    def gap_sum(self, z: np.ndarray) -> Array:
        state = self.state
        gaps = state.weighted_gap_sum(z, self.a)
        if state.has_masked_rows:  # else M₁ - z_k = 0
            gaps += times(self.a_k, state.maximum - z[state.row_numbers, state.k])
        return gaps

    def complement(self, odds: np.ndarray, flat_odds: np.ndarray) -> tuple[Array, Array]:
        work, _ = self.state.array("work")
        np.log1p(odds, out=work)
        work *= self.b
        odds *= self.b
        return self.state.sum(odds), self.state.sum(work)

    def subtract_a(self, e: np.ndarray, flat_e: np.ndarray) -> None:
        e -= self.a


def times(weight: np.ndarray, value: np.ndarray) -> np.ndarray:
    """weight · value, where 0 · ∞ is 0."""
    product = weight * value
    if not all_finite(product):
        product[np.broadcast_to(weight == 0, product.shape)] = 0
    return product


def _sum_log1p(state: RowState, odds: np.ndarray) -> np.ndarray:
    """Σ_t log1p(o_t) of each row; without a fast log1p as log1p of (Π_t (1+o_t)) - 1 for groups of classes.

    (1+a)(1+b) - 1 = a + b + ab has positive terms only, and over a whole row it stays below 3.
    """
    if _VECTOR_LOG1P:
        return state.sum(np.log1p(odds, out=state.array("work")[0]))
    width, group = state.m, odds
    names = ["work", "products"]
    while width > 1 and width * state.rows > _LOG1P_ELEMENTS:
        half = width // 2
        low, high = group[:, :half], group[:, half : 2 * half]
        product = np.multiply(low, high, out=state.array(names[0])[0][:, :half])
        product += low
        product += high
        if width % 2:
            last = group[:, width - 1]
            product[:, 0] += last * (1 + product[:, 0])
        group, width = product, half
        names.reverse()
    return np.log1p(group).dot(state.ones[:width])
