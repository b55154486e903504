"""What data may come from, and its inputs and labels, checked.

A source is named by its path; which reader it takes is told by `kinds`:
    npz             arrays x and y, and x_test and y_test where there is a test part
    npy, an IDX file    x; target names the file of y (npy or IDX), or the column of a two-dimensional x
    CSV, Parquet    a table; target names its column, by name or number (see `table.Target`)
    IDX folder      images and labels as MNIST's, with or without a test part
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpu_nn.data.csv import read_csv
from gpu_nn.data.digits import digits
from gpu_nn.data.formats import file_format
from gpu_nn.data.idx import read_idx, read_idx_folder, read_idx_images
from gpu_nn.data.labels import Labels, labels_from_array
from gpu_nn.data.npy import NpyReader, read_npy
from gpu_nn.data.npz import read_npz
from gpu_nn.data.parquet import read_parquet
from gpu_nn.data.table import Features, Table, Target, unique_names
from gpu_nn.errors import DataError

# Inputs and their scale stay below this, so that float32, which ends at 3e38, has room for what is computed from them.
LARGEST = 1e30


@dataclass(frozen=True)
class Part:
    """x: (n, inputs), finite. labels: of the n rows. target: the name of their column in a table. names: of the inputs,
    None where the source has none that tell them apart."""

    x: np.ndarray
    labels: Labels
    target: str | None = None
    names: list[str] | None = None


def read_labelled_splits(
    source: str | None, target: str | int | None = None, features: Features | None = None
) -> list[Part]:
    """The labelled parts of the source: all of it, or training and test. None: the digits of scikit-learn.

    features: of a model, which a table must have, in any order.

    Raises DataError for what cannot be read, does not fit together, or holds NaN or infinite inputs.
    """
    if source is None:
        if target is not None:
            raise ValueError(f"target={target!r}, but no source that it is in: the digits have labels of their own")
        x, y = digits()
        return [Part(x, labels_from_array("y", y))]
    found = file_format(source)
    if target is not None and found in ("npz", "folder"):
        names = "its labels are y" if found == "npz" else "its labels are in its files"
        raise DataError(f"{source} takes no target: {names}; a target goes with npy, CSV, Parquet and IDX files")
    if found == "folder":
        return _folder_parts(source)
    if found == "npz":
        return _npz_parts(source)
    if found in ("CSV", "Parquet"):
        table = _table(found, source, Target(target, None, features))
        if table.labels is None:
            raise DataError(f"{source} has no target")
        columns = unique_names(table.names) if table.named else None
        return [Part(checked_inputs(source, "", table.x, table.cell), table.labels, table.target, columns)]
    return [_array_part(source, _array(found, source), target)]


def read_labelled(
    source: str | None, target: str | int | None = None, features: Features | None = None
) -> tuple[np.ndarray, Labels]:
    """x and labels: of the test part where the source has one, else of all. features: as for `read_labelled_splits`."""
    part = read_labelled_splits(source, target, features)[-1]
    return part.x, part.labels


def read_inputs(
    source: str, target: str | int | None = None, n_inputs: int | None = None, features: Features | None = None
) -> np.ndarray:
    """The inputs, (n, inputs), for prediction: labels may be there or not.

    Of an npz file that is x; of a folder all its images; of a table, and of a two-dimensional array with a column as
    target, all columns but the target's, if it has one. n_inputs: how many inputs there should be, by which a table
    with a target is told from one without. features: as for `read_labelled_splits`; the target may be there or not.
    """
    found = file_format(source)
    if found == "folder":
        parts = [checked_inputs(source, f"{name} images", x) for name, x in read_idx_images(Path(source)).items()]
        if len({x.shape[1] for x in parts}) > 1:
            raise DataError(f"{source} holds images of several sizes; name one of its files")
        return np.concatenate(parts)
    if found == "npz":
        arrays = read_npz(Path(source))
        if "x" not in arrays:
            raise DataError(f"{source} has no array x; it holds {', '.join(arrays) or 'none of x, y, x_test, y_test'}")
        return checked_inputs(source, "x", arrays["x"])
    wanted = Target(target, -1 if n_inputs is None else n_inputs, features)
    if found in ("CSV", "Parquet"):
        table = _table(found, source, wanted)
        return checked_inputs(source, "", table.x, table.cell)
    x = _array(found, source)
    column = target_column(source, x, target)
    if column is not None and x.shape[1] != n_inputs:
        x = np.delete(x, column, axis=1)
    return checked_inputs(source, "its array", x)


def is_label_file(source: str | None, target: str | int) -> bool:
    """Whether the target is the file of the labels and not a column."""
    return os.path.isfile(str(target)) and (source is None or file_format(source) not in ("CSV", "Parquet"))


def target_column(source: str, x: np.ndarray | NpyReader, target: str | int | None) -> int | None:
    """The column of `x` that the target names by number; None where it names a file or nothing."""
    if target is None:
        return None
    try:
        column = int(target)
    except ValueError:
        return None
    if x.ndim != 2 or not -x.shape[1] <= column < x.shape[1]:
        raise DataError(f"{source} has shape {x.shape}; there is no column {column}, the target")
    return column % x.shape[1]


def array_target(source: str, target: str | int | None) -> np.ndarray:
    """The array in the file that the target of an array names."""
    if target is None:
        hint = "name the file of the labels (y.npy), or the number of the column that they are, as target"
        raise DataError(f"{source} holds one array, without labels: {hint}")
    if not os.path.exists(str(target)):
        raise DataError(
            f"the target {target} of {source} does not exist; expected a file of labels, or a column number"
        )
    found = file_format(str(target))
    if found not in ("npy", "IDX"):
        raise DataError(f"the target {target} of {source} is a {found} file; expected npy or IDX")
    return _array(found, str(target))


def checked_labels(source: str, target: str | int | None, x: np.ndarray, y: np.ndarray) -> Labels:
    """`y`, from the target's file, as the labels of x."""
    if y.shape != (len(x),):
        raise DataError(f"{target} has shape {y.shape}; expected ({len(x)},), one label for each row of {source}")
    return labels_from_array(str(target), y)


def checked_inputs(
    source: str, what: str, x: np.ndarray, cell: Callable[[int, int], str] | None = None, first: int = 0
) -> np.ndarray:
    """`x` as finite numbers, (n, inputs).

    cell: says where a value stands; without it they are `what`[row, column]. first: the number of the first row.
    """
    if x.ndim < 2 or not x.size:
        raise DataError(f"{source}: {what or 'its table'} has shape {x.shape}; expected rows of inputs, at least one")
    if x.dtype.kind not in "fiub":
        raise DataError(f"{source}: {what} is of {x.dtype}; expected numbers")
    x = x.reshape(len(x), -1)
    if x.dtype.kind == "f":
        most = min(LARGEST, float(np.finfo(x.dtype).max))
        # The least and the largest of rows with a NaN are NaN. To look for it takes memory, to ask for them does not.
        if not (x.min() >= -most and x.max() <= most):
            row, column = map(int, np.argwhere(~(np.abs(x) <= most))[0])
            at = f"{what}[{first + row}, {column}]" if cell is None else cell(row, column)
            expected = f"finite numbers up to {LARGEST:g} in size: impute, drop or rescale them"
            raise DataError(f"{source}: {at} is {x[row, column]}; expected {expected}")
    return x


def _table(found: str, source: str, target: Target) -> Table:
    return (read_csv if found == "CSV" else read_parquet)(Path(source), target)


def _array(found: str, source: str) -> np.ndarray:
    return read_npy(Path(source)) if found == "npy" else read_idx(Path(source))


def _array_part(source: str, x: np.ndarray, target: str | int | None) -> Part:
    column = target_column(source, x, target)
    if column is None:
        y = array_target(source, target)
        return Part(checked_inputs(source, "its array", x), checked_labels(source, target, x, y))
    labels = labels_from_array(f"{source}: column {column}", x[:, column])
    return Part(checked_inputs(source, "its array", np.delete(x, column, axis=1)), labels)


def _folder_parts(source: str) -> list[Part]:
    parts = {
        name: Part(checked_inputs(source, f"{name} images", x), labels_from_array(f"{source}: {name} labels", y))
        for name, (x, y) in read_idx_folder(Path(source)).items()
    }
    if len(parts) == 1:
        return list(parts.values())
    if parts.keys() != {"train", "t10k"}:
        raise DataError(f"{source} holds the sets {', '.join(parts)}; expected one, or train and t10k")
    return [parts["train"], parts["t10k"]]


def _npz_parts(source: str) -> list[Part]:
    arrays = read_npz(Path(source))
    parts = []
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
        parts.append(Part(x, labels_from_array(f"{source}: y{suffix}", y)))
    return parts
