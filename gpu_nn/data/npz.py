"""npz files with arrays x and y, and, when there are any, x_test and y_test."""

import math
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
from numpy.lib import format as npy

from gpu_nn.data.compression import most_bytes
from gpu_nn.errors import DataError

_NAMES = ("x", "y", "x_test", "y_test")

# What zipfile, zlib and NumPy's reader raise for files that are damaged, encrypted or made by nobody.
_UNREADABLE = (OSError, EOFError, ValueError, SyntaxError, RuntimeError, TokenError, zipfile.BadZipFile, zlib.error)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of those names (in either case) that the file holds. Pickled objects are refused, never read."""
    try:
        with zipfile.ZipFile(path) as archive:
            stored = {info.filename.removesuffix(".npy").lower(): info for info in archive.infolist()}
            return {name: _array(path, archive, name, stored[name]) for name in _NAMES if name in stored}
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except MemoryError:
        raise DataError(f"{path} does not fit in memory") from None
    except _UNREADABLE as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{path} is not an npz file with arrays x and y that can be read: {reason}") from None


def _array(path: Path, archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> np.ndarray:
    """The array, once its header has been held against the bytes that are there."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{path}: {name} is packed in a way that numpy.savez does not use; save it anew")
    with archive.open(info) as member:
        shape, dtype = _header(member)
        body = min(info.file_size, most_bytes(path)) - member.tell()
    if dtype.hasobject:
        raise DataError(f"{path}: {name} holds pickled objects, which are refused; save it as numbers or strings")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > body:
        raise DataError(f"{path}: {name} says {shape} of {dtype}, more than its bytes; the file is damaged")
    with archive.open(info) as member:
        array = npy.read_array(member, allow_pickle=False)
        # Reading to the end also makes zipfile compare the checksum.
        if member.read(1):
            raise DataError(f"{path}: {name} says {shape} of {dtype}, less than its bytes; the file is damaged")
    return array


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = npy.read_magic(member)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        shape, _, dtype = read(member)
    except MemoryError:
        # Python's answer to text that is nested too deep.
        raise ValueError("its header is damaged") from None
    return shape, dtype
