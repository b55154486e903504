"""Parquet files, row group by row group. Needs the extra `parquet` (pyarrow)."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

import numpy as np

from gpu_nn.data.labels import Labels, labels_from_array, labels_from_text
from gpu_nn.data.memory import check_fits
from gpu_nn.data.table import Table, Target
from gpu_nn.errors import DataError
from gpu_nn.files import reading

# A row group is decoded _ROWS rows and at least _COLUMNS columns at a time, more columns while they have at most
# _VALUES values: a column in decoding takes the memory of its dictionary and of a page, up to 1 MiB each.
_ROWS, _COLUMNS, _VALUES = 1 << 14, 4, 1 << 20

# pyarrow reads so much of a column at a time; without a buffer size it holds the whole compressed column.
_BUFFER_BYTES = 1 << 16


class ParquetTable:
    """An open Parquet file whose column types were checked: numeric inputs; integers, floats or text as target.

    names: of the inputs.  target: the name of the target column, or None.  group_rows: rows of each row group.  dtype:
    of the inputs: float64, or the columns' own where all are one-byte integers or all are floats.  target_texts: shared
    by all tables of this file.
    """

    def __init__(self, path: Path, target: Target, target_texts: "TargetTexts | None" = None):
        self.path, self.target_texts = path, target_texts or TargetTexts()
        self._arrow, parquet = _import_pyarrow()
        with self._reading():
            self._file = parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES)
            metadata, schema = self._file.metadata, self._file.schema_arrow
            self.group_rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            self.n_rows = metadata.num_rows
        self._columns = columns = list(schema.names)
        if not columns:
            raise DataError(f"{path} has no columns; expected inputs and a target")
        self._indices: dict[str, list[int]] = {}
        for i, name in enumerate(columns):
            self._indices.setdefault(name, []).append(i)
        self._target_index = target.index(path, columns)
        self.target = None if self._target_index is None else columns[self._target_index]
        self.names = file_names = [name for i, name in enumerate(columns) if i != self._target_index]
        types = [field.type for field in schema]
        self._for_prediction = target.n_inputs is not None
        if self._target_index is not None:
            target_type = types.pop(self._target_index)
            is_label = _is_number(self._arrow, target_type) or _is_text(self._arrow, target_type)
            if not (self._for_prediction or is_label):
                raise DataError(
                    f"{path}: column {self.target!r}, the target, is {target_type}; expected numbers or text"
                )
        if not self.names:
            raise DataError(f"{path} has {len(columns)} columns; expected inputs and a target")
        if min(self.group_rows, default=0) < 0 or sum(self.group_rows) != self.n_rows:
            raise DataError(f"{path} says {self.n_rows} rows, but its row groups do not add up to that; it is damaged")
        if self.n_rows == 0:
            raise DataError(f"{path} has no rows")
        self.dtype = _common_dtype([self._dtype(*pair) for pair in zip(file_names, types, strict=True)])
        # The input of each column of the file.
        self._input_index = list(range(len(self.names)))
        if target.features is not None:
            order = target.features.column_indices(path, file_names)
            self.names, self._input_index = [file_names[i] for i in order], np.argsort(order).tolist()

    def read(self) -> Table:
        """The whole table."""
        check_fits(self.path, self.n_rows * len(self.names) * self.dtype.itemsize)
        with reading(self.path):
            x = np.empty((self.n_rows, len(self.names)), self.dtype)
            groups, start = [], 0
            for i, rows in enumerate(self.group_rows):
                groups.append(self.read_group(i, x[start : start + rows]))
                start += rows
        return Table(x, self.names, _joined(groups), self.target, lambda i, j: f"row {i}, column {self.names[j]!r}")

    def read_group(self, i: int, out: np.ndarray) -> Labels | None:
        """Reads the inputs of row group i into `out`, (rows, inputs); returns its labels, None for prediction."""
        labels, first = [], sum(self.group_rows[:i])
        for column, start, values in self._batches(i, self._columns):
            if column != self._target_index:
                if self._arrow.types.is_decimal(values.type):
                    values = values.cast(self._arrow.float64())
                index = self._input_index[column - (self._target_index is not None and column > self._target_index)]
                out[start : start + len(values), index] = values.to_numpy(zero_copy_only=False)
            elif not self._for_prediction:
                labels.append(self._labels(values, first + start))
        return _joined(labels)

    def _batches(self, group: int, names: Sequence[str]) -> Iterator[tuple[int, int, Any]]:
        """The columns of these names in a row group, some rows of some columns at a time.

        Yields the column's index, the index in the group of the first row, and the values, none of which is null.
        """
        rows = self.group_rows[group]
        names = list(dict.fromkeys(names))
        n_columns = max(_COLUMNS, _VALUES // max(rows, 1))
        for first in range(0, len(names), n_columns):
            chosen = names[first : first + n_columns]
            n_expected = sum(len(self._indices[name]) for name in chosen)
            start = 0
            with self._reading():
                for batch in self._file.iter_batches(_ROWS, [group], chosen):
                    # For a name a pyarrow also returns columns called a.b; columns of equal names come one by one.
                    indices = {name: iter(self._indices[name]) for name in chosen}
                    found = [
                        (next(indices[name], -1), values)
                        for name, values in zip(batch.schema.names, batch.columns, strict=True)
                        if name in indices
                    ]
                    if len(found) != n_expected or start + len(batch) > rows:
                        self._raise_damaged_group(group)
                    for column, values in found:
                        self._check_nulls(column, values, sum(self.group_rows[:group]) + start)
                        yield column, start, values
                    start += len(batch)
            if start != rows:
                self._raise_damaged_group(group)

    def _reading(self) -> AbstractContextManager[None]:
        errors = (OSError, ValueError, TypeError, KeyError, IndexError, self._arrow.ArrowException)
        return reading(self.path, {"is not a Parquet file that can be read": errors})

    def _raise_damaged_group(self, group: int) -> NoReturn:
        raise DataError(f"{self.path}: row group {group} is not what the file says of it; it is damaged")

    def _labels(self, column: Any, first: int) -> Labels:
        """The labels in a part of the target column. first: the index in the file of the part's first row."""
        if not _is_text(self._arrow, column.type):
            return labels_from_array(self._where, column.to_numpy(zero_copy_only=False), first)
        texts, codes = self._unique_texts(column)
        all_texts, classes = self.target_texts.of(self)
        at = np.searchsorted(all_texts, texts).clip(max=len(all_texts) - 1)
        new = np.flatnonzero(all_texts[at] != texts)
        if len(new):
            raise DataError(f"{self._where} has {texts[new[0]]!r}, which it had not before; the file has changed")
        found, indices = np.unique(classes[at], return_inverse=True)
        return Labels(found, indices[codes])

    def read_target_texts(self) -> tuple[np.ndarray, np.ndarray]:
        """The unique texts of the whole target column, sorted, and their labels: numbers where all are numbers."""
        found = set[str]()
        for i in range(len(self.group_rows)):
            for column, _, values in self._batches(i, [str(self.target)]):
                if column == self._target_index:
                    found.update(self._unique_texts(values)[0])
        texts = sorted(found)
        labels = labels_from_text(self._where, texts, np.arange(len(texts)))
        return np.array(texts, str), labels.classes[labels.codes]

    @property
    def _where(self) -> str:
        return f"{self.path}: column {self.target!r}"

    def _unique_texts(self, column: Any) -> tuple[list[str], np.ndarray]:
        """The unique texts of the column, and the index of each row's text."""
        arrow, where = self._arrow, self._where
        if not arrow.types.is_dictionary(column.type):
            column = column.cast(arrow.large_string()).dictionary_encode()
        used, codes = np.unique(column.indices.to_numpy(), return_inverse=True)
        if len(used) and not 0 <= used[0] <= used[-1] < len(column.dictionary):
            raise DataError(f"{where} points to values that are not there; the file is damaged")
        texts = column.dictionary.take(arrow.array(used)).to_pylist()
        if any(text is None for text in texts):
            raise DataError(f"{where} has nulls; fill them in, or drop their rows")
        return texts, codes

    def _check_nulls(self, column: int, values: Any, first: int) -> None:
        if values.null_count:
            row = first + int(values.is_null().to_numpy(zero_copy_only=False).argmax())
            raise DataError(
                f"{self.path}: column {self._columns[column]!r} has nulls, the first in row {row}; fill them in, or "
                "drop their rows or the column"
            )

    def _dtype(self, name: str, column_type: Any) -> np.dtype:
        if _is_number(self._arrow, column_type):
            return np.dtype(column_type.to_pandas_dtype())
        if self._arrow.types.is_decimal(column_type):
            return np.dtype(np.float64)
        hint = ""
        if _is_text(self._arrow, column_type):
            hint = f"; is it the target? That is {self.target!r} here" if self.target else "; is it the target?"
        raise DataError(f"{self.path}: column {name!r} is {column_type}; expected numbers{hint}")


class TargetTexts:
    """The result of `ParquetTable.read_target_texts`, a pass over the column, cached for all tables of a file."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._cached: tuple[np.ndarray, np.ndarray] | None = None

    def of(self, table: ParquetTable) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            if self._cached is None:
                self._cached = table.read_target_texts()
            return self._cached


def read_parquet(path: Path, target: Target) -> Table:
    """The table. Raises DataError for damaged files and for columns that cannot be inputs or the target."""
    return ParquetTable(path, target).read()


def _joined(parts: Sequence[Labels | None]) -> Labels | None:
    """The labels of consecutive parts of the rows as one; None where there are none."""
    labels = [part for part in parts if part is not None]
    if not labels:
        return None
    classes = np.unique(np.concatenate([part.classes for part in labels]))
    codes = [np.searchsorted(classes, part.classes)[part.codes] for part in labels]
    return Labels(classes, np.concatenate(codes))


def _common_dtype(dtypes: Sequence[np.dtype]) -> np.dtype:
    """The dtype that holds all columns: one-byte integers (pixels) as they are, the widest of floats, else float64."""
    found = np.result_type(*dtypes)
    return found if found.kind in "bf" or found.itemsize == 1 else np.dtype(np.float64)


def _is_number(arrow: Any, column_type: Any) -> bool:
    types = arrow.types
    return types.is_integer(column_type) or types.is_floating(column_type) or types.is_boolean(column_type)


def _is_text(arrow: Any, column_type: Any) -> bool:
    """Whether the column holds text, directly or in a dictionary."""
    types = arrow.types
    value_type = column_type.value_type if types.is_dictionary(column_type) else column_type
    return types.is_string(value_type) or types.is_large_string(value_type) or types.is_string_view(value_type)


def _import_pyarrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet. Raises DataError, with a hint, where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError("reading Parquet files needs pyarrow: pip install 'gpu_nn[parquet]'") from None
    return pyarrow, pyarrow.parquet
