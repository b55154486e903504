"""CSV files: comma, semicolon or tab between cells, UTF-8, quotes as spreadsheets set them, a first line with names or
none.

The first line holds names when none of its cells is a number, or when one of them is the target's name, or where names
that a model knows tell it. Without names the columns are called column 0, column 1, …
"""

import codecs
import csv
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TextIO

import numpy as np

from gpu_nn.data.labels import labels_from_text
from gpu_nn.data.table import Table, Target
from gpu_nn.errors import DataError

_SEPARATORS = ",;\t"

# The mark of UTF-16 is how that of UTF-32 begins.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

# The separator is sought in so many characters.
_FIRST = 1 << 16


def read_csv(path: Path, target: Target) -> Table:
    """The table, its inputs as float64.

    Raises DataError, with the line and the column, for cells that are empty or no numbers and for lines of another
    length than the first.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _Reading(path, file, target).table()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text{_not_utf8(path)} ({error.reason}); save it as UTF-8") from None
    except MemoryError:
        raise DataError(f"{path} does not fit in memory") from None


class _Reading:
    """One pass over the file."""

    def __init__(self, path: Path, file: TextIO, target: Target):
        self.path = path
        first = file.readline(_FIRST)
        file.seek(0)
        separator = max(_SEPARATORS, key=first.count)
        self.reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
        row = next(self._rows(), None)
        if row is None:
            raise DataError(f"{path} is empty; expected lines of numbers")
        self.width = len(row)
        cells = [cell.strip() for cell in row]
        features = target.features
        has_names = (
            cells.count(str(target.column)) == 1
            or not any(map(_is_number, cells))
            or (features is not None and _tells(set(features.names), cells))
        )
        self.features = features if has_names else None
        self.names = cells if has_names else [f"column {i}" for i in range(self.width)]
        self.first = None if has_names else row
        self.place = replace(target, features=self.features).place(path, self.names)
        self.for_prediction = target.n_inputs is not None
        self.inputs = [name for i, name in enumerate(self.names) if i != self.place]
        if not self.inputs:
            raise DataError(f"{path} has 1 column; expected inputs and a target: are the cells separated by commas?")
        self.places = None if self.features is None else self.features.places(path, self.inputs)

    def table(self) -> Table:
        values, lines = array("d"), array("q")
        codes = array("q")
        seen: dict[str, int] = {}
        for row in self._data():
            if len(row) != self.width:
                raise DataError(
                    f"{self.path}: line {self.reader.line_num} has {len(row)} cells, the lines before {self.width}"
                )
            if self.place is not None:
                label = row.pop(self.place).strip()
                if not (label or self.for_prediction):
                    self._refuse_empty(self.names[self.place])
                codes.append(seen.setdefault(label, len(seen)))
            try:
                values.extend(map(float, row))
            except ValueError:
                self._refuse(row)
            # Python reads 1_000 as a number; nobody else does.
            if "_" in "".join(row):
                self._refuse(row)
            lines.append(self.reader.line_num)
        if not lines:
            raise DataError(f"{self.path} has names, but no lines of numbers")
        x = np.frombuffer(values).reshape(len(lines), len(self.inputs))
        target = None if self.place is None else self.names[self.place]
        where = f"{self.path}: column {target!r}"
        labels = None
        if target is not None and not self.for_prediction:
            labels = labels_from_text(where, list(seen), np.frombuffer(codes, np.int64))
        names = self.inputs
        if self.places is not None and self.places != sorted(self.places):
            x, names = x[:, self.places], [names[i] for i in self.places]

        def cell(i: int, j: int) -> str:
            return f"line {lines[i]}, column {names[j]!r}"

        return Table(x, names, labels, target, cell, self.first is None)

    def _data(self) -> Iterator[list[str]]:
        if self.first is not None:
            yield self.first
        yield from self._rows()

    def _rows(self) -> Iterator[list[str]]:
        """The rows, without blank lines."""
        try:
            for row in self.reader:
                if row:
                    yield row
        except csv.Error as error:
            raise DataError(f"{self.path}: line {self.reader.line_num} is no CSV: {error}") from None

    def _refuse(self, row: Sequence[str]) -> NoReturn:
        """The error for the first cell of the inputs that is no number."""
        at = next(i for i, cell in enumerate(row) if not _is_number(cell))
        if not row[at].strip():
            self._refuse_empty(self.inputs[at])
        cell = row[at] if len(row[at]) <= 40 else f"{row[at][:40]} …"
        hint = ""
        if at == len(row) - 1 and self.place != self.width - 1 and self.place is not None:
            hint = f"; the target is column {self.names[self.place]!r}"
        raise DataError(f"{self._at(self.inputs[at])} is {cell!r}; expected a number{hint}")

    def _refuse_empty(self, column: str) -> NoReturn:
        raise DataError(f"{self._at(column)} is empty; fill it in, or drop the line or the column")

    def _at(self, column: str) -> str:
        return f"{self.path}: line {self.reader.line_num}, column {column!r}"


def _not_utf8(path: Path) -> str:
    """What the file is instead, where its byte-order mark says it, and the first of its bytes that is wrong."""
    decoder, read = codecs.getincrementaldecoder("utf-8")(), 0
    with suppress(OSError), path.open("rb") as file:
        first = file.peek(4)
        said = next((f" but {name}" for mark, name in _MARKS.items() if first.startswith(mark)), "")
        while piece := file.read(_FIRST):
            waiting = len(decoder.getstate()[0])
            try:
                decoder.decode(piece)
            except UnicodeDecodeError as error:
                return f"{said}: byte {read - waiting + error.start} of the file cannot be read"
            read += len(piece)
        return f"{said}: it ends within a character"
    return ""


def _tells(names: set[str], cells: Sequence[str]) -> bool:
    """Whether the cells hold all the names, or one that is no number."""
    return names <= set(cells) or any(cell in names and not _is_number(cell) for cell in cells)


def _is_number(cell: str) -> Any:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell
