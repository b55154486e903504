"""The options, targets and weights of the cost, checked and brought to the device.

The cost of a batch, whose gradient cuda_src/README.md derives, with targets smoothed first, y' = (1-ε) y + ε/m:

    C = -Σ_r v_r Σ_t w_t [ y'_rt ln p_rt + λ (1-y'_rt) ln(1-p_rt) ]

λ = complement_weight, w = class_weight, which goes with the class t and not with the row's label, v = sample_weight and
ε = label_smoothing. With λ = 0 and one-hot y this is the standard cross entropy.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from gpu_nn.device import Array, check_on_host
from gpu_nn.errors import unknown_name
from gpu_nn.validation import UNIT_INTERVAL, check_number, is_int

Reduction = Literal["sum", "mean", "none"]


@dataclass(frozen=True)
class Cost:
    """The options of the cost. class_weight: (m,) numbers, None for 1 each. ignore_index: a label to skip."""

    complement_weight: float = 1.0
    class_weight: Any = None
    label_smoothing: float = 0.0
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        check_number("complement_weight", self.complement_weight)
        check_number("label_smoothing", self.label_smoothing, UNIT_INTERVAL)
        if not (self.ignore_index is None or is_int(self.ignore_index)):
            raise ValueError(f"ignore_index={self.ignore_index!r}; expected a label, a whole number, or None")

    def kernel_options(self, xp: Any, m: int, dtype: Any) -> dict[str, Any]:
        """The keyword arguments of the kernel `softmax_cross_entropy` for m classes computed in `dtype`."""
        class_weight = None
        if self.class_weight is not None:
            class_weight = weights("class_weight", self.class_weight, m, "classes", xp, dtype)
        return {
            "complement_weight": float(self.complement_weight),
            "class_weight": class_weight,
            "label_smoothing": float(self.label_smoothing),
            "ignore_index": self.ignore_index,
        }

    def prepare(
        self, y: Any, sample_weight: Any, reduction: str, shape: tuple[int, int], xp: Any, dtype: Any
    ) -> tuple[Array, dict[str, Any]]:
        """The targets of a batch and the keyword arguments of the kernel `softmax_cross_entropy`.

        shape: (n, m) of the logits.  dtype: of the computation. Raises as `targets` and `weights` do.
        """
        n, m = shape
        y = targets(y, n, m, self.ignore_index, xp, dtype)
        if sample_weight is not None:
            sample_weight = weights("sample_weight", sample_weight, n, "rows", xp, dtype)
        row_scale, scale = _row_scale(y, sample_weight, self.ignore_index, reduction, xp, dtype)
        return y, {"row_scale": row_scale, "scale": scale, **self.kernel_options(xp, m, dtype)}


def check_reduction(reduction: str, *, single_gradient: bool = False) -> None:
    """Raises ValueError unless it is "sum", "mean" or, where rows may have a gradient each, "none"."""
    if reduction not in get_args(Reduction):
        raise unknown_name("reduction", reduction, get_args(Reduction))
    if single_gradient and reduction == "none":
        raise ValueError('reduction="none" has no single gradient of the parameters; expected "sum" or "mean"')


def check_chunk_rows(chunk_rows: Any) -> None:
    """Raises TypeError unless it is an integer or None, ValueError where it is below 1."""
    if chunk_rows is not None and not (is_int(chunk_rows) and chunk_rows >= 1):
        error = ValueError if is_int(chunk_rows) else TypeError
        raise error(f"chunk_rows={chunk_rows!r}; expected a whole number of rows ≥ 1, or None")


def weights(name: str, values: Any, count: int, of: str, xp: Any, dtype: Any) -> Array:
    """`values` as a (count,) array of weights; on the host they are checked to be finite and not negative."""
    if xp is np:
        check_on_host(name, values)
    array = xp.asarray(values, dtype=dtype)
    if array.shape != (count,):
        raise ValueError(f"{name} has shape {array.shape}; expected ({count},), one weight for each of the {of}")
    if isinstance(array, np.ndarray) and not (np.isfinite(array).all() and (array >= 0).all()):
        raise ValueError(f"{name} has negative, NaN or infinite values; expected finite numbers ≥ 0")
    return xp.ascontiguousarray(array)


def targets(y: Any, n: int, m: int, ignore_index: int | None, xp: Any, dtype: Any, name: str = "y") -> Array:
    """`y` in the form that the kernels read: (n,) int32 or int64, or (n, m) of the compute type `dtype`.

    Shapes and types are checked everywhere, values only on the host (see `check_values` for the device).
    """
    if not hasattr(y, "dtype"):
        y = np.asarray(y)
    if xp is np:
        check_on_host(name, y)
    if y.ndim == 1:
        return class_indices(name, y, n, m, ignore_index, xp)
    if y.ndim != 2:
        raise ValueError(f"{name} has {y.ndim} dimensions; expected (n,) class indices or (n, m) targets")
    if y.dtype.kind not in "iufb" and y.dtype != dtype:
        raise TypeError(f"{name} is 2-D of {y.dtype}; expected probabilities or 0/1 flags, one column a class")
    if y.shape != (n, m):
        raise ValueError(
            f"{name} has shape {y.shape}; expected ({n}, {m}), one target a class, or ({n},) class indices"
        )
    if ignore_index is not None:
        raise ValueError("ignore_index goes with class indices; give rows of a 2-D y a sample_weight of 0 instead")
    y = xp.ascontiguousarray(xp.asarray(y, dtype=dtype))
    if isinstance(y, np.ndarray):
        check_values(name, y, m)
    return y


def class_indices(name: str, y: Any, n: int, m: int, ignore_index: int | None, xp: Any) -> Array:
    """`y` as (n,) int32 or int64, contiguous; checked as `targets` does."""
    if not hasattr(y, "dtype"):
        y = np.asarray(y)
    if xp is np:
        check_on_host(name, y)
    if y.dtype.kind not in "iu":
        hint = f"use {name}.astype(int) for class indices, or targets of shape (n, m)"
        raise TypeError(f"{name} is of {y.dtype}; class indices must be integers: {hint}")
    if y.shape != (n,):
        raise ValueError(f"{name} has shape {y.shape}; expected ({n},), one class for each row")
    y = xp.ascontiguousarray(xp.asarray(y, dtype=y.dtype if y.dtype in (np.int32, np.int64) else np.int64))
    if isinstance(y, np.ndarray):
        check_values(name, y, m, ignore_index)
    return y


def check_values(name: str, y: Array, m: int, ignore_index: int | None = None) -> None:
    """Raises ValueError for indices outside 0 … m-1 or targets outside [0, 1]. On a GPU this waits for one flag."""
    if y.size == 0:
        return
    if y.ndim == 1:
        wrong = (y < 0) | (y >= m)
        if ignore_index is not None:
            wrong &= y != ignore_index
        expected = f"0 to {m - 1}, for {m} classes"
    else:
        wrong = ~((y >= 0) & (y <= 1))
        expected = "targets from 0 to 1"
    if not bool(wrong.any()):
        return
    places = [tuple(int(i) for i in place) for place in zip(*(a[:3] for a in wrong.nonzero()), strict=True)]
    found = ", ".join(f"{name}[{', '.join(map(str, place))}] = {y[place].item()}" for place in places)
    raise ValueError(f"{name} is out of range at {int(wrong.sum())} places, the first {found}; expected {expected}")


def _row_scale(
    y: Array, sample_weight: Array | None, ignore_index: int | None, reduction: str, xp: Any, dtype: Any
) -> tuple[Array | None, float]:
    """The factor of each row's cost as (row_scale, scale): its weight, over the sum of the weights for a mean.

    A mean over rows whose weights are all 0 is 0, so is its gradient.
    """
    n = len(y)
    if reduction != "mean":
        return sample_weight, 1.0
    if sample_weight is None and ignore_index is None:
        return None, 1.0 / max(n, 1)
    weight = xp.ones(n, dtype) if sample_weight is None else sample_weight
    if ignore_index is not None:
        weight = weight * (y != ignore_index)
    total = weight.sum()
    return weight / xp.where(total > 0, total, 1).astype(dtype), 1.0
