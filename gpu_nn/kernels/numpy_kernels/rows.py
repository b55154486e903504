"""The row state of a block of logits, and the scratch memory that the blocks share.

Let k = argmax z, M₁ = z_k, M₂ = max_{s≠k} z_s, E = Σ_{s≠k} e^{z_s-M₂}. Every quantity of the softmax and of the
all-but-one softmax follows from these without computing 1 - p_k; cuda_src/README.md derives them:

    q   = e^{M₂-M₁} E = (1-p_k)/p_k        p_k = 1/(1+q)        c_k = 1-p_k = q/(1+q)
    s_j = e^{z_j-M₂}/E = soft(z_{≠k}, j)   p_j = s_j c_k        o_j = p_j/(1-p_j) = e^{z_j-M₂} / (E/c_k - e^{z_j-M₂})

p_j ≤ ½ for j ≠ k, so nothing cancels in o_j. The formulas hold with any number in place of M₂. For many classes and
moderate logits the code uses 0, and E is then a sum of e^{z_s}.
"""

import math
import threading
from collections.abc import Iterator

import numpy as np

from gpu_nn.device import aligned_empty

# Elements of a block: the few arrays of a block stay in the L2 cache, and a call still does enough work.
BLOCK_ELEMENTS = 1 << 16

# Up to this many classes a block is stored class by class, (m, rows) in memory: reductions over few classes then run
# along whole rows of memory instead of in loops of length m.
CLASS_MAJOR_LIMIT = 64

# For a maximum within ±60, and E and q of at least these, every relevant e^z is a normal number of float32.
_LARGEST_MAXIMUM, _SMALLEST_SUM_EXP, _SMALLEST_Q = 60.0, 1e-25, 1e-30

_ARGMAX_ROWS = 512
_SUMMED_ONE_BY_ONE = 32
_BYTE = np.dtype(np.uint8)


class _Scratch(threading.local):
    """Memory reused from call to call, one array for each name and thread, as large as a block and not as the batch."""

    def __init__(self) -> None:
        self._memory: dict[str, np.ndarray] = {}
        self._views: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}
        self._ones: dict[str, np.ndarray] = {}
        self._integers = np.arange(0)

    def take(self, name: str, shape: tuple[int, ...], dtype: np.dtype, class_major: bool = False) -> np.ndarray:
        """An array of that shape; class_major: the transpose of one that is contiguous."""
        return self.take_with_flat(name, shape, dtype, class_major)[0]

    def take_with_flat(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype, class_major: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The array, and a flat view of its memory."""
        key = (name, shape, dtype.char, class_major)
        views = self._views.get(key)
        if views is None:
            size = math.prod(shape)
            memory = self._memory.get(name)
            if memory is None or memory.nbytes < size * dtype.itemsize:
                memory = self._memory[name] = aligned_empty((max(size, BLOCK_ELEMENTS) * dtype.itemsize,), np.uint8)
                self._views.clear()
            flat = memory[: size * dtype.itemsize].view(dtype)
            if len(self._views) > 256:
                self._views.clear()
            views = self._views[key] = flat.reshape(shape[::-1]).T if class_major else flat.reshape(shape), flat
        return views

    def integers(self, stop: int) -> np.ndarray:
        """0 … stop-1; not to be written."""
        if len(self._integers) < stop:
            self._integers = np.arange(stop)
        return self._integers[:stop]

    def ones(self, size: int, dtype: np.dtype) -> np.ndarray:
        """`size` ones; not to be written."""
        ones = self._ones.get(dtype.char)
        if ones is None or len(ones) < size:
            ones = self._ones[dtype.char] = np.ones(size, dtype)
        return ones[:size]


scratch = _Scratch()


def all_finite(values: np.ndarray) -> bool:
    """Whether 1-D `values` are all finite; False also where their squares overflow."""
    return math.isfinite(values.dot(values))


_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def compute_dtype(dtype: np.dtype) -> np.dtype:
    """The type in which logits of `dtype` are computed: float32 for the half types, else their own."""
    return _FLOAT64 if dtype == _FLOAT64 else _FLOAT32


def blocks(n: int, m: int) -> Iterator[slice]:
    """The rows 0…n of an (n, m) array in blocks of about BLOCK_ELEMENTS elements."""
    rows = max(1, BLOCK_ELEMENTS // max(m, 1))
    for start in range(0, n, rows):
        yield slice(start, min(start + rows, n))


def sum_over_classes(array: np.ndarray, class_major: bool) -> np.ndarray:
    """Σ_j array_rj, without long sequential sums in float32. class_major: the layout of the array in memory."""
    rows, width = array.shape
    if not class_major:
        return np.add.reduce(array, axis=1)  # pairwise along a row
    if width > _SUMMED_ONE_BY_ONE:
        half = width // 2
        last = array[:, width - 1] if width % 2 else None
        folded = scratch.take("folded", (rows, width), array.dtype, True)[:, :half]
        array = np.add(array[:, :half], array[:, half : 2 * half], out=folded)
        if last is not None:
            array[:, 0] += last
        width = half
    # The product with ones is faster than a sum along the axis, and as deterministic.
    return array.dot(scratch.ones(width, array.dtype))


def _exp_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """e^{a-b}, compensated for the rounding error of a-b; at a-b = -80 it would cost e^{a-b} its last six bits."""
    if a.dtype == np.float32:
        return np.exp(np.subtract(a, b, dtype=np.float64)).astype(np.float32)
    difference = a - b
    virtual_b = difference - a
    error = (a - (difference - virtual_b)) - (b + virtual_b)
    power = np.exp(difference)
    power += power * error
    return power


class RowState:
    """The row state of `z`, (rows, m), with e_j = e^{z_j-M₂} for all j ≠ k held in scratch memory (e_k = 0).

    k, flat_k: column of the maximum, and its index in a scratch array's flat view.  maximum: M₁.  sum_exp: E.
    q, log1p_q, p_k, c_k: as above.  All of them (rows,).  has_masked_rows: whether a row may have fewer than two finite
    logits.

    A class with logit -inf has p = 0; so has every class of a row of nothing but -inf. A row with NaN or +inf is NaN
    throughout.
    """

    def __init__(self, z: np.ndarray):
        self.rows, self.m = z.shape
        self.class_major = self.m <= CLASS_MAJOR_LIMIT
        self.dtype = compute_dtype(z.dtype)
        self.row_numbers = scratch.integers(self.rows)
        self.ones = scratch.ones(self.m, self.dtype)
        self.e, self.flat_e = self.array("e")
        self.has_masked_rows = False
        if not self._from_exponentials(z):
            self._from_differences(z)
        self.log1p_q = np.log1p(self.q)

    def _from_exponentials(self, z: np.ndarray) -> bool:
        """The state with 0 in place of M₂, in fewer passes; False for logits out of its range, such as NaN.

        With few classes it would save little, and their rounding errors do not average out.
        """
        if self.class_major:
            return False
        e = self.e
        source = z
        if z.dtype != self.dtype:
            np.copyto(e, z)
            source = e
        self._find_maximum(source, z)
        if not np.maximum.reduce(np.abs(self.maximum), initial=0) <= _LARGEST_MAXIMUM:  # so is NaN
            return False
        np.exp(source, out=e)
        self.flat_e[self.flat_k] = 0
        self.sum_exp = self.sum(e)
        self.q = np.exp(-self.maximum)
        self.q *= self.sum_exp
        fit = np.minimum.reduce(self.sum_exp, initial=1) >= _SMALLEST_SUM_EXP
        if not (fit and np.minimum.reduce(self.q, initial=1) >= _SMALLEST_Q):
            return False
        self.p_k = np.reciprocal(1 + self.q)
        self.c_k = self.q * self.p_k
        self.log_q = np.log(self.q)
        return True

    def _from_differences(self, z: np.ndarray) -> None:
        """The state by its definition."""
        e = self.e
        np.copyto(e, z)
        self._find_maximum(e, z)
        self.flat_e[self.flat_k] = -np.inf
        second = np.maximum.reduce(e, axis=1)
        self.gap = second - self.maximum
        self.q = _exp_difference(second, self.maximum)
        self.has_masked_rows = not all_finite(self.gap)
        if self.has_masked_rows:
            lone, empty = self._set_masked_rows(second)
        e -= second[:, None]
        np.exp(e, out=e)
        self.sum_exp = self.sum(e)
        if self.has_masked_rows:
            self.sum_exp[lone] = 1
        self.q *= self.sum_exp
        self.p_k = np.reciprocal(1 + self.q)
        self.c_k = self.q * self.p_k
        if self.has_masked_rows:
            self.p_k[empty] = 0
        self.log_q = np.log(self.sum_exp)
        self.log_q += self.gap

    def _find_maximum(self, e: np.ndarray, z: np.ndarray) -> None:
        """k, the column of the largest z, and its logit. e: z, or a copy of it in scratch memory."""
        if not self.class_major or self.rows < _ARGMAX_ROWS:
            self.k = e.argmax(axis=1)
        else:
            # argmax takes 30 ns a row however short; the maximum of (m-1-j)·[e_j = max] takes passes over columns.
            maximal = scratch.take("maximal", e.shape, _BYTE, self.class_major)
            np.equal(e, e.max(axis=1)[:, None], out=maximal.view(bool))
            maximal *= np.arange(self.m - 1, -1, -1, dtype=_BYTE)
            self.k = self.m - 1 - maximal.max(axis=1).astype(np.intp)
        self.flat_k = self.flat_index(self.k)
        self.maximum = z[self.row_numbers, self.k].astype(self.dtype, copy=False)

    def _set_masked_rows(self, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Set M₁, M₂ and e^{M₂-M₁} to values that give the right limits in rows with fewer than two finite logits.

        Returns which rows have at most one class that is not masked, and which have none.
        """
        lone, empty = np.isneginf(second), np.isneginf(self.maximum)
        second[lone] = 0
        self.gap[lone] = -np.inf
        self.q[np.isneginf(self.gap)] = 0
        self.gap[empty] = 0
        self.maximum[empty] = 0
        broken = ~(self.maximum < np.inf)
        self.gap[broken] = self.q[broken] = np.nan
        return lone, empty

    def array(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A scratch array of the block's shape and layout, and its flat view, for `flat_index`."""
        return scratch.take_with_flat(name, (self.rows, self.m), self.dtype, self.class_major)

    def flat_index(self, column: np.ndarray) -> np.ndarray:
        """The indices of (row, column[row]) in the flat view of a scratch array."""
        if self.class_major:
            return column * self.rows + self.row_numbers
        return column + self.row_numbers * self.m

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Σ over the classes."""
        return sum_over_classes(array, self.class_major)

    def weighted_gap_sum(self, z: np.ndarray, weight: float | np.ndarray) -> np.ndarray:
        """Σ_t weight_t (M₁-z_t), where 0 · ∞ is 0."""
        gaps, _ = self.array("work")
        np.subtract(self.maximum[:, None], z, out=gaps, dtype=self.dtype)
        gaps *= weight
        total = self.sum(gaps)
        if not all_finite(total):
            gaps[np.broadcast_to(weight == 0, gaps.shape)] = 0
            total = self.sum(gaps)
        return total

    def odds(self) -> tuple[np.ndarray, np.ndarray]:
        """o_j for j ≠ k and 0 at k, in scratch memory, and its flat view."""
        odds, flat_odds = self.array("odds")
        np.subtract((self.sum_exp / self.c_k)[:, None], self.e, out=odds)
        np.divide(self.e, odds, out=odds)
        return odds, flat_odds

    def log1m_p_k(self) -> np.ndarray:
        """ln(1-p_k) = ln q - log1p(q); for q ≥ 1, where that cancels, -log1p(1/q)."""
        log1m = self.log_q - self.log1p_q
        unsure = self.q >= 1
        if unsure.any():
            log1m[unsure] = -np.log1p(1 / self.q[unsure])
        return log1m
