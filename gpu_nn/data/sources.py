"""Inputs and labels of a data source, checked.

A source is a path; `formats` finds its format:
    npz             arrays x and y, and x_test and y_test where there is a test set
    npy, IDX file   x; target names the file of y (npy or IDX), or a column of a two-dimensional x
    CSV, Parquet    a table; target names its column, by name or index (see `table.Target`)
    IDX folder      images and labels as MNIST's, with or without a test set
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpu_nn.data.csv import read_csv
from gpu_nn.data.formats import file_format
from gpu_nn.data.idx import read_idx, read_idx_folder, read_idx_images
from gpu_nn.data.labels import Labels, labels_from_array
from gpu_nn.data.npy import NpyReader, read_npy
from gpu_nn.data.npz import read_npz
from gpu_nn.data.parquet import read_parquet
from gpu_nn.data.table import Features, Table, Target, column_index, unique_names
from gpu_nn.errors import DataError

# The largest magnitude of an input and of its scale: products of them stay below 3e38, the largest float32.
MAX_INPUT = 1e30


@dataclass(frozen=True)
class LabelledData:
    """x: (n, inputs), finite.  labels: of the n rows.  target: the name of the target column of a table.  names: of the
    inputs, None where the source has none or two are equal.
    """

    x: np.ndarray
    labels: Labels
    target: str | None = None
    names: list[str] | None = None


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The handwritten digits that scikit-learn ships, 8×8 pixels of 17 grey levels.

    Returns images (1797, 64) of uint8 and labels (1797,).
    """
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return x.astype(np.uint8), y.astype(np.int64)


def read_labelled_splits(
    source: str | None, target: str | int | None = None, features: Features | None = None
) -> list[LabelledData]:
    """The labelled data of the source: one set, or training and test set. None: the digits of scikit-learn.

    features: of a model, which a table must have, in any order.

    Raises DataError for data that cannot be read, do not fit together, or have NaN or infinite inputs.
    """
    if source is None:
        if target is not None:
            raise ValueError(f"target={target!r}, but no source that it is in: the digits have labels of their own")
        x, y = digits()
        return [LabelledData(x, labels_from_array("y", y))]
    format = file_format(source)
    if target is not None and format in ("npz", "folder"):
        labels = "its labels are y" if format == "npz" else "its labels are in its files"
        raise DataError(f"{source} takes no target: {labels}; a target goes with npy, CSV, Parquet and IDX files")
    if format == "folder":
        return _read_folder(source)
    if format == "npz":
        return _read_npz(source)
    if format in ("CSV", "Parquet"):
        table = _read_table(format, source, Target(target, None, features))
        if table.labels is None:
            raise DataError(f"{source} has no target")
        names = unique_names(table.names) if table.named else None
        return [LabelledData(checked_inputs(source, "", table.x, table.cell), table.labels, table.target, names)]
    return [_read_arrays(source, _read_array(format, source), target)]


def read_labelled(
    source: str | None, target: str | int | None = None, features: Features | None = None
) -> tuple[np.ndarray, Labels]:
    """x and labels of the test set where the source has one, else of all rows; see `read_labelled_splits`."""
    data = read_labelled_splits(source, target, features)[-1]
    return data.x, data.labels


def read_inputs(
    source: str, target: str | int | None = None, n_inputs: int | None = None, features: Features | None = None
) -> np.ndarray:
    """The inputs, (n, inputs), for prediction, where labels are optional.

    Of an npz file that is x; of a folder all its images; of a table, or a two-dimensional array with a column as
    target, all columns but the target's. n_inputs: the number of inputs, which shows whether a table has a target.
    features: as for `read_labelled_splits`.
    """
    format = file_format(source)
    if format == "folder":
        images = [checked_inputs(source, f"{name} images", x) for name, x in read_idx_images(Path(source)).items()]
        if len({x.shape[1] for x in images}) > 1:
            raise DataError(f"{source} holds images of several sizes; name one of its files")
        return np.concatenate(images)
    if format == "npz":
        arrays = read_npz(Path(source))
        if "x" not in arrays:
            raise DataError(f"{source} has no array x; it holds {', '.join(arrays) or 'none of x, y, x_test, y_test'}")
        return checked_inputs(source, "x", arrays["x"])
    if format in ("CSV", "Parquet"):
        table = _read_table(format, source, Target(target, -1 if n_inputs is None else n_inputs, features))
        return checked_inputs(source, "", table.x, table.cell)
    x = _read_array(format, source)
    column = target_column(source, x, target)
    if column is not None and x.shape[1] != n_inputs:
        x = np.delete(x, column, axis=1)
    return checked_inputs(source, "its array", x)


def is_label_file(source: str | None, target: str | int) -> bool:
    """Whether the target is the file of the labels, and not a column."""
    return os.path.isfile(str(target)) and (source is None or file_format(source) not in ("CSV", "Parquet"))


def target_column(source: str, x: np.ndarray | NpyReader, target: str | int | None) -> int | None:
    """The column of `x` whose index the target is; None where the target is a file or None."""
    column = None if target is None else column_index(target)
    if column is None:
        return None
    if x.ndim != 2 or not -x.shape[1] <= column < x.shape[1]:
        raise DataError(f"{source} has shape {x.shape}; there is no column {column}, the target")
    return column % x.shape[1]


def array_target(source: str, target: str | int | None) -> np.ndarray:
    """The array in the file that is the target of an array."""
    if target is None:
        hint = "name the file of the labels (y.npy), or the number of the column that they are, as target"
        raise DataError(f"{source} holds one array, without labels: {hint}")
    if not os.path.exists(str(target)):
        raise DataError(
            f"the target {target} of {source} does not exist; expected a file of labels, or a column number"
        )
    format = file_format(str(target))
    if format not in ("npy", "IDX"):
        raise DataError(f"the target {target} of {source} is a {format} file; expected npy or IDX")
    return _read_array(format, str(target))


def checked_inputs(
    source: str, what: str, x: np.ndarray, cell: Callable[[int, int], str] | None = None, first: int = 0
) -> np.ndarray:
    """`x` as finite numbers, (n, inputs). Raises DataError for other values.

    what: the array's name, for errors.  first: the index of its first row.  cell: (row, column) → where a value is;
    None for "what[row, column]".
    """
    if x.ndim < 2 or not x.size:
        raise DataError(f"{source}: {what or 'its table'} has shape {x.shape}; expected rows of inputs, at least one")
    if x.dtype.kind not in "fiub":
        raise DataError(f"{source}: {what} is of {x.dtype}; expected numbers")
    x = x.reshape(len(x), -1)
    if x.dtype.kind == "f":
        largest = min(MAX_INPUT, float(np.finfo(x.dtype).max))
        # A NaN makes min and max NaN. Unlike a mask of all values, they allocate nothing.
        if not (x.min() >= -largest and x.max() <= largest):
            row, column = map(int, np.argwhere(~(np.abs(x) <= largest))[0])
            at = f"{what}[{first + row}, {column}]" if cell is None else cell(first + row, column)
            expected = f"finite numbers up to {MAX_INPUT:g} in size: impute, drop or rescale them"
            raise DataError(f"{source}: {at} is {x[row, column]}; expected {expected}")
    return x


def _read_table(format: str, source: str, target: Target) -> Table:
    return (read_csv if format == "CSV" else read_parquet)(Path(source), target)


def _read_array(format: str, source: str) -> np.ndarray:
    return read_npy(Path(source)) if format == "npy" else read_idx(Path(source))


def _read_arrays(source: str, x: np.ndarray, target: str | int | None) -> LabelledData:
    column = target_column(source, x, target)
    if column is not None:
        labels = labels_from_array(f"{source}: column {column}", x[:, column])
        return LabelledData(checked_inputs(source, "its array", np.delete(x, column, axis=1)), labels)
    y = array_target(source, target)
    x = checked_inputs(source, "its array", x)
    if y.shape != (len(x),):
        raise DataError(f"{target} has shape {y.shape}; expected ({len(x)},), one label for each row of {source}")
    return LabelledData(x, labels_from_array(str(target), y))


def _read_folder(source: str) -> list[LabelledData]:
    pairs = {}
    for name, (x, y) in read_idx_folder(Path(source)).items():
        x = checked_inputs(source, f"{name} images", x)
        pairs[name] = LabelledData(x, labels_from_array(f"{source}: {name} labels", y))
    if len(pairs) == 1:
        return list(pairs.values())
    if pairs.keys() != {"train", "t10k"}:
        raise DataError(f"{source} holds the sets {', '.join(pairs)}; expected one, or train and t10k")
    return [pairs["train"], pairs["t10k"]]


def _read_npz(source: str) -> list[LabelledData]:
    arrays = read_npz(Path(source))
    splits = []
    for suffix in ("", "_test"):
        x, y = arrays.get(f"x{suffix}"), arrays.get(f"y{suffix}")
        if suffix and x is None and y is None:
            break
        if x is None or y is None:
            found = ", ".join(sorted(arrays)) or "neither"
            raise DataError(f"{source} must hold the arrays x{suffix} and y{suffix}; it holds {found}")
        x = checked_inputs(source, f"x{suffix}", x)
        if y.shape != (len(x),):
            expected = f"({len(x)},), one label for each row of x{suffix}"
            raise DataError(f"{source}: y{suffix} has shape {y.shape}; expected {expected}")
        splits.append(LabelledData(x, labels_from_array(f"{source}: y{suffix}", y)))
    return splits
