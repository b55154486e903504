"""Where work for the device goes: it is done at once, or recorded for a graph that is replayed later.

`watched()` lists what comes by, either way; a launch is told by its kernel, grid, block and arrays.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import EmulatorError


class Place:
    """Where an array lies, without keeping it alive: as little as a graph knows of it."""

    def __init__(self, array: np.ndarray):
        root = array
        while isinstance(root.base, np.ndarray):
            root = root.base
        self.shape, self.strides, self.dtype, self.nbytes = array.shape, array.strides, array.dtype, array.nbytes
        self._root, self._writable = weakref.ref(root), array.flags.writeable
        self.address = _address(array)
        self._offset = self.address - _address(root)

    def array(self) -> np.ndarray:
        """The array again. Raises EmulatorError when its memory was freed."""
        root = self._root()
        if root is None:
            raise EmulatorError(f"memory of an array {self.shape} of {self.dtype} was freed, and a graph still uses it")
        if not self.nbytes:
            return np.empty(self.shape, self.dtype)
        memory = root.reshape(-1).view(np.uint8)
        made: np.ndarray = np.ndarray(self.shape, self.dtype, memory, self._offset, self.strides)
        made.flags.writeable = self._writable
        return made


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


@dataclass(frozen=True)
class Work:
    """What the device is asked to do. do: takes the arguments, in which arrays are NumPy's.

    grid, block: empty for what is no kernel of cuda_src, such as a matrix product.
    """

    name: str
    arguments: tuple[Any, ...]
    do: Callable[..., None]
    grid: tuple[int, ...] = ()
    block: tuple[int, ...] = ()

    def now(self) -> None:
        self.do(*(argument.array() if isinstance(argument, Place) else argument for argument in self.arguments))

    def without_arrays(self) -> "Work":
        """The same, with the places of its arrays for the arrays."""
        places = (Place(argument) if isinstance(argument, np.ndarray) else argument for argument in self.arguments)
        return Work(self.name, tuple(places), self.do, self.grid, self.block)


class Recording:
    """What is captured of a stream. invalid: what broke it, empty while it is whole."""

    def __init__(self) -> None:
        self.works: list[Work] = []
        self.invalid = ""


recording: Recording | None = None  # of the current stream
_watchers: list[list[Work]] = []


def submit(work: Work) -> None:
    """Do it, or record it where the current stream is being captured."""
    if _watchers or recording is not None:
        known = work.without_arrays()
        for watcher in _watchers:
            watcher.append(known)
        if recording is not None:
            recording.works.append(known)
            return
    work.now()


def refuse_in_capture(what: str) -> None:
    """What CUDA does not take while a stream is being captured; the capture is spoiled by it."""
    if recording is not None:
        recording.invalid = what
        raise EmulatorError(f"cudaErrorStreamCaptureUnsupported: {what} while a stream is being captured")


def replay(works: Sequence[Work]) -> None:
    """Do recorded work, exactly as it was recorded."""
    for work in works:
        for watcher in _watchers:
            watcher.append(work)
        work.now()


@contextmanager
def watched() -> Iterator[list[Work]]:
    """A list that grows by all work that comes by."""
    seen: list[Work] = []
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers[:] = [other for other in _watchers if other is not seen]
