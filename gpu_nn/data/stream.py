"""A data set that is larger than memory: its rows are read while training goes on."""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gpu_nn.data.prefetcher import Prefetcher, Window
from gpu_nn.data.row_readers import ArrayRowReader, ParquetRowReader, RowReader, open_row_reader
from gpu_nn.errors import DataError
from gpu_nn.validation import check_int, random_generator

# Default sizes of a block and of a window, in bytes of float32 inputs.
_BLOCK_BYTES, _WINDOW_BYTES = 1 << 20, 64 << 20

# The least number of blocks by default: blocks are shuffled, and a split takes rows of each.
_BLOCKS = 256

# Rows, evenly spaced over the data, that the checksum of a fingerprint covers.
_SAMPLED_ROWS = 1024


class RowRanges:
    """Ranges of rows, (k, 2), as one sequence of rows."""

    def __init__(self, ranges: np.ndarray):
        self._ranges = ranges
        self._ends = np.cumsum(ranges[:, 1] - ranges[:, 0])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def slice(self, begin: int, end: int) -> list[tuple[int, int]]:
        """The ranges of the rows at positions begin … end-1 of the sequence."""
        if begin >= end:
            return []
        first, last = np.searchsorted(self._ends, [begin, end - 1], "right")
        found = self._ranges[first : last + 1].copy()
        found[0, 0] = self._ranges[first, 1] - (self._ends[first] - begin)
        found[-1, 1] = self._ranges[last, 1] - (self._ends[last] - end)
        return [(int(start), int(stop)) for start, stop in found]


@dataclass(frozen=True, eq=False)
class StreamDataset:
    """Rows of x and y that a Trainer or an evaluation reads as it needs them. Made by `stream`, divided by `split`.

    Each epoch permutes the blocks and shuffles the rows within windows of many blocks, so that reading stays
    sequential over long ranges. Each 64th of a window gives every batch the same number of rows, up to one. Of a
    Parquet file an epoch permutes the row groups, and the blocks in each; a window mixes rows of several groups where
    it is larger than a group. Two windows are in memory, the one that is trained on and the one that a background
    thread reads, and the largest row group of a Parquet file. Each rank of a distributed training reads and holds its
    shard of each window.

    reader: of all rows.  ranges: (k, 2), the rows of this data set, in order.  groups: (k,), the reader's group of each
    range; ranges of a group are consecutive.  block_rows, window_rows: rows of a block and of a window; a Trainer
    rounds a window to whole batches.  classes: the label of each class index, in order; None where y holds indices or
    targets (n, classes).
    """

    reader: RowReader
    ranges: np.ndarray
    groups: np.ndarray
    block_rows: int
    window_rows: int
    classes: np.ndarray | None = None

    @classmethod
    def from_reader(
        cls, reader: RowReader, *, block_rows: int | None = None, window_rows: int | None = None, classes: Any = None
    ) -> "StreamDataset":
        """All rows of a reader. block_rows, window_rows, classes: as for `stream`."""
        for name, value in (("block_rows", block_rows), ("window_rows", window_rows)):
            if value is not None:
                check_int(name, value, 1, ", or None")
        row_bytes = 4 * reader.shape[1]
        block = int(block_rows or max(1, min(_BLOCK_BYTES // row_bytes, reader.shape[0] // _BLOCKS)))
        window = int(window_rows or max(block, _WINDOW_BYTES // row_bytes))
        bounds = reader.groups(block)
        starts = [np.arange(first, last, block) for first, last in pairwise(bounds.tolist())]
        groups = np.repeat(np.arange(len(starts)), [len(of_group) for of_group in starts])
        begins = np.concatenate(starts)
        ranges = np.stack([begins, np.append(begins[1:], bounds[-1])], 1)
        return cls(reader, ranges, groups, block, window, None if classes is None else np.asarray(classes))

    def __len__(self) -> int:
        return len(RowRanges(self.ranges))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, inputs)."""
        return len(self), self.reader.shape[1]

    @property
    def targets(self) -> tuple[int, ...]:
        """The shape of a row's y: () for a label, (classes,) for targets."""
        return self.reader.targets

    def epoch_ranges(self, random: np.random.Generator | None) -> RowRanges:
        """The ranges in the order of an epoch: a random permutation of the groups, and of the ranges in each group.

        random: None for the order of the reader.
        """
        if random is None:
            return RowRanges(self.ranges)
        unique, group = np.unique(self.groups, return_inverse=True)
        group_rank, range_rank = random.permutation(len(unique)), random.permutation(len(group))
        return RowRanges(self.ranges[np.lexsort((range_rank, group_rank[group]))])

    def prefetch(
        self, windows: Iterable[Window], x: np.ndarray, y: np.ndarray | None = None, n_classes: int | None = None
    ) -> Prefetcher:
        """A context whose thread reads one window into the buffers while the previous one is in use.

        windows: each may be empty.  x: (rows of the largest window, inputs), of the dtype to read.  y: the buffer of
        the targets; None for y as the reader has it, and no empty windows.  n_classes: the number of classes, for
        which y is encoded and checked; None for y as the reader has it.
        """
        return Prefetcher(self.reader, self.classes, windows, x, y, n_classes)

    def windows(self, dtype: Any = np.float32, n_classes: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All rows in order, as (x, y) of at most window_rows rows, valid until the next pair.

        x is of `dtype`. y is as the reader has it, or, given n_classes, checked indices or targets.
        """
        if not len(self):
            return
        n, ranges = len(self), self.epoch_ranges(None)
        rows = min(self.window_rows, n)
        buffer = np.empty((rows, self.shape[1]), dtype)
        begins = range(0, n, rows)
        windows = ((ranges.slice(begin, min(begin + rows, n)), None) for begin in begins)
        with self.prefetch(windows, buffer, None, n_classes) as prefetcher:
            for _ in begins:
                with prefetcher.window() as window:
                    yield window

    def split(
        self, name: str, fraction: float, last: int | None = None, seed: int = 0
    ) -> tuple["StreamDataset", "StreamDataset"]:
        """Two data sets, of which the second has a random `fraction` of each block's rows, or the `last` rows of all.

        The rows drawn from a block are consecutive, so that both are read in long ranges. As each block gives the
        fraction, both represent all rows, sorted or not.

        name: of the second, for errors. Raises DataError where one would have no rows.
        """
        n = len(self)
        if last is not None:
            if not 0 < last < n:
                expected = f"its {name} part cannot be the last {last}: choose fewer"
                raise DataError(f"{self.reader.name} has {n} rows; {expected}")
            return self.row_slice(0, n - last), self.row_slice(n - last, n)
        if n < 2:
            raise DataError(f"{self.reader.name} has {n} row; its {name} part cannot be {fraction:g} of it: add rows")
        share = min(max(round(fraction * n), 1), n - 1) / n
        rows, random = self.ranges[:, 1] - self.ranges[:, 0], random_generator(seed)
        # Rounding the cumulative sum, over the ranges in random order, spreads the rounding errors over the ranges.
        order = random.permutation(len(rows))
        drawn = np.empty_like(rows)
        drawn[order] = np.diff(np.rint(np.cumsum(rows[order]) * share), prepend=0)
        # The drawn rows begin at a random row and wrap around at the end of the range.
        first = np.where(drawn, random.integers(rows), 0)
        wrapped, stop = np.maximum(first + drawn - rows, 0), np.minimum(first + drawn, rows)
        edges = self.ranges[:, :1] + np.stack([np.zeros_like(rows), wrapped, first, stop, rows], 1)
        return self._with_ranges(edges[:, [1, 2, 3, 4]]), self._with_ranges(edges[:, [0, 1, 2, 3]])

    def row_slice(self, begin: int, end: int) -> "StreamDataset":
        """The rows begin … end-1 of this data set."""
        rows = self.ranges[:, 1] - self.ranges[:, 0]
        before = np.cumsum(rows) - rows
        offsets = np.clip(np.stack([begin - before, end - before], 1), 0, rows[:, None])
        return self._with_ranges(self.ranges[:, :1] + offsets)

    def ranges_within(self, begin: int, end: int) -> list[list[int]]:
        """The ranges [start, stop) of the reader's rows begin … end-1 that are in this data set, in order."""
        first = np.searchsorted(self.ranges[:, 1], begin, "right")
        last = np.searchsorted(self.ranges[:, 0], end, "left")
        return self.ranges[first:last].clip(begin, end).tolist()

    def _with_ranges(self, ranges: np.ndarray) -> "StreamDataset":
        """The data set of the non-empty among `ranges`, (k, 2·j): j of each of its own k ranges."""
        pairs = ranges.reshape(-1, 2)
        non_empty = pairs[:, 0] < pairs[:, 1]
        return replace(self, ranges=pairs[non_empty], groups=np.repeat(self.groups, ranges.shape[1] // 2)[non_empty])

    def fingerprint(self) -> dict[str, Any]:
        """Identifies the data: rows, columns, sizes, and a checksum of the ranges and of evenly spaced rows."""
        ranges = self.ranges
        if isinstance(self.reader, ParquetRowReader) and len(ranges):
            # To read a row takes as long as to read its row group: only the first and the last are sampled.
            ranges = ranges[(self.groups == self.groups[0]) | (self.groups == self.groups[-1])]
        rows = RowRanges(ranges)
        chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLED_ROWS)).astype(np.int64)).tolist()
        # Two splits whose sampled rows are equal differ in their ranges.
        checksum = zlib.crc32(np.ascontiguousarray(self.ranges, "<i8").data)
        # A reader of its own: the row group that it holds is freed with it.
        reader = self.reader.reopen()
        for start, stop in (found for i in chosen for found in rows.slice(i, i + 1)):
            x, y = reader.load(start, stop)
            checksum = zlib.crc32(np.ascontiguousarray(x, np.float64).data, checksum)
            checksum = zlib.crc32(str(y.tolist()).encode(), checksum)
            reader.release(start, stop)
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
    """A `StreamDataset` of the rows of an npy or Parquet file, or of arrays.

    Pass a file's name rather than `np.load(file, mmap_mode="r")`: mapped pages count as memory of this process, and
    access to them kills it when the file is truncated meanwhile.

    x: the name of a file, or an array (n, …).  y: for a file the file or the column of its labels, as for `read`; for
    an array or an npy file also an array, (n,) of labels or (n, classes) of targets.  block_rows: rows that are read at
    once, by default 1 MiB of float32 or a 256th of all.  window_rows: rows that are shuffled together, by default
    64 MiB of float32.  classes: see `StreamDataset`.

    Raises DataError for files that cannot be read or do not fit together. The rows are checked when they are read.
    """
    target = str(y) if isinstance(y, Path) else np.asanyarray(y) if np.ndim(y) else y
    if isinstance(x, str | Path):
        reader = open_row_reader(x, target)
    else:
        reader = ArrayRowReader("x", np.asanyarray(x), np.asanyarray(y))
    return StreamDataset.from_reader(reader, block_rows=block_rows, window_rows=window_rows, classes=classes)
