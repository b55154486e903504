"""npy files: one array. Pickled objects are refused, never read."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import IO

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


def read_npy(path: Path, *, mapped: bool = False) -> np.ndarray:
    """The array in the file. mapped: as a read-only view of the file, of which only what is used is read."""
    try:
        with path.open("rb") as file:
            shape, dtype, fortran = header(path, file)
            body = path.stat().st_size - file.tell()
            check_whole(path, shape, dtype, body, body)
            if mapped and body:
                return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")
            file.seek(0)
            check_fits(path, math.prod(shape) * dtype.itemsize)
            return array(file)
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
