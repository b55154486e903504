"""A data set for training and testing, whatever file it came from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpu_nn.data.digits import digits
from gpu_nn.data.idx import read_idx, read_idx_folder, read_idx_images
from gpu_nn.data.npz import read_npz
from gpu_nn.errors import DataError

# Inputs and their scale stay below this, so that float32, which ends at 3e38, has room for what is computed from them.
_LARGEST = 1e30

# Up to here every whole number is a float64 of its own.
_LARGEST_WHOLE = 2**53


@dataclass
class DataSet:
    """x: (n, inputs), y: (n,) class indices, and the same for the test part; classes: what index i stands for."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: np.ndarray


def read(source: str | None, test_fraction: float = 0.2, test_last: int | None = None, seed: int = 0) -> DataSet:
    """The data set in an npz file or an IDX folder; scikit-learn's digits for None.

    A test part that the source names (x_test, y_test; t10k beside train) is taken. Else the last `test_last` rows are
    the test part, or, when that is None, a random `test_fraction` with the classes in equal shares.
    """
    name = "digits" if source is None else source
    parts = _parts(source)
    x, y = parts[0]
    classes, y = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"{name} has 1 class, {classes[0]}; a classifier needs at least 2")
    if len(parts) == 1:
        return DataSet(*split(name, x, y, test_fraction, test_last, seed), classes)
    x_test, y_test = parts[1]
    if x_test.shape[1] != x.shape[1]:
        raise DataError(f"{name}: test rows have {x_test.shape[1]} columns, training rows {x.shape[1]}")
    return DataSet(x, y, x_test, encoded(name, y_test, classes), classes)


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


def read_inputs(source: str) -> np.ndarray:
    """x of an npz file, or the images of an IDX file or folder, all of them: for prediction, without labels."""
    path = Path(source)
    if path.is_dir():
        parts = [_inputs(source, f"{name} images", images) for name, images in read_idx_images(path).items()]
        if len({x.shape[1] for x in parts}) > 1:
            raise DataError(f"{source} holds images of several sizes; name one of its files")
        return np.concatenate(parts)
    if path.suffix == ".npz":
        arrays = read_npz(path)
        if "x" not in arrays:
            raise DataError(f"{source} has no array x; it holds {', '.join(arrays) or 'none of x, y, x_test, y_test'}")
        return _inputs(source, "x", arrays["x"])
    return _inputs(source, "its array", read_idx(path))


def labelled(source: str | None) -> tuple[np.ndarray, np.ndarray]:
    """x and labels as they stand: of the test part where the source has one, else of all."""
    return _parts(source)[-1]


def encoded(name: str, labels: np.ndarray, classes: Any) -> np.ndarray:
    """Labels as indices into `classes`. Raises DataError for one that is not there."""
    index = {value: i for i, value in enumerate(np.asarray(classes).tolist())}
    found = [index.get(value, -1) for value in labels.tolist()]
    if -1 in found:
        at = found.index(-1)
        known = ", ".join(map(str, list(index)[:10])) + (" …" if len(index) > 10 else "")
        raise DataError(f"{name}: label {labels[at]} at row {at} is not a class of the model: {known}")
    return np.array(found, np.int64)


def scaling(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(shift, scale) that bring inputs to the same size, for a Standardize layer.

    Whole numbers that are not negative, such as pixels and counts, are divided by the largest one. Other numbers are
    standardised column by column.
    """
    if x.dtype.kind in "ub" or (x.dtype.kind == "i" and x.min() >= 0):
        return np.zeros(x.shape[1]), np.full(x.shape[1], 1 / max(float(x.max()), 1.0))
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    return scaler.mean_, np.minimum(1 / scaler.scale_, _LARGEST)


def _parts(source: str | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """The labelled parts of the source: all of it, or training and test."""
    if source is None:
        return [digits()]
    path = Path(source)
    if path.is_dir():
        pairs = {
            name: (_inputs(source, f"{name} images", x), _labels(source, f"{name} labels", y))
            for name, (x, y) in read_idx_folder(path).items()
        }
        if len(pairs) == 1:
            return list(pairs.values())
        if pairs.keys() != {"train", "t10k"}:
            raise DataError(f"{source} holds the sets {', '.join(pairs)}; expected one, or train and t10k")
        return [pairs["train"], pairs["t10k"]]
    if not path.exists():
        raise DataError(f"{source} does not exist")
    if path.suffix != ".npz":
        raise DataError(f"{source} is neither an npz file nor a folder with IDX files")
    arrays = read_npz(path)
    parts = []
    for suffix in ("", "_test"):
        x, y = arrays.get(f"x{suffix}"), arrays.get(f"y{suffix}")
        if suffix and x is None and y is None:
            break
        if x is None or y is None:
            found = ", ".join(sorted(arrays)) or "neither"
            raise DataError(f"{source} must hold the arrays x{suffix} and y{suffix}; it holds {found}")
        x = _inputs(source, f"x{suffix}", x)
        if y.shape != (len(x),):
            expected = f"({len(x)},), one label for each row of x{suffix}"
            raise DataError(f"{source}: y{suffix} has shape {y.shape}; expected {expected}")
        parts.append((x, _labels(source, f"y{suffix}", y)))
    return parts


def _inputs(source: str, what: str, x: np.ndarray) -> np.ndarray:
    """`x` as finite numbers, (n, inputs)."""
    if x.ndim < 2 or not x.size:
        raise DataError(f"{source}: {what} has shape {x.shape}; expected rows of inputs, at least one")
    if x.dtype.kind not in "fiub":
        raise DataError(f"{source}: {what} is of {x.dtype}; expected numbers")
    x = x.reshape(len(x), -1)
    if x.dtype.kind == "f":
        good = np.abs(x) <= _up_to(_LARGEST, x.dtype)
        if not good.all():
            row, column = np.argwhere(~good)[0]
            expected = f"finite numbers up to {_LARGEST:g} in size: impute, drop or rescale them"
            raise DataError(f"{source}: {what}[{row}, {column}] is {x[row, column]}; expected {expected}")
    return x


def _labels(source: str, what: str, y: np.ndarray) -> np.ndarray:
    """`y` as whole numbers or text."""
    if y.dtype.kind == "f":
        whole = (y == np.floor(y)) & (np.abs(y) <= _up_to(_LARGEST_WHOLE, y.dtype))
        if not whole.all():
            at = int(np.argmin(whole))
            raise DataError(f"{source}: {what}[{at}] is {y[at]}, not a class; expected whole numbers or names")
        return y.astype(np.int64)
    if y.dtype.kind == "S":
        try:
            return np.char.decode(y, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{source}: {what} holds bytes that are not UTF-8 text: {error}") from None
    if y.dtype.kind not in "iubU":
        raise DataError(f"{source}: {what} is of {y.dtype}; expected whole numbers or names")
    return y


def _up_to(bound: float, dtype: np.dtype) -> float:
    """`bound`, or what comes before infinity in a type that does not reach it."""
    return min(bound, float(np.finfo(dtype).max))
