"""Validation of labels and probabilities, and their copy to the host."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_nn.device import device_of

# Tolerance for the sum of a row of probabilities in float32, or rounded for a file.
_SUM_TOLERANCE = 1e-3


def to_host(array: Any) -> np.ndarray:
    """`array`, which may be on a GPU, as a NumPy array."""
    device = device_of(array)
    return np.asarray(array) if device is None else device.to_host(array)


def class_indices(name: str, labels: Any, classes: Sequence[Any]) -> np.ndarray:
    """Labels, (n,), as indices into `classes`. Labels are classes or, where the classes are names, may be indices.

    Raises ValueError with the argument's name for another shape, no rows, or a label that is not a class.
    """
    labels = to_host(labels)
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
        i = int(np.argmax(wrong))
        raise ValueError(f"{name}[{i}] is {labels[i]!r}; expected {expected}")
    return found


def check_classes(classes: Sequence[Any] | None, m: int) -> Sequence[Any]:
    """`classes`, by default 0 … m-1. Raises ValueError where there are not m of them."""
    if classes is None:
        return range(m)
    if len(classes) != m:
        raise ValueError(f"classes has {len(classes)} entries; probabilities has {m} columns, one for each class")
    return classes


def check_probabilities(probabilities: Any, first: int = 0) -> np.ndarray:
    """Probabilities (n, classes) as float64. first: number of the first row. Raises ValueError for any other array."""
    p = to_host(probabilities)
    if p.ndim != 2 or p.shape[1] < 2 or not len(p):
        raise ValueError(f"probabilities has shape {p.shape}; expected (n, classes), at least 1 row and 2 classes")
    p = p.astype(np.float64)
    with np.errstate(invalid="ignore"):
        valid = (p >= 0).all(axis=1) & (np.abs(p.sum(axis=1) - 1) <= _SUM_TOLERANCE)
    if not valid.all():
        row = int(np.argmin(valid))
        raise ValueError(
            f"probabilities[{first + row}] sums to {p[row].sum():g}, with a least value of {p[row].min():g}; expected "
            f"numbers ≥ 0 that sum to 1: pass the result of predict_proba"
        )
    return p


def check_row_count(name: str, rows: int, expected: int, of: str) -> None:
    """Raises ValueError unless `name` has as many rows as `of`."""
    if rows != expected:
        raise ValueError(f"{name} has {rows} rows, {of} {expected}; expected as many")
