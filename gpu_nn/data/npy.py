"""npy files: one array. Pickled objects are refused, never read."""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import IO
from weakref import finalize

import numpy as np
from numpy.lib import format as npy

from gpu_nn.data.memory import check_fits
from gpu_nn.errors import DataError

MAGIC = npy.MAGIC_PREFIX

# NumPy reads no longer headers, but asks for their memory first.
_LONGEST_HEADER = 10_000

# What takes no bytes, empty rows or texts without a character, may be so many; a header can say any number of them.
_MOST_OF_NOTHING = 1 << 20

# What NumPy's reader raises for files that are damaged or made by nobody.
UNREADABLE = (OSError, EOFError, ValueError, SyntaxError, RuntimeError, TokenError, OverflowError)


def read_npy(path: Path) -> np.ndarray:
    """The array in the file."""
    with _errors(path), path.open("rb") as file:
        shape, dtype, _ = _checked_header(path, file)
        file.seek(0)
        check_fits(path, math.prod(shape) * dtype.itemsize)
        return array(file)


class NpyReader:
    """The array in a file, (n, …), of which `rows[start:stop]` reads what is asked for.

    By plain reads: a file that is cut short meanwhile is an error, where one that is mapped would end the process.
    """

    def __init__(self, path: Path):
        """Raises DataError as `read_npy` does."""
        self.path = path
        with _errors(path):
            self._file = path.open("rb", buffering=0)
            finalize(self, self._file.close)
            self.shape, self.dtype, self._by_column = _checked_header(path, self._file)
        self.ndim = len(self.shape)
        self._begin = self._file.tell()
        self._buffer = np.empty(0, np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def reopen(self) -> "NpyReader":
        """The same for another thread."""
        again = NpyReader(self.path)
        if (again.shape, again.dtype) != (self.shape, self.dtype):
            raise DataError(f"{self.path} was changed while it was read")
        return again

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows start … stop-1, (rows, …), good until the next ones are asked for."""
        n, width, size = rows.stop - rows.start, math.prod(self.shape[1:]), self.dtype.itemsize
        if len(self._buffer) < n * width * size:
            self._buffer = np.empty(n * width * size, np.uint8)
        content = self._buffer[: n * width * size]
        if not self._by_column:
            self._read(self._begin + rows.start * width * size, content)
            return content.view(self.dtype).reshape(n, *self.shape[1:])
        for column, part in enumerate(content.reshape(width, n * size)):
            self._read(self._begin + (column * len(self) + rows.start) * size, part)
        return content.view(self.dtype).reshape(n, *self.shape[1:], order="F")

    def _read(self, begin: int, out: np.ndarray) -> None:
        left = out.data
        try:
            self._file.seek(begin)
            while left:
                count = self._file.readinto(left)
                if not count:
                    raise DataError(f"{self.path} was cut short while it was read")
                left = left[count:]
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}") from None

    def prefetch(self, start: int, stop: int) -> None:
        """These rows will be read soon."""
        self._advise(start, stop, "POSIX_FADV_WILLNEED")

    def release(self, start: int, stop: int) -> None:
        """These rows need not stay in the system's memory."""
        self._advise(start, stop, "POSIX_FADV_DONTNEED")

    def _advise(self, start: int, stop: int, advice: str) -> None:
        if hasattr(os, "posix_fadvise") and not self._by_column:
            row = math.prod(self.shape[1:]) * self.dtype.itemsize
            with suppress(OSError):
                begin, length = self._begin + start * row, (stop - start) * row
                os.posix_fadvise(self._file.fileno(), begin, length, getattr(os, advice))


def _checked_header(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, bool]:
    shape, dtype, by_column = header(path, file)
    body = path.stat().st_size - file.tell()
    check_whole(path, shape, dtype, body, body)
    return shape, dtype, by_column


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """What reading the file raises as DataError."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except MemoryError:
        raise DataError(f"{path} does not fit in memory") from None
    except UNREADABLE as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{path} is not an npy file that can be read: {reason}") from None


def header(source: object, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape, type, and whether the array stands column by column; the file is then where the array begins.

    Raises DataError for objects, and what is in UNREADABLE for what is no npy file.
    """
    version = npy.read_magic(file)
    read, width = (npy.read_array_header_1_0, 2) if version == (1, 0) else (npy.read_array_header_2_0, 4)
    length = file.read(width)
    size = int.from_bytes(length, "little")
    if size > _LONGEST_HEADER:
        raise ValueError(f"its header says that it has {size} bytes; it is damaged")
    try:
        with _without_warnings():
            shape, fortran, dtype = read(BytesIO(length + file.read(size)))
    except MemoryError:
        # Python's answer to text that is nested too deep.
        raise ValueError("its header is damaged") from None
    if dtype.hasobject:
        raise DataError(f"{source} holds pickled objects, which are refused; save it as numbers or strings")
    return shape, dtype, fortran


def array(file: IO[bytes]) -> np.ndarray:
    """The array in the open file, whose header was held against its bytes."""
    with _without_warnings():
        return npy.read_array(file, allow_pickle=False)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """NumPy warns of files that Python 2 wrote, and Python of text in a header; both are read as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_whole(source: object, shape: tuple[int, ...], dtype: np.dtype, at_most: int, at_least: int = 0) -> None:
    """Raises DataError for a header that says other numbers of bytes."""
    wanted = math.prod(shape) * dtype.itemsize
    nothing = wanted == 0 and math.prod(size or 1 for size in shape) > _MOST_OF_NOTHING
    if min(shape, default=0) < 0 or wanted > at_most or nothing:
        raise DataError(f"{source} says {shape} of {dtype}, more than its bytes; the file is damaged")
    if wanted < at_least:
        raise DataError(f"{source} says {shape} of {dtype}, less than its bytes; the file is damaged")
