"""Labels and probabilities as they come from a user, a network or an estimator, checked and on the host."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_nn.device import device_of

# Sums of m probabilities in float32, or of ones that were rounded for a file, are this near to 1.
_SUM_TOLERANCE = 1e-3


def on_host(array: Any) -> np.ndarray:
    """A NumPy array of what may live on a GPU."""
    device = device_of(array)
    return np.asarray(array) if device is None else device.to_host(array)


def indices(name: str, labels: Any, classes: Sequence[Any]) -> np.ndarray:
    """Labels, (n,), as indices into `classes`: they are members of it or, where it holds names, may be the indices.

    Raises ValueError, with the argument's name, for another shape, no rows, or a label that is no class.
    """
    labels = on_host(labels)
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f"{name} has shape {labels.shape}; expected (n,), a label for each of at least 1 row")
    known = np.asarray(classes)
    m = len(known)
    if labels.dtype.kind in "iu" and known.dtype.kind not in "iuf":
        wrong = (labels < 0) | (labels >= m)
        found, expected = labels.astype(np.int64), f"an index from 0 to {m - 1}"
    else:
        index = {value: i for i, value in enumerate(known.tolist())}
        found = np.array([index.get(value, -1) for value in labels.tolist()], np.int64)
        wrong, expected = found < 0, "one of the classes"
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(f"{name}[{at}] is {labels[at]!r}; expected {expected}")
    return found


def classes_of(classes: Sequence[Any] | None, m: int) -> Sequence[Any]:
    """`classes`, or their numbers. Raises ValueError when there are not m of them."""
    if classes is None:
        return range(m)
    if len(classes) != m:
        raise ValueError(f"classes has {len(classes)} entries; probabilities has {m} columns, one for each class")
    return classes


def distributions(probabilities: Any, first: int = 0) -> np.ndarray:
    """Probabilities (n, classes), as float64. first: number of the first row. Raises ValueError for what is none."""
    p = on_host(probabilities)
    if p.ndim != 2 or p.shape[1] < 2 or not len(p):
        raise ValueError(f"probabilities has shape {p.shape}; expected (n, classes), at least 1 row and 2 classes")
    p = p.astype(np.float64)
    with np.errstate(invalid="ignore"):
        good = (p >= 0).all(axis=1) & (np.abs(p.sum(axis=1) - 1) <= _SUM_TOLERANCE)
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(
            f"probabilities[{first + row}] sums to {p[row].sum():g}, with a least value of {p[row].min():g}; expected "
            f"numbers ≥ 0 that sum to 1: pass what predict_proba gives"
        )
    return p


def check_rows(name: str, rows: int, expected: int, of: str) -> None:
    """Raises ValueError unless there are as many rows as `of` has."""
    if rows != expected:
        raise ValueError(f"{name} has {rows} rows, {of} {expected}; expected as many")
