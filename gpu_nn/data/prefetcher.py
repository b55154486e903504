"""Reads windows of rows in a background thread."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread

import numpy as np

from gpu_nn.cost import check_values
from gpu_nn.data.labels import encode_labels, labels_from_array
from gpu_nn.data.row_readers import RowReader
from gpu_nn.data.sources import checked_inputs
from gpu_nn.errors import DataError

# The ranges of the reader's rows to read, in order, and a mask of the rows of these that the window has; None for all.
Window = tuple[list[tuple[int, int]], np.ndarray | None]


class Prefetcher:
    """A context in which a thread reads one window of rows while the previous one is in use. `StreamDataset.prefetch`
    makes it and says what the arguments are.

    `window` raises what goes wrong in the thread. The thread ends with the context, also after an error.
    """

    def __init__(
        self,
        reader: RowReader,
        classes: np.ndarray | None,
        windows: Iterable[Window],
        x: np.ndarray,
        y: np.ndarray | None,
        n_classes: int | None,
    ):
        self._reader, self._classes, self._windows = reader, classes, windows
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
        """A context with the next window, (x, y) in the buffers; the thread overwrites them after the context."""
        found = self._full.get()
        if isinstance(found, BaseException):
            raise found
        rows, y = found
        yield self._x[:rows], y
        self._free.put(True)

    def _run(self) -> None:
        try:
            # The checks find numbers that overflow the dtype. errstate is per thread.
            with np.errstate(all="ignore"):
                self._read()
        except BaseException as error:
            self._full.put(error)

    def _read(self) -> None:
        reader = self._reader.reopen()
        for ranges, mask in self._windows:
            for start, stop in ranges:
                reader.will_need(start, stop)
            self._free.get()
            n_rows, n_read, labels = 0, 0, list[np.ndarray]()
            for start, stop in ranges:
                if self._closed:
                    return
                x, y = reader.load(start, stop)
                checked_inputs(reader.name, "x", x, reader.cell, start)
                if self._n_classes is not None:
                    y = _class_indices(reader.name, self._classes, y, start, self._n_classes)
                if mask is not None:
                    chosen = mask[n_read : n_read + len(x)]
                    n_read += len(x)
                    x, y = x[chosen], y[chosen]
                self._x[n_rows : n_rows + len(x)] = x
                if self._y is None:
                    labels.append(np.array(y))
                else:
                    self._y[n_rows : n_rows + len(x)] = y
                n_rows += len(x)
                reader.release(start, stop)
            self._full.put((n_rows, np.concatenate(labels) if self._y is None else self._y[:n_rows]))


def _class_indices(name: str, classes: np.ndarray | None, y: np.ndarray, first: int, n_classes: int) -> np.ndarray:
    """The y of the rows from `first` on as class indices or targets. Raises DataError for other values."""
    if classes is not None:
        is_numeric = y.dtype.kind in "iufb" and classes.dtype.kind in "iufb"
        if not (is_numeric and (classes[1:] > classes[:-1]).all()):
            return encode_labels(name, labels_from_array(f"{name}: y", y, first), classes, first)
        indices = np.searchsorted(classes, y).clip(max=len(classes) - 1)
        wrong = classes[indices] != y
        if wrong.any():
            at = int(wrong.argmax())
            raise DataError(f"{name}: label {y[at]} at row {first + at} is not one of the {len(classes)} classes")
        return indices
    if y.ndim == 1 and y.dtype.kind not in "iu":
        raise DataError(f"{name}: y is of {y.dtype}; expected class indices from 0 to {n_classes - 1}, or `classes`")
    try:
        check_values("y", y, n_classes)
    except ValueError as error:
        raise DataError(f"{name}, from row {first} on: {error}") from None
    return y
