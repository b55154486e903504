"""Parquet files, row group by row group. Needs the extra `parquet` (pyarrow)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

import numpy as np

from gpu_nn.data.arrow import Errors, is_text, pyarrow
from gpu_nn.data.labels import Labels, labels_from_array, labels_from_text
from gpu_nn.data.memory import check_fits
from gpu_nn.data.table import Table, Target
from gpu_nn.errors import DataError

# So many rows of a row group are decoded at once, and of so many columns as have few values: each costs what its
# dictionary and a page take, up to 1 MiB each.
_ROWS, _COLUMNS, _VALUES = 1 << 14, 4, 1 << 20

# What pyarrow reads at once of a column, which it would else hold as a whole, packed.
_BUFFER_BYTES = 1 << 16


class ParquetTable:
    """An open file whose columns were checked: numbers as inputs, whole numbers or text as target, no nulls told of.

    names: of the inputs. target: the target column's name or None. group_rows: rows of each row group. dtype: of the
    inputs: float64, or less where all columns are of one byte, or of floats of less. texts: what all tables of this
    file know of the texts of its target.
    """

    def __init__(self, path: Path, target: Target, texts: "Texts | None" = None):
        self.path, self.texts = path, texts or Texts()
        self._arrow, parquet = pyarrow()
        with Errors(self._arrow, path):
            self._file = parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES)
            metadata, schema = self._file.metadata, self._file.schema_arrow
            self.group_rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            self.n_rows = metadata.num_rows
        self._columns = columns = list(schema.names)
        if not columns:
            raise DataError(f"{path} has no columns; expected inputs and a target")
        self._places: dict[str, list[int]] = {}
        for i, name in enumerate(columns):
            self._places.setdefault(name, []).append(i)
        self._place = target.place(path, columns)
        self.target = None if self._place is None else columns[self._place]
        self.names = self._in_file = [name for i, name in enumerate(columns) if i != self._place]
        types = [field.type for field in schema]
        self._for_prediction = target.n_inputs is not None
        if self._place is not None:
            kind = types.pop(self._place)
            if not self._for_prediction:
                self._check_target(kind)
        if not self.names:
            raise DataError(f"{path} has {len(columns)} columns; expected inputs and a target")
        if min(self.group_rows, default=0) < 0 or sum(self.group_rows) != self.n_rows:
            raise DataError(f"{path} says {self.n_rows} rows, but its row groups do not add up to that; it is damaged")
        if self.n_rows == 0:
            raise DataError(f"{path} has no rows")
        self.dtype = _together([self._dtype(*pair) for pair in zip(self._in_file, types, strict=True)])
        # Where the inputs go, in the order in which they stand in the file.
        self._into = list(range(len(self.names)))
        if target.features is not None:
            places = target.features.places(path, self._in_file)
            self.names, self._into = [self._in_file[i] for i in places], np.argsort(places).tolist()

    def read(self) -> Table:
        """All of it."""
        check_fits(self.path, self.n_rows * len(self.names) * self.dtype.itemsize)
        try:
            x = np.empty((self.n_rows, len(self.names)), self.dtype)
            parts, start = [], 0
            for i, rows in enumerate(self.group_rows):
                parts.append(self.read_group(i, x[start : start + rows]))
                start += rows
        except MemoryError:
            raise DataError(f"{self.path} does not fit in memory") from None
        labels = [part for part in parts if part is not None]
        found = _joined(labels) if labels else None
        return Table(x, self.names, found, self.target, lambda i, j: f"row {i}, column {self.names[j]!r}")

    def read_group(self, i: int, out: np.ndarray) -> Labels | None:
        """The inputs of row group i into `out`, (rows, inputs); returns its labels, None for prediction."""
        labels, first = [], sum(self.group_rows[:i])
        for column, start, values in self._pieces(i, self._columns):
            if column != self._place:
                if self._arrow.types.is_decimal(values.type):
                    values = values.cast(self._arrow.float64())
                place = column - (self._place is not None and column > self._place)
                out[start : start + len(values), self._into[place]] = values.to_numpy(zero_copy_only=False)
            elif not self._for_prediction:
                labels.append(self._labels(values, first + start))
        return _joined(labels) if labels else None

    def _pieces(self, group: int, names: Sequence[str]) -> Iterator[tuple[int, int, Any]]:
        """The columns of these names in a row group, some rows of some columns at a time: the column's number, the
        first row's number in the group, and the values, of which none is null."""
        rows = self.group_rows[group]
        names = list(dict.fromkeys(names))
        at_once = max(_COLUMNS, _VALUES // max(rows, 1))
        for first in range(0, len(names), at_once):
            chosen = names[first : first + at_once]
            n_expected = sum(len(self._places[name]) for name in chosen)
            start = 0
            with Errors(self._arrow, self.path):
                for batch in self._file.iter_batches(_ROWS, [group], chosen):
                    # With a come columns that are called a.b, too; and those of one name come side by side.
                    places = {name: iter(self._places[name]) for name in chosen}
                    found = [
                        (next(places[name], -1), values)
                        for name, values in zip(batch.schema.names, batch.columns, strict=True)
                        if name in places
                    ]
                    if len(found) != n_expected or start + len(batch) > rows:
                        self._refuse_group(group)
                    for column, values in found:
                        self._check_nulls(column, values, sum(self.group_rows[:group]) + start)
                        yield column, start, values
                    start += len(batch)
            if start != rows:
                self._refuse_group(group)

    def _refuse_group(self, group: int) -> NoReturn:
        raise DataError(f"{self.path}: row group {group} is not what the file says of it; it is damaged")

    def _labels(self, column: Any, first: int) -> Labels:
        """first: the number of the column's first row in the file."""
        if not is_text(self._arrow, column.type):
            return labels_from_array(self._where, column.to_numpy(zero_copy_only=False), first)
        texts, codes = self._distinct(column)
        all_texts, classes = self.texts.of(self)
        at = np.searchsorted(all_texts, texts).clip(max=len(all_texts) - 1)
        new = np.flatnonzero(all_texts[at] != texts)
        if len(new):
            raise DataError(f"{self._where} has {texts[new[0]]!r}, which it had not before; the file has changed")
        found, places = np.unique(classes[at], return_inverse=True)
        return Labels(found, places[codes])

    def read_texts(self) -> tuple[np.ndarray, np.ndarray]:
        """The different texts of the whole target, in order, and what they stand for: numbers only where all are."""
        found = set[str]()
        for i in range(len(self.group_rows)):
            for column, _, values in self._pieces(i, [str(self.target)]):
                if column == self._place:
                    found.update(self._distinct(values)[0])
        texts = sorted(found)
        labels = labels_from_text(self._where, texts, np.arange(len(texts)))
        return np.array(texts, str), labels.classes[labels.codes]

    @property
    def _where(self) -> str:
        return f"{self.path}: column {self.target!r}"

    def _distinct(self, column: Any) -> tuple[list[str], np.ndarray]:
        """The different texts of the column, and which of them each row has."""
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

    def _check_target(self, kind: Any) -> None:
        types = self._arrow.types
        number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
        if not (number or is_text(self._arrow, kind)):
            raise DataError(f"{self.path}: column {self.target!r}, the target, is {kind}; expected numbers or text")

    def _dtype(self, name: str, kind: Any) -> np.dtype:
        types = self._arrow.types
        if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
            return np.dtype(kind.to_pandas_dtype())
        if types.is_decimal(kind):
            return np.dtype(np.float64)
        hint = ""
        if is_text(self._arrow, kind):
            hint = f"; is it the target? That is {self.target!r} here" if self.target else "; is it the target?"
        raise DataError(f"{self.path}: column {name!r} is {kind}; expected numbers{hint}")


class Texts:
    """What `ParquetTable.read_texts` gives, found by the first of the tables of a file that asks: it is a pass over the
    column.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._found: tuple[np.ndarray, np.ndarray] | None = None

    def of(self, table: ParquetTable) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            if self._found is None:
                self._found = table.read_texts()
            return self._found


def read_parquet(path: Path, target: Target) -> Table:
    """The table. Raises DataError for what `ParquetTable` takes for no inputs or no target, and for damaged files."""
    return ParquetTable(path, target).read()


def _joined(parts: Sequence[Labels]) -> Labels:
    """The labels of one row group after the other."""
    classes = np.unique(np.concatenate([part.classes for part in parts]))
    codes = [np.searchsorted(classes, part.classes)[part.codes] for part in parts]
    return Labels(classes, np.concatenate(codes))


def _together(dtypes: Sequence[np.dtype]) -> np.dtype:
    """The type that holds all columns: of bytes (pixels) as they are, of floats the widest, else float64."""
    found = np.result_type(*dtypes)
    return found if found.kind in "bf" or found.itemsize == 1 else np.dtype(np.float64)
