"""Readers of rows: of arrays in memory or in npy files, and of the row groups of Parquet files.

A reader loads any range of rows within one of its `groups`. One thread uses it at a time; `reopen` makes one for
another thread.
"""

import math
from pathlib import Path
from typing import Protocol

import numpy as np

from gpu_nn.data.formats import file_format
from gpu_nn.data.memory import available_bytes
from gpu_nn.data.npy import NpyReader
from gpu_nn.data.parquet import ParquetTable, TargetTexts
from gpu_nn.data.sources import array_target, target_column
from gpu_nn.data.table import Features, Target, unique_names
from gpu_nn.errors import DataError

# Files that take a larger share of the free memory do not stay in the page cache from one epoch to the next.
_MAX_CACHED_SHARE = 0.5


class RowReader(Protocol):
    """name: for errors.  shape: (rows, inputs).  dtype: of the inputs.  targets: the shape of a row's target, () for a
    label, (0,) for none.  names: of the inputs, None where there are none or two are equal.  target: the name of the
    target column of a table.
    """

    name: str
    shape: tuple[int, int]
    dtype: np.dtype
    targets: tuple[int, ...]
    names: list[str] | None = None
    target: str | None = None

    def cell(self, row: int, column: int) -> str:
        """Where a value is, for errors."""

    def groups(self, block: int) -> np.ndarray:
        """(g + 1,) row indices from 0 to the number of rows: the bounds of the groups, each of which is read as one.

        block: the rows of a group, for readers that can choose.
        """

    def reopen(self) -> "RowReader":
        """A reader of the same rows for another thread."""

    def load(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """x (rows, inputs) and y of rows start … stop-1 of one group; valid until the next call."""

    def will_need(self, start: int, stop: int) -> None:
        """These rows will be read soon."""
        return

    def release(self, start: int, stop: int) -> None:
        """These rows will not be read soon."""
        return


def open_row_reader(
    source: str | Path,
    target: str | int | np.ndarray | None = None,
    n_inputs: int | None = None,
    features: Features | None = None,
) -> RowReader:
    """The rows of an npy file or of a Parquet file.

    target: the column of the labels; of an npy file also another file, or an array of labels or targets.  n_inputs: for
    prediction, as for `read_inputs`: labels are optional and not read.  features: of a model, which a table must have,
    in any order.

    Raises DataError for other formats and for files that cannot be read.
    """
    name = str(source)
    format = file_format(name)
    if isinstance(target, np.ndarray):
        if format != "npy":
            hint = "name the column of its labels" if format == "Parquet" else "save it as npy"
            raise DataError(f"{name} is {format}; an array of labels goes with an npy file: {hint}")
        return ArrayRowReader(name, NpyReader(Path(name)), target)
    if format == "Parquet":
        return ParquetRowReader(Path(name), Target(target, n_inputs, features))
    if format != "npy":
        raise DataError(f"{name} is {format}; npy and Parquet files can be streamed: save it as one of them")
    x = NpyReader(Path(name))
    column = target_column(name, x, target)
    if n_inputs is not None:
        return ArrayRowReader(name, x, np.empty((*x.shape[:1], 0)), None if x.shape[1:] == (n_inputs,) else column)
    if column is not None:
        return ArrayRowReader(name, x, None, column)
    path = Path(str(target))
    is_npy = path.is_file() and file_format(str(path)) == "npy"
    return ArrayRowReader(name, x, NpyReader(path) if is_npy else array_target(name, target))


class ArrayRowReader(RowReader):
    """The rows of an array x, (n, …) of numbers, and y, (n,) or (n, classes), in memory or in npy files.

    column: of x, that is y and not an input, where y is None.
    """

    def __init__(
        self, name: str, x: np.ndarray | NpyReader, y: np.ndarray | NpyReader | None, column: int | None = None
    ):
        if x.ndim < 2 or not math.prod(x.shape) or x.dtype.kind not in "fiub":
            expected = "rows of numbers, at least one"
            raise DataError(f"{name} has shape {x.shape} of {x.dtype}; expected {expected}")
        if y is not None and (y.shape[:1] != x.shape[:1] or y.ndim > 2):
            raise DataError(f"{name}: y has shape {y.shape}; expected ({len(x)},), one label for each row of x")
        self.name, self.x, self.y, self.column = name, x, y, column
        self.shape = len(x), math.prod(x.shape[1:]) - (column is not None)
        if self.shape[1] == 0:
            raise DataError(f"{name} has 1 column; expected inputs and a target")
        self.dtype, self.targets = x.dtype, () if y is None else y.shape[1:]
        self._files = [array for array in (x, y) if isinstance(array, NpyReader)]
        # Rows are released only where the files do not fit into the page cache: else the next epoch reads them there.
        size = sum(math.prod(file.shape) * file.dtype.itemsize for file in self._files)
        available = available_bytes()
        self._stays_cached = available is None or size <= _MAX_CACHED_SHARE * available

    def cell(self, row: int, column: int) -> str:
        return f"x[{row}, {column}]"

    def groups(self, block: int) -> np.ndarray:
        return np.append(np.arange(0, len(self.x), block), len(self.x))

    def reopen(self) -> "ArrayRowReader":
        if not self._files:
            return self
        x = self.x.reopen() if isinstance(self.x, NpyReader) else self.x
        y = self.y.reopen() if isinstance(self.y, NpyReader) else self.y
        return ArrayRowReader(self.name, x, y, self.column)

    def load(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        x = self.x[start:stop].reshape(stop - start, -1)
        y = x[:, self.column] if self.y is None else self.y[start:stop]
        return x if self.column is None else np.delete(x, self.column, axis=1), y

    def will_need(self, start: int, stop: int) -> None:
        for file in self._files:
            file.will_need(start, stop)

    def release(self, start: int, stop: int) -> None:
        for file in () if self._stays_cached else self._files:
            file.release(start, stop)


class ParquetRowReader(RowReader):
    """The rows of a Parquet file, of which one row group is in memory at a time."""

    def __init__(self, path: Path, target: Target, target_texts: TargetTexts | None = None):
        self._path, self._target = path, target
        self._table = ParquetTable(path, target, target_texts)
        self.name, self.dtype, self.target = str(path), self._table.dtype, self._table.target
        self.names = unique_names(self._table.names)
        self.shape = self._table.n_rows, len(self._table.names)
        self.targets: tuple[int, ...] = () if target.n_inputs is None else (0,)
        self._bounds = np.cumsum([0, *self._table.group_rows])
        self._x = np.empty((0, self.shape[1]), self.dtype)
        self._y: np.ndarray = np.empty(0, np.int64)
        self._group = -1

    def cell(self, row: int, column: int) -> str:
        return f"row {row}, column {self._table.names[column]!r}"

    def groups(self, block: int) -> np.ndarray:
        return np.unique(self._bounds)

    def reopen(self) -> "ParquetRowReader":
        return ParquetRowReader(self._path, self._target, self._table.target_texts)

    def load(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        group = int(np.searchsorted(self._bounds, start, "right")) - 1
        if group != self._group:
            self._group, rows = -1, self._table.group_rows[group]
            if len(self._x) < rows:
                del self._x
                self._x = np.empty((rows, self.shape[1]), self.dtype)
            labels = self._table.read_group(group, self._x[:rows])
            self._y = np.empty((rows, 0)) if labels is None else labels.classes[labels.codes]
            self._group = group
        first = int(self._bounds[group])
        return self._x[start - first : stop - first], self._y[start - first : stop - first]
