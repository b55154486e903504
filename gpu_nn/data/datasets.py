"""A data set for training and testing, whatever file it came from."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpu_nn.data.formats import file_format
from gpu_nn.data.labels import encode_labels, labels_from_array
from gpu_nn.data.memory import available_bytes
from gpu_nn.data.row_readers import open_row_reader
from gpu_nn.data.scaling import Scaling
from gpu_nn.data.sources import read_labelled_splits
from gpu_nn.data.stream import StreamDataset, stream
from gpu_nn.data.table import Features
from gpu_nn.errors import DataError
from gpu_nn.validation import Interval, check_int, check_number

# The share of the rows that are the test part where nothing else is said.
TEST_FRACTION = 0.2

# A share that may leave rows on either side.
_PART = Interval(0, 1, above=True, below=True)

# A data set that would take a larger share of the free memory is streamed.
_SHARE = 0.5

# What data in memory take at most, measured: so many times their own bytes, and so many bytes more for each input and
# for each row. A training parts them, which copies them, then has them on the device as they came and standardised.
_TO_TRAIN, _TO_READ = (1, 8, 48), (1, 1, 32)


@dataclass
class Dataset:
    """x: (n, inputs), y: (n,) class indices, and the same for the test part; classes: what index i stands for.

    target: the name of the column that y was, where the source is a table. names: of the inputs, None where the source
    has none that tell them apart.
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

    A test part that the source names (x_test, y_test; t10k beside train) is taken. Else the last `test_last` rows are
    the test part, or a random `test_fraction` (0.2 where both are None) with the classes in equal shares.

    Raises DataError for data that cannot be used, ValueError for test_fraction or test_last where the source has its
    own test part, for both of them, and for a share that is not between 0 and 1.
    """
    _check_test_part(test_fraction, test_last)
    name = "digits" if source is None else source
    parts = read_labelled_splits(source, target)
    x, labels, column = parts[0].x, parts[0].labels, parts[0].target
    classes, y = labels.classes, labels.codes
    if len(classes) < 2:
        raise DataError(f"{name} has 1 class, {classes[0]}; a classifier needs at least 2")
    if len(parts) == 1:
        fraction = TEST_FRACTION if test_fraction is None else test_fraction
        return Dataset(*split(name, x, y, fraction, test_last, seed), classes, column, parts[0].names)
    for argument, value in (("test_fraction", test_fraction), ("test_last", test_last)):
        if value is not None:
            raise ValueError(f"{argument}={value}, but {name} has a test part of its own: leave {argument} out")
    x_test = parts[1].x
    if x_test.shape[1] != x.shape[1]:
        raise DataError(f"{name}: test rows have {x_test.shape[1]} columns, training rows {x.shape[1]}")
    return Dataset(x, y, x_test, encode_labels(name, parts[1].labels, classes), classes, column)


def _check_test_part(test_fraction: float | None, test_last: int | None) -> None:
    if test_fraction is not None and test_last is not None:
        raise ValueError(f"test_fraction={test_fraction} and test_last={test_last}; leave one of them out")
    if test_fraction is not None:
        check_number("test_fraction", test_fraction, _PART)
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
    """x, y, x_test, y_test. argument: what errors call the fraction. Raises DataError for a part without rows."""
    if test_last is not None:
        if not 0 < test_last < len(x):
            raise DataError(f"{name} has {len(x)} rows; its test part cannot be the last {test_last}: choose fewer")
        return x[:-test_last], y[:-test_last], x[-test_last:], y[-test_last:]
    held_out = math.ceil(fraction * len(x))
    if held_out >= len(x):
        hint = "choose a smaller one" if len(x) > 1 else "add rows"
        raise DataError(f"{name} has {len(x)} rows, of which {argument}={fraction} leaves none to train on: {hint}")
    from sklearn.model_selection import train_test_split

    counts = np.bincount(y)
    size = round(len(x) * fraction)
    stratify = y if counts.min() >= 2 and size >= len(counts) and len(x) - held_out >= len(counts) else None
    x, x_test, y, y_test = train_test_split(x, y, test_size=fraction, random_state=seed, stratify=stratify)
    return x, y, x_test, y_test


@dataclass
class StreamSplits:
    """training, validation, test: parts of one source; validation is None where none was asked for. classes, target,
    names: as in `Dataset`. shift, scale: of a Standardize layer, from the training part."""

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

    The test part is the last `test_last` rows, or a `test_fraction` (0.2 where both are None) of each block of rows,
    drawn by the seed; then the validation part is drawn alike from the rest. One pass over all rows checks them, and
    finds the classes, and the shift and scale of the training part; of a Parquet file whose labels are text their
    column is read before.

    Raises DataError for data that cannot be used, ValueError for both test_fraction and test_last, and for shares that
    are not between 0 and 1.
    """
    _check_test_part(test_fraction, test_last)
    if validation_fraction is not None:
        check_number("validation_fraction", validation_fraction, _PART)
    rows = stream(source, target, **sizes)
    if rows.targets:
        raise DataError(f"{source}: y has rows of {rows.targets}; expected one label for each row")
    training, test = rows.split("test", TEST_FRACTION if test_fraction is None else test_fraction, test_last, seed)
    validation = None
    if validation_fraction is not None:
        training, validation = training.split("validation", validation_fraction, None, seed)
    scaling, found, first = Scaling(), list[np.ndarray](), 0
    # Moments take several times a window in float64: these are small.
    for x, y in replace(rows, window_rows=rows.block_rows).windows(rows.reader.dtype):
        found = [np.unique(np.concatenate([*found, labels_from_array(f"{source}: y", y, first).classes]))]
        for start, stop in training.ranges_within(first, first + len(x)):
            scaling.add(x[start - first : stop - first])
        first += len(x)
    if len(found[0]) < 2:
        raise DataError(f"{source} has 1 class, {found[0][0]}; a classifier needs at least 2")
    if validation is not None:
        validation = replace(validation, classes=found[0])
    parts = replace(training, classes=found[0]), validation, replace(test, classes=found[0])
    return StreamSplits(*parts, found[0], rows.reader.target, rows.reader.names, *scaling.result())


def is_large(
    source: str | None,
    target: str | int | None = None,
    n_inputs: int | None = None,
    features: Features | None = None,
    *,
    to_train: bool = False,
) -> bool:
    """Whether the source can be streamed and would take more than half of the free memory.

    n_inputs, features: as for `open_row_reader`. to_train: on its rows, and not only to evaluate or predict them.
    """
    if source is None or file_format(source) not in ("npy", "Parquet"):
        return False
    available, rows = available_bytes(), open_row_reader(source, target, n_inputs, features)
    times, of_input, of_row = _TO_TRAIN if to_train else _TO_READ
    wanted = rows.shape[0] * (rows.shape[1] * (times * rows.dtype.itemsize + of_input) + of_row)
    return available is not None and wanted > _SHARE * available
