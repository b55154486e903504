"""npy files: one array. Pickled objects are never read."""

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
from gpu_nn.files import reading

NPY_MAGIC = npy.MAGIC_PREFIX

# NumPy refuses longer headers too, but allocates memory for them first.
_MAX_HEADER_BYTES = 10_000

# The most elements of an array of 0 bytes (empty rows or texts): its header can claim any number.
_MAX_EMPTY_ELEMENTS = 1 << 20

# What NumPy's reader raises for damaged files.
INVALID_NPY = (OSError, EOFError, ValueError, SyntaxError, RuntimeError, TokenError, OverflowError)
_INVALID = {"is not an npy file that can be read": INVALID_NPY}


def read_npy(path: Path) -> np.ndarray:
    """The array in the file. Raises DataError for a file that is not an npy file, damaged, or of pickled objects."""
    with reading(path, _INVALID), path.open("rb") as file:
        shape, dtype, _ = _checked_header(path, file)
        file.seek(0)
        check_fits(path, math.prod(shape) * dtype.itemsize)
        return read_array(file)


class NpyReader:
    """The array in a file, (n, …): `reader[start:stop]` reads these rows.

    It reads instead of mapping the file: a file that is truncated meanwhile raises an error, where access to its mapped
    pages would kill the process.
    """

    def __init__(self, path: Path):
        """Raises DataError as `read_npy` does."""
        self.path = path
        with reading(path, _INVALID):
            self._file = path.open("rb", buffering=0)
            finalize(self, self._file.close)
            self.shape, self.dtype, self._fortran_order = _checked_header(path, self._file)
        self.ndim = len(self.shape)
        self._data_offset = self._file.tell()
        self._buffer = np.empty(0, np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def reopen(self) -> "NpyReader":
        """A reader of the same file for another thread. Raises DataError where the file was replaced by another."""
        reader = NpyReader(self.path)
        if (reader.shape, reader.dtype) != (self.shape, self.dtype):
            raise DataError(f"{self.path} was changed while it was read")
        return reader

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows start … stop-1, (rows, …), valid until the next read."""
        n, width, size = rows.stop - rows.start, math.prod(self.shape[1:]), self.dtype.itemsize
        if len(self._buffer) < n * width * size:
            self._buffer = np.empty(n * width * size, np.uint8)
        content = self._buffer[: n * width * size]
        if not self._fortran_order:
            self._read(self._data_offset + rows.start * width * size, content)
            return content.view(self.dtype).reshape(n, *self.shape[1:])
        for column, part in enumerate(content.reshape(width, n * size)):
            self._read(self._data_offset + (column * len(self) + rows.start) * size, part)
        return content.view(self.dtype).reshape(n, *self.shape[1:], order="F")

    def _read(self, offset: int, out: np.ndarray) -> None:
        remaining = out.data
        with reading(self.path):
            self._file.seek(offset)
            while remaining:
                count = self._file.readinto(remaining)
                if not count:
                    raise DataError(f"{self.path} was cut short while it was read")
                remaining = remaining[count:]

    def will_need(self, start: int, stop: int) -> None:
        """Let the system read these rows into its page cache."""
        self._advise(start, stop, "POSIX_FADV_WILLNEED")

    def release(self, start: int, stop: int) -> None:
        """Let the system drop these rows from its page cache."""
        self._advise(start, stop, "POSIX_FADV_DONTNEED")

    def _advise(self, start: int, stop: int, advice: str) -> None:
        if hasattr(os, "posix_fadvise") and not self._fortran_order:
            row = math.prod(self.shape[1:]) * self.dtype.itemsize
            with suppress(OSError):
                offset, length = self._data_offset + start * row, (stop - start) * row
                os.posix_fadvise(self._file.fileno(), offset, length, getattr(os, advice))


def _checked_header(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, bool]:
    shape, dtype, fortran_order = read_header(path, file)
    n_bytes = path.stat().st_size - file.tell()
    check_size(path, shape, dtype, n_bytes, n_bytes)
    return shape, dtype, fortran_order


def read_header(source: object, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape, dtype, and whether the array is in Fortran order; the file's position is then at the array's data.

    Raises DataError for pickled objects, and one of INVALID_NPY for a header that is not of an npy file.
    """
    version = npy.read_magic(file)
    read, width = (npy.read_array_header_1_0, 2) if version == (1, 0) else (npy.read_array_header_2_0, 4)
    length = file.read(width)
    size = int.from_bytes(length, "little")
    if size > _MAX_HEADER_BYTES:
        raise ValueError(f"its header says that it has {size} bytes; it is damaged")
    try:
        with _without_warnings():
            shape, fortran_order, dtype = read(BytesIO(length + file.read(size)))
    except MemoryError:
        # Python's parser raises it for deeply nested text.
        raise ValueError("its header is damaged") from None
    if dtype.hasobject:
        raise DataError(f"{source} holds pickled objects, which are refused; save it as numbers or strings")
    return shape, dtype, fortran_order


def read_array(file: IO[bytes]) -> np.ndarray:
    """The array in the open file, after `check_size` of its header."""
    with _without_warnings():
        return npy.read_array(file, allow_pickle=False)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """NumPy warns of files written by Python 2, and Python of escapes in a header; such files are valid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_size(source: object, shape: tuple[int, ...], dtype: np.dtype, at_most: int, at_least: int = 0) -> None:
    """Raises DataError where an array of this shape and dtype does not have from `at_least` to `at_most` bytes."""
    n_bytes = math.prod(shape) * dtype.itemsize
    too_many_empty = n_bytes == 0 and math.prod(size or 1 for size in shape) > _MAX_EMPTY_ELEMENTS
    if min(shape, default=0) < 0 or n_bytes > at_most or too_many_empty:
        raise DataError(f"{source} says {shape} of {dtype}, more than its bytes; the file is damaged")
    if n_bytes < at_least:
        raise DataError(f"{source} says {shape} of {dtype}, less than its bytes; the file is damaged")
