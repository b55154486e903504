"""Data sets for training and testing, from files of any format."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpu_nn.data.formats import file_format
from gpu_nn.data.labels import encode_labels, labels_from_array
from gpu_nn.data.memory import available_bytes
from gpu_nn.data.row_readers import open_row_reader
from gpu_nn.data.scaling import InputScaler
from gpu_nn.data.sources import read_labelled_splits
from gpu_nn.data.stream import StreamDataset, stream
from gpu_nn.data.table import Features
from gpu_nn.errors import DataError
from gpu_nn.validation import Interval, check_int, check_number

# The default share of rows in the test set.
TEST_FRACTION = 0.2

# A share that leaves rows on both sides.
_FRACTION = Interval(0, 1, above=True, below=True)

# A data set that takes a larger share of the free memory is streamed.
_MAX_MEMORY_SHARE = 0.5

# The memory that data take, measured: times their own bytes, plus bytes per input value, plus bytes per row. A training
# copies the data to split them, then holds them on the device as read and standardised.
_TRAINING_BYTES, _READING_BYTES = (1, 8, 48), (1, 1, 32)


@dataclass
class Dataset:
    """x: (n, inputs).  y: (n,) class indices.  x_test, y_test: the test set.  classes: the label of each index.
    target: the name of the target column of a table.  names: of the inputs, None where the source has none or two are
    equal.
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: np.ndarray
    target: str | None = None
    names: list[str] | None = None


def read(
    source: str | None,
    test_fraction: float | None = None,
    test_last: int | None = None,
    seed: int = 0,
    *,
    target: str | int | None = None,
) -> Dataset:
    """The data set in a file or an IDX folder; scikit-learn's digits for None. source, target: as in `sources`.

    The test set is the source's own (x_test, y_test; t10k beside train). Else it is the last `test_last` rows, or a
    stratified random `test_fraction` (0.2 where both are None).

    Raises DataError for data that cannot be used, ValueError for test_fraction or test_last where the source has its
    own test set, for both of them, and for a fraction that is not between 0 and 1.
    """
    _check_test_split(test_fraction, test_last)
    name = "digits" if source is None else source
    data, *test = read_labelled_splits(source, target)
    x, classes, y = data.x, data.labels.classes, data.labels.codes
    if len(classes) < 2:
        raise DataError(f"{name} has 1 class, {classes[0]}; a classifier needs at least 2")
    if not test:
        fraction = TEST_FRACTION if test_fraction is None else test_fraction
        return Dataset(*split(name, x, y, fraction, test_last, seed), classes, data.target, data.names)
    for argument, value in (("test_fraction", test_fraction), ("test_last", test_last)):
        if value is not None:
            raise ValueError(f"{argument}={value}, but {name} has a test part of its own: leave {argument} out")
    x_test = test[0].x
    if x_test.shape[1] != x.shape[1]:
        raise DataError(f"{name}: test rows have {x_test.shape[1]} columns, training rows {x.shape[1]}")
    return Dataset(x, y, x_test, encode_labels(name, test[0].labels, classes), classes, data.target)


def _check_test_split(test_fraction: float | None, test_last: int | None) -> None:
    if test_fraction is not None and test_last is not None:
        raise ValueError(f"test_fraction={test_fraction} and test_last={test_last}; leave one of them out")
    if test_fraction is not None:
        check_number("test_fraction", test_fraction, _FRACTION)
    if test_last is not None:
        check_int("test_last", test_last, 1)


def split(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    fraction: float,
    test_last: int | None,
    seed: int,
    argument: str = "test_fraction",
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, y, x_test, y_test. argument: the name of `fraction`, for errors. Raises DataError for a set without rows."""
    if test_last is not None:
        if not 0 < test_last < len(x):
            raise DataError(f"{name} has {len(x)} rows; its test part cannot be the last {test_last}: choose fewer")
        return x[:-test_last], y[:-test_last], x[-test_last:], y[-test_last:]
    n_test = math.ceil(fraction * len(x))
    if n_test >= len(x):
        hint = "choose a smaller one" if len(x) > 1 else "add rows"
        raise DataError(f"{name} has {len(x)} rows, of which {argument}={fraction} leaves none to train on: {hint}")
    from sklearn.model_selection import train_test_split

    counts = np.bincount(y)
    smallest = min(round(len(x) * fraction), len(x) - n_test)
    stratify = y if counts.min() >= 2 and smallest >= len(counts) else None
    x, x_test, y, y_test = train_test_split(x, y, test_size=fraction, random_state=seed, stratify=stratify)
    return x, y, x_test, y_test


@dataclass
class StreamSplits:
    """training, validation, test: rows of one source; validation is optional.  classes, target, names: as in `Dataset`.
    shift, scale: of a Standardize layer, computed from the training rows.
    """

    training: StreamDataset
    validation: StreamDataset | None
    test: StreamDataset
    classes: np.ndarray
    target: str | None
    names: list[str] | None
    shift: np.ndarray
    scale: np.ndarray


def read_streams(
    source: str,
    test_fraction: float | None = None,
    test_last: int | None = None,
    seed: int = 0,
    *,
    target: str | int | None = None,
    validation_fraction: float | None = None,
    **sizes: Any,
) -> StreamSplits:
    """The data set in an npy or Parquet file, whose rows are read as they are needed. sizes: as for `stream`.

    The test set is the last `test_last` rows, or a random `test_fraction` (0.2 where both are None) of each block of
    rows; the validation set is drawn in the same way from the rest. One pass over all rows checks them and computes the
    classes, and the shift and scale of the training rows; text labels of a Parquet file take a pass over their column
    before.

    Raises DataError for data that cannot be used, ValueError for both test_fraction and test_last, and for fractions
    that are not between 0 and 1.
    """
    _check_test_split(test_fraction, test_last)
    if validation_fraction is not None:
        check_number("validation_fraction", validation_fraction, _FRACTION)
    rows = stream(source, target, **sizes)
    if rows.targets:
        raise DataError(f"{source}: y has rows of {rows.targets}; expected one label for each row")
    training, test = rows.split("test", TEST_FRACTION if test_fraction is None else test_fraction, test_last, seed)
    validation = None
    if validation_fraction is not None:
        training, validation = training.split("validation", validation_fraction, None, seed)
    scaler, found, first = InputScaler(), list[np.ndarray](), 0
    # Block by block: the moments take several times the memory of their rows.
    for x, y in replace(rows, window_rows=rows.block_rows).windows(rows.reader.dtype):
        found = [np.unique(np.concatenate([*found, labels_from_array(f"{source}: y", y, first).classes]))]
        for start, stop in training.ranges_within(first, first + len(x)):
            scaler.partial_fit(x[start - first : stop - first])
        first += len(x)
    classes = found[0]
    if len(classes) < 2:
        raise DataError(f"{source} has 1 class, {classes[0]}; a classifier needs at least 2")
    if validation is not None:
        validation = replace(validation, classes=classes)
    splits = replace(training, classes=classes), validation, replace(test, classes=classes)
    return StreamSplits(*splits, classes, rows.reader.target, rows.reader.names, *scaler.shift_and_scale())


def is_large(
    source: str | None,
    target: str | int | None = None,
    n_inputs: int | None = None,
    features: Features | None = None,
    *,
    to_train: bool = False,
) -> bool:
    """Whether the source can be streamed and takes more than half of the free memory.

    n_inputs, features: as for `open_row_reader`.  to_train: for training, not only for evaluation or prediction.
    """
    if source is None or file_format(source) not in ("npy", "Parquet"):
        return False
    available, rows = available_bytes(), open_row_reader(source, target, n_inputs, features)
    factor, per_input, per_row = _TRAINING_BYTES if to_train else _READING_BYTES
    n_bytes = rows.shape[0] * (rows.shape[1] * (factor * rows.dtype.itemsize + per_input) + per_row)
    return available is not None and n_bytes > _MAX_MEMORY_SHARE * available
