"""A data set that is larger than memory: rows that are read while the training goes on."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gpu_nn.data.prefetcher import Prefetcher
from gpu_nn.data.row_readers import (
    ArrayRowReader,
    ParquetRowReader,
    RowReader,
    open_npy_reader_with_labels,
    open_row_reader,
)
from gpu_nn.errors import DataError
from gpu_nn.validation import check_int, random_generator

# What is read at once, and what is shuffled together, in bytes of float32 inputs.
_BLOCK_BYTES, _WINDOW_BYTES = 1 << 20, 64 << 20

# Blocks that a set has at least, given as many rows: they come in another order, and a part is drawn of each.
_BLOCKS = 256

# So many rows, spread evenly over the data, make their checksum.
_SAMPLED_ROWS = 1024


class RowRanges:
    """Ranges of rows, (k, 2), as one sequence."""

    def __init__(self, ranges: np.ndarray):
        self._ranges = ranges
        self._ends = np.cumsum(ranges[:, 1] - ranges[:, 0])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def slice(self, begin: int, end: int) -> list[tuple[int, int]]:
        """The ranges under places begin … end-1 of the sequence."""
        if begin >= end:
            return []
        first, last = np.searchsorted(self._ends, [begin, end - 1], "right")
        found = self._ranges[first : last + 1].copy()
        found[0, 0] = self._ranges[first, 1] - (self._ends[first] - begin)
        found[-1, 1] = self._ranges[last, 1] - (self._ends[last] - end)
        return [(int(start), int(stop)) for start, stop in found]


@dataclass(frozen=True, eq=False)
class StreamDataset:
    """Rows of x and y that a Trainer, or an evaluation, reads as it goes. Made by `stream`, parted by `split`.

    In each epoch blocks come in a new order, and rows are shuffled within windows of many blocks; so a row meets rows
    from all over the data, while reading stays one pass over long stretches. Each 64th of a window gives a batch as
    many rows as any other, or one more. Of a Parquet file the row groups come in a new order, and in each its blocks: a
    row meets rows from all over its group, and of other groups where a window has several. A window is in memory twice:
    as it is trained on, and as the next one is read by a background thread. So much, and the largest row group of a
    Parquet file, is the memory that a stream takes. Of ranks that train together each reads, and has in memory, its
    share of each window.

    reader: of all rows.  pieces: (k, 2), the ranges of rows that are in this stream, in order.  group: (k,), the group
    of the source that each is in; pieces of a group come one after the other.  block_rows, window_rows: rows of a block
    and a window; a Trainer makes a window a whole number of batches.  classes: what the indices of y stand for, in
    order; None where y holds indices already, or targets (n, classes).
    """

    reader: RowReader
    pieces: np.ndarray
    group: np.ndarray
    block_rows: int
    window_rows: int
    classes: np.ndarray | None = None

    @classmethod
    def from_reader(
        cls, reader: RowReader, *, block_rows: int | None = None, window_rows: int | None = None, classes: Any = None
    ) -> "StreamDataset":
        """All rows of a source. block_rows, window_rows, classes: as for `stream`."""
        for name, value in (("block_rows", block_rows), ("window_rows", window_rows)):
            if value is not None:
                check_int(name, value, 1, ", or None")
        row = 4 * reader.shape[1]
        block = int(block_rows or max(1, min(_BLOCK_BYTES // row, reader.shape[0] // _BLOCKS)))
        window = int(window_rows or max(block, _WINDOW_BYTES // row))
        ends = reader.groups(block)
        starts = [np.arange(first, last, block) for first, last in pairwise(ends.tolist())]
        group = np.repeat(np.arange(len(starts)), [len(some) for some in starts])
        begins = np.concatenate(starts)
        pieces = np.stack([begins, np.append(begins[1:], ends[-1])], 1)
        return cls(reader, pieces, group, block, window, None if classes is None else np.asarray(classes))

    def __len__(self) -> int:
        return int((self.pieces[:, 1] - self.pieces[:, 0]).sum())

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, inputs)."""
        return len(self), self.reader.shape[1]

    @property
    def targets(self) -> tuple[int, ...]:
        """The shape of a row's y: () for a label, (classes,) for targets."""
        return self.reader.targets

    def epoch_ranges(self, random: np.random.Generator | None) -> RowRanges:
        """The pieces in the order of an epoch: the groups by lot, and by lot those of a group, which is read as one.
        None: as they lie in the source.
        """
        if random is None:
            return RowRanges(self.pieces)
        numbers, group = np.unique(self.group, return_inverse=True)
        rank, place = random.permutation(len(numbers)), random.permutation(len(group))
        return RowRanges(self.pieces[np.lexsort((place, rank[group]))])

    def windows(self, dtype: Any = np.float32, n_classes: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All rows in order, as (x, y) of up to window_rows rows; good until the next ones are asked for.

        x is of `dtype`; y as the source has it, or, given n_classes, indices or targets, checked.
        """
        if not len(self):
            return
        n, pieces = len(self), self.epoch_ranges(None)
        rows = min(self.window_rows, n)
        out = np.empty((rows, self.shape[1]), dtype)
        begins = range(0, n, rows)
        windows = ((pieces.slice(begin, min(begin + rows, n)), None) for begin in begins)
        with Prefetcher(self, windows, out, None, n_classes) as ahead:
            for _ in begins:
                with ahead.window() as window:
                    yield window

    def split(
        self, name: str, fraction: float, last: int | None = None, seed: int = 0
    ) -> tuple["StreamDataset", "StreamDataset"]:
        """Two parts, of which the second has a `fraction` of the rows of each block, drawn by the seed, or the `last`
        rows of all.

        What is drawn of a block lies side by side there, so that both parts are read in long stretches; and as it is of
        each block, both are like the whole, be it sorted or not.

        name: of the second, for errors. Raises DataError where a part would have no rows.
        """
        n = len(self)
        if last is None:
            return self._drawn(name, fraction, random_generator(seed))
        if not 0 < last < n:
            raise DataError(f"{self.reader.name} has {n} rows; its {name} part cannot be the last {last}: choose fewer")
        return self.row_slice(0, n - last), self.row_slice(n - last, n)

    def row_slice(self, begin: int, end: int) -> "StreamDataset":
        """The rows begin … end-1 of this stream."""
        rows = self.pieces[:, 1] - self.pieces[:, 0]
        before = np.cumsum(rows) - rows
        return self._of(self.pieces[:, :1] + np.clip(np.stack([begin - before, end - before], 1), 0, rows[:, None]))

    def ranges_within(self, begin: int, end: int) -> list[list[int]]:
        """Which of the rows begin … end-1 of the source are in this stream: [first, one after the last], in order."""
        first = np.searchsorted(self.pieces[:, 1], begin, "right")
        last = np.searchsorted(self.pieces[:, 0], end, "left")
        return self.pieces[first:last].clip(begin, end).tolist()

    def _drawn(
        self, name: str, fraction: float, random: np.random.Generator
    ) -> tuple["StreamDataset", "StreamDataset"]:
        rows, n = self.pieces[:, 1] - self.pieces[:, 0], len(self)
        if n < 2:
            raise DataError(f"{self.reader.name} has {n} row; its {name} part cannot be {fraction:g} of it: add rows")
        share = min(max(round(fraction * n), 1), n - 1) / n
        # The fractions of rows that pieces are due add up, in an order that is drawn, to rows of one or the other.
        order = random.permutation(len(rows))
        drawn = np.empty_like(rows)
        drawn[order] = np.diff(np.rint(np.cumsum(rows[order]) * share), prepend=0)
        # They begin at any row; what passes the piece's end goes on at its beginning.
        first = np.where(drawn, random.integers(rows), 0)
        over, stop = np.maximum(first + drawn - rows, 0), np.minimum(first + drawn, rows)
        edges = self.pieces[:, :1] + np.stack([np.zeros_like(rows), over, first, stop, rows], 1)
        return self._of(edges[:, [1, 2, 3, 4]]), self._of(edges[:, [0, 1, 2, 3]])

    def _of(self, ranges: np.ndarray) -> "StreamDataset":
        """Of each piece the ranges of rows, (k, 2·ranges), that are not empty."""
        pieces = ranges.reshape(-1, 2)
        some = pieces[:, 0] < pieces[:, 1]
        return replace(self, pieces=pieces[some], group=np.repeat(self.group, ranges.shape[1] // 2)[some])

    def fingerprint(self) -> dict[str, Any]:
        """What tells this data from other: rows, columns, sizes, and a checksum of rows spread over it."""
        pieces = self.pieces
        if isinstance(self.reader, ParquetRowReader) and len(pieces):
            # A row costs the reading of its group.
            pieces = pieces[(self.group == self.group[0]) | (self.group == self.group[-1])]
        ends = np.cumsum(pieces[:, 1] - pieces[:, 0])
        n = int(ends[-1]) if len(ends) else 0
        chosen = np.unique(np.linspace(0, n - 1, min(n, _SAMPLED_ROWS)).astype(np.int64))
        piece = np.searchsorted(ends, chosen, "right")
        # Parts of equal rows are told apart, too.
        checksum = zlib.crc32(np.ascontiguousarray(self.pieces, "<i8").data)
        # One of its own: the row group that it holds goes with it.
        reader = self.reader.reopen()
        for row in (pieces[piece, 1] - (ends[piece] - chosen)).tolist():
            x, y = reader.load(row, row + 1)
            checksum = zlib.crc32(np.ascontiguousarray(x, np.float64).data, checksum)
            checksum = zlib.crc32(str(y.tolist()).encode(), checksum)
            reader.release(row, row + 1)
        return {
            "rows": len(self),
            "columns": self.shape[1],
            "targets": list(self.targets),
            "checksum": checksum,
            "block_rows": self.block_rows,
            "window_rows": self.window_rows,
        }


def stream(
    x: Any, y: Any = None, *, block_rows: int | None = None, window_rows: int | None = None, classes: Any = None
) -> StreamDataset:
    """A stream of an npy or Parquet file's rows, or of arrays.

    Of a file the name does better than the array that `np.load(file, mmap_mode="r")` makes of it, whose pages stay with
    this process as long as the system has room, and which ends it when the file is cut short meanwhile.

    x: the file's name, or an array (n, …). y: of a file the file of its labels or the column that they are, as for
    `read`; of arrays, or an npy file, an array (n,) of labels, (n, classes) of targets. block_rows: rows that are read
    at once; window_rows: rows that are shuffled together; by default what takes 1 MiB, or a 256th of all, and 64 MiB in
    float32. classes: see `StreamDataset`.

    Raises DataError for what cannot be read or does not fit together; what is in the rows is checked as they are read.
    """
    reader: RowReader
    if not isinstance(x, str | Path):
        reader = ArrayRowReader("x", np.asanyarray(x), np.asanyarray(y))
    elif np.ndim(y):
        reader = open_npy_reader_with_labels(x, np.asanyarray(y))
    else:
        reader = open_row_reader(x, str(y) if isinstance(y, Path) else y)
    return StreamDataset.from_reader(reader, block_rows=block_rows, window_rows=window_rows, classes=classes)
