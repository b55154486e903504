"""The coefficients A_t and B_t of the cost's logarithms, for each kind of targets; and the sums in which they stand."""

import numpy as np
from numpy.lib.introspect import opt_func_info

from gpu_nn.device import Array
from gpu_nn.kernels.numpy_kernels.rows import RowState, all_finite

# Where NumPy has log1p in vector instructions, it costs as much as four multiplications; elsewhere sixty.
_VECTOR_LOG1P = all(
    not entry["current"].startswith("baseline") for entry in opt_func_info("^log1p$", "float(32|64)")["log1p"].values()
)

# There a block's log1p(o) are first multiplied together, down to this many elements.
_LOG1P_ELEMENTS = 2048


class OneHotCost:
    """A_t = [t = label], B_t = λ [t ≠ label]. After `take`: a_total = A, a_k, a_rest = A', b_k of the rows."""

    a_total: Array = 1

    def __init__(self, complement_weight: float):
        self.complement_weight = complement_weight

    def take(self, state: RowState, y: np.ndarray) -> None:
        self.state, self.y = state, y
        self.label = state.place(y)
        self.a_k = (y == state.k).astype(state.dtype)
        self.a_rest = 1 - self.a_k
        self.b_k = self.a_rest if self.complement_weight == 1 else self.a_rest * self.complement_weight

    def depth(self, z: np.ndarray) -> Array:
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

    def subtract_from(self, e: np.ndarray, flat_e: np.ndarray) -> None:
        """e -= A, but for column k."""
        flat_e[self.label] -= 1


class IndexCost:
    """A_t and B_t of labels with smoothing or class weights: `hot` at the label, `cold` at the other classes.

    Each is a number, or (m,) with class weights. The methods are those of OneHotCost.
    """

    def __init__(
        self, m: int, dtype: np.dtype, complement_weight: float, class_weight: np.ndarray | None, smoothing: float
    ):
        self.complement_weight, self.smoothing = complement_weight, smoothing
        self.weighted = class_weight is not None
        share = smoothing / m
        w: Array = np.float64(1) if class_weight is None else class_weight.astype(np.float64)
        self.gain = np.asarray(w * (1 - smoothing), dtype)  # hot_a - cold_a
        self.cold_a = np.asarray(w * share, dtype)
        # A' is the total less cold_a[k]; in float64, since little may be left.
        self.cold_a_rest = np.asarray(np.sum(w * np.full(m, share)) - w * share, dtype)
        self.hot_b = np.asarray(w * complement_weight * (smoothing - share), dtype)
        self.cold_b = np.asarray(w * complement_weight * (1 - share), dtype)

    def take(self, state: RowState, y: np.ndarray) -> None:
        self.state, self.y = state, y
        self.label = state.place(y)
        k = state.k
        hit = (y == k).astype(state.dtype)
        miss = 1 - hit
        self.row_gain = self._at(self.gain, y)
        self.a_k = hit * self.row_gain + self._at(self.cold_a, k)
        self.a_rest = miss * self.row_gain + self._at(self.cold_a_rest, k)
        self.a_total = self.a_k + self.a_rest
        self.b_k = miss * self._at(self.cold_b, k) + hit * self._at(self.hot_b, k)

    def _at(self, value: np.ndarray, index: np.ndarray) -> np.ndarray:
        return value[index] if self.weighted else value

    def depth(self, z: np.ndarray) -> Array:
        state = self.state
        depth = times(self.row_gain, state.maximum - z[state.row_numbers, self.y])
        if self.smoothing:
            depth += state.weighted_depth(z, self.cold_a)
        return depth

    def complement(self, odds: np.ndarray, flat_odds: np.ndarray) -> tuple[Array, Array]:
        state = self.state
        odds_label = flat_odds[self.label]
        flat_odds[self.label] = 0
        if self.weighted:
            work, _ = state.array("work")
            complement = np.log1p(odds, out=work) @ self.cold_b
        else:
            complement = self.cold_b * _sum_log1p(state, odds)
        hot_b = self._at(self.hot_b, self.y)
        complement += hot_b * np.log1p(odds_label)
        odds *= self.cold_b
        flat_odds[self.label] = hot_b * odds_label
        return state.sum(odds), complement

    def subtract_from(self, e: np.ndarray, flat_e: np.ndarray) -> None:
        if self.smoothing:
            e -= self.cold_a
        flat_e[self.label] -= self.row_gain


class DenseCost:
    """A_t and B_t from a target for each class. The methods are those of OneHotCost."""

    def __init__(self, complement_weight: float, class_weight: np.ndarray | None, smoothing: float):
        self.complement_weight, self.class_weight, self.smoothing = complement_weight, class_weight, smoothing

    def take(self, state: RowState, y: np.ndarray) -> None:
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
        self.a_k, self.b_k = flat_a[state.at_k], flat_b[state.at_k]
        flat_a[state.at_k] = 0
        flat_b[state.at_k] = 0
        self.a_rest = state.sum(a)
        self.a_total = self.a_k + self.a_rest

    def depth(self, z: np.ndarray) -> Array:
        state = self.state
        depth = state.weighted_depth(z, self.a)
        if state.unusual:  # else M₁ - z_k = 0
            depth += times(self.a_k, state.maximum - z[state.row_numbers, state.k])
        return depth

    def complement(self, odds: np.ndarray, flat_odds: np.ndarray) -> tuple[Array, Array]:
        work, _ = self.state.array("work")
        np.log1p(odds, out=work)
        work *= self.b
        odds *= self.b
        return self.state.sum(odds), self.state.sum(work)

    def subtract_from(self, e: np.ndarray, flat_e: np.ndarray) -> None:
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
