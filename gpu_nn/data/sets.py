"""A data set for training and testing, whatever file it came from."""

from dataclasses import dataclass

import numpy as np

from gpu_nn.data.labels import encoded
from gpu_nn.data.sources import labelled_parts
from gpu_nn.errors import DataError


@dataclass
class DataSet:
    """x: (n, inputs), y: (n,) class indices, and the same for the test part; classes: what index i stands for.

    target: the name of the column that y was, where the source is a table.
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: np.ndarray
    target: str | None = None


def read(
    source: str | None,
    test_fraction: float = 0.2,
    test_last: int | None = None,
    seed: int = 0,
    *,
    target: str | int | None = None,
) -> DataSet:
    """The data set in a file or an IDX folder; scikit-learn's digits for None. source, target: as in `sources`.

    A test part that the source names (x_test, y_test; t10k beside train) is taken. Else the last `test_last` rows are
    the test part, or, when that is None, a random `test_fraction` with the classes in equal shares.

    Raises DataError for data that cannot be used, ValueError for test_last where the source has its own test part.
    """
    name = "digits" if source is None else source
    parts = labelled_parts(source, target)
    x, labels, column = parts[0].x, parts[0].labels, parts[0].target
    classes, y = labels.classes, labels.codes
    if len(classes) < 2:
        raise DataError(f"{name} has 1 class, {classes[0]}; a classifier needs at least 2")
    if len(parts) == 1:
        return DataSet(*split(name, x, y, test_fraction, test_last, seed), classes, column)
    if test_last is not None:
        raise ValueError(f"test_last={test_last}, but {name} has a test part of its own: leave test_last out")
    x_test = parts[1].x
    if x_test.shape[1] != x.shape[1]:
        raise DataError(f"{name}: test rows have {x_test.shape[1]} columns, training rows {x.shape[1]}")
    return DataSet(x, y, x_test, encoded(name, parts[1].labels, classes), classes, column)


def split(
    name: str, x: np.ndarray, y: np.ndarray, test_fraction: float, test_last: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, y, x_test, y_test."""
    if test_last is not None:
        if not 0 < test_last < len(x):
            raise DataError(f"{name} has {len(x)} rows; its test part cannot be the last {test_last}: choose fewer")
        return x[:-test_last], y[:-test_last], x[-test_last:], y[-test_last:]
    from sklearn.model_selection import train_test_split

    counts = np.bincount(y)
    size = round(len(x) * test_fraction)
    stratify = y if counts.min() >= 2 and size >= len(counts) and len(x) - size >= len(counts) else None
    try:
        x, x_test, y, y_test = train_test_split(x, y, test_size=test_fraction, random_state=seed, stratify=stratify)
    except ValueError as error:
        raise DataError(f"{name} with {len(x)} rows cannot be split: {error}") from None
    return x, y, x_test, y_test
