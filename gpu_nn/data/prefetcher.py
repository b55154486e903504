"""Windows of rows, read by one background thread into a buffer that is used again and again."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

import numpy as np

from gpu_nn.cost import check_values
from gpu_nn.data.labels import encode_labels, labels_from_array
from gpu_nn.data.row_readers import RowReader
from gpu_nn.data.sources import checked_inputs
from gpu_nn.errors import DataError

if TYPE_CHECKING:
    from gpu_nn.data.stream import StreamDataset

# The ranges of a reader's rows that are read, in order, and which of all these are of the window, a mask; None for all.
Window = tuple[list[tuple[int, int]], np.ndarray | None]


class Prefetcher:
    """A context in which a thread reads window after window of rows, each while the one before is in use.

    windows: some may have no rows.  x: the buffer, (rows of the largest window, inputs), in whose type the inputs come.
    y: that of the targets, None for y as the reader has it, of windows that have rows.  n_classes: for checked indices
    and targets; None where `y` is None.

    What goes wrong in the thread is raised by `window`. When the context ends, for whatever reason, so does the thread.
    """

    def __init__(
        self,
        stream: "StreamDataset",
        windows: Iterable[Window],
        x: np.ndarray,
        y: np.ndarray | None,
        n_classes: int | None,
    ):
        self._stream, self._windows = stream, windows
        self._x, self._y, self._n_classes = x, y, n_classes
        self._free: SimpleQueue[bool] = SimpleQueue()
        self._full: SimpleQueue[tuple[int, np.ndarray] | BaseException] = SimpleQueue()
        self._closed = False
        self._thread = Thread(target=self._run, name="gpu_nn prefetcher", daemon=True)

    def __enter__(self) -> "Prefetcher":
        self._free.put(True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed = True
        self._free.put(True)
        self._thread.join()

    @contextmanager
    def window(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """A context with the next window, (x, y) in the buffers, which are filled anew when it ends."""
        found = self._full.get()
        if isinstance(found, BaseException):
            raise found
        rows, y = found
        yield self._x[:rows], y
        self._free.put(True)

    def _run(self) -> None:
        try:
            # Numbers too large for the type are found by the checks. The setting is a thread's own.
            with np.errstate(all="ignore"):
                self._read()
        except BaseException as error:
            self._full.put(error)

    def _read(self) -> None:
        reader = self._stream.reader.reopen()
        for ranges, wanted in self._windows:
            for start, stop in ranges:
                reader.prefetch(start, stop)
            self._free.get()
            at, passed, labels = 0, 0, list[np.ndarray]()
            for start, stop in ranges:
                if self._closed:
                    return
                x, y = reader.load(start, stop)
                checked_inputs(reader.name, "x", x, _Cell(reader, start), start)
                if self._n_classes is not None:
                    y = indices(self._stream, y, start, self._n_classes)
                if wanted is not None:
                    chosen = wanted[passed : passed + len(x)]
                    passed += len(x)
                    x, y = x[chosen], y[chosen]
                self._x[at : at + len(x)] = x
                if self._y is None:
                    labels.append(np.array(y))
                else:
                    self._y[at : at + len(x)] = y
                at += len(x)
                reader.release(start, stop)
            self._full.put((at, np.concatenate(labels) if self._y is None else self._y[:at]))


class _Cell:
    """Says where a value of the rows from number `first` on stands."""

    def __init__(self, reader: RowReader, first: int):
        self._source, self._first = reader, first

    def __call__(self, row: int, column: int) -> str:
        return self._source.cell(self._first + row, column)


def indices(stream: "StreamDataset", y: np.ndarray, first: int, n_classes: int) -> np.ndarray:
    """The y of rows from number `first` on as indices of classes or as targets; raises DataError for others."""
    name, classes = stream.reader.name, stream.classes
    if classes is not None:
        numbers = y.dtype.kind in "iufb" and classes.dtype.kind in "iufb"
        if not (numbers and (classes[1:] > classes[:-1]).all()):
            return encode_labels(name, labels_from_array(f"{name}: y", y, first), classes, first)
        places = np.searchsorted(classes, y).clip(max=len(classes) - 1)
        wrong = classes[places] != y
        if wrong.any():
            at = int(wrong.argmax())
            raise DataError(f"{name}: label {y[at]} at row {first + at} is not one of the {len(classes)} classes")
        return places
    if y.ndim == 1 and y.dtype.kind not in "iu":
        raise DataError(f"{name}: y is of {y.dtype}; expected class indices from 0 to {n_classes - 1}, or `classes`")
    try:
        check_values("y", y, n_classes)
    except ValueError as error:
        raise DataError(f"{name}, from row {first} on: {error}") from None
    return y
