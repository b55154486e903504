"""CSV files: cells separated by comma, semicolon or tab, UTF-8, quoted as spreadsheets do, with or without a header.

The first line is a header when none of its cells is a number, when one of them is the target's name, or when it holds
the names of a model's inputs. Without a header the columns are named column 0, column 1, …
"""

import codecs
import csv
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NoReturn, TextIO

import numpy as np

from gpu_nn.data.labels import labels_from_text
from gpu_nn.data.table import Table, Target
from gpu_nn.errors import DataError
from gpu_nn.files import reading

_SEPARATORS = ",;\t"

# UTF-32 first: its byte-order mark begins with that of UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

# The separator is detected in the first characters of the file; the file is searched for invalid bytes in such chunks.
_CHUNK = 1 << 16


def read_csv(path: Path, target: Target) -> Table:
    """The table, its inputs as float64.

    Raises DataError, with the line and the column, for cells that are empty or not numbers and for lines with another
    number of cells than the first.
    """
    try:
        with reading(path), path.open(encoding="utf-8-sig", newline="") as file:
            return _CsvParser(path, file, target).table()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text{_invalid_utf8(path)} ({error.reason}); save it as UTF-8") from None


class _CsvParser:
    """Parses an open file in one pass."""

    def __init__(self, path: Path, file: TextIO, target: Target):
        self.path = path
        first = file.readline(_CHUNK)
        file.seek(0)
        separator = max(_SEPARATORS, key=first.count)
        self.reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
        row = next(self._rows(), None)
        if row is None:
            raise DataError(f"{path} is empty; expected lines of numbers")
        self.width = len(row)
        cells = [cell.strip() for cell in row]
        features = target.features
        has_header = (
            cells.count(str(target.column)) == 1
            or not any(map(_is_number, cells))
            or (features is not None and _is_header(set(features.names), cells))
        )
        features = features if has_header else None
        self.names = cells if has_header else [f"column {i}" for i in range(self.width)]
        self.first_row = None if has_header else row
        self.target_index = replace(target, features=features).index(path, self.names)
        self.for_prediction = target.n_inputs is not None
        self.inputs = [name for i, name in enumerate(self.names) if i != self.target_index]
        if not self.inputs:
            raise DataError(f"{path} has 1 column; expected inputs and a target: are the cells separated by commas?")
        self.order = None if features is None else features.column_indices(path, self.inputs)

    def table(self) -> Table:
        values, lines = array("d"), array("q")
        codes = array("q")
        seen: dict[str, int] = {}
        for row in chain([] if self.first_row is None else [self.first_row], self._rows()):
            if len(row) != self.width:
                raise DataError(
                    f"{self.path}: line {self.reader.line_num} has {len(row)} cells, the lines before {self.width}"
                )
            if self.target_index is not None:
                label = row.pop(self.target_index).strip()
                if not (label or self.for_prediction):
                    self._raise_empty(self.names[self.target_index])
                codes.append(seen.setdefault(label, len(seen)))
            try:
                values.extend(map(float, row))
            except ValueError:
                self._raise_not_a_number(row)
            # float() accepts 1_000, other CSV readers do not.
            if "_" in "".join(row):
                self._raise_not_a_number(row)
            lines.append(self.reader.line_num)
        if not lines:
            raise DataError(f"{self.path} has a header, but no lines of numbers")
        x = np.frombuffer(values).reshape(len(lines), len(self.inputs))
        target = None if self.target_index is None else self.names[self.target_index]
        where = f"{self.path}: column {target!r}"
        labels = None
        if target is not None and not self.for_prediction:
            labels = labels_from_text(where, list(seen), np.frombuffer(codes, np.int64))
        names = self.inputs
        if self.order is not None and self.order != sorted(self.order):
            x, names = x[:, self.order], [names[i] for i in self.order]

        def cell(i: int, j: int) -> str:
            return f"line {lines[i]}, column {names[j]!r}"

        return Table(x, names, labels, target, cell, self.first_row is None)

    def _rows(self) -> Iterator[list[str]]:
        """The rows, without blank lines."""
        try:
            for row in self.reader:
                if row:
                    yield row
        except csv.Error as error:
            raise DataError(f"{self.path}: line {self.reader.line_num} is no CSV: {error}") from None

    def _raise_not_a_number(self, row: Sequence[str]) -> NoReturn:
        """Raise DataError for the first input of the row that is not a number."""
        at = next(i for i, cell in enumerate(row) if not _is_number(cell))
        if not row[at].strip():
            self._raise_empty(self.inputs[at])
        cell = row[at] if len(row[at]) <= 40 else f"{row[at][:40]} …"
        hint = ""
        if at == len(row) - 1 and self.target_index is not None and self.target_index != self.width - 1:
            hint = f"; the target is column {self.names[self.target_index]!r}"
        raise DataError(f"{self._at(self.inputs[at])} is {cell!r}; expected a number{hint}")

    def _raise_empty(self, column: str) -> NoReturn:
        raise DataError(f"{self._at(column)} is empty; fill it in, or drop the line or the column")

    def _at(self, column: str) -> str:
        return f"{self.path}: line {self.reader.line_num}, column {column!r}"


def _invalid_utf8(path: Path) -> str:
    """The encoding that the byte-order mark names, and the position of the first byte that is not UTF-8."""
    decoder, n_read = codecs.getincrementaldecoder("utf-8")(), 0
    with suppress(OSError), path.open("rb") as file:
        first = file.peek(4)
        encoding = next((f" but {name}" for mark, name in _BYTE_ORDER_MARKS.items() if first.startswith(mark)), "")
        while chunk := file.read(_CHUNK):
            n_pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                return f"{encoding}: byte {n_read - n_pending + error.start} of the file cannot be read"
            n_read += len(chunk)
        return f"{encoding}: it ends within a character"
    return ""


def _is_header(names: set[str], cells: Sequence[str]) -> bool:
    """Whether the cells hold all the names, or one of them that is not a number."""
    return names <= set(cells) or any(cell in names and not _is_number(cell) for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell
