"""npz files with arrays x and y, and, when there are any, x_test and y_test."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from gpu_nn.errors import DataError

_NAMES = ("x", "y", "x_test", "y_test")


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of those names (in either case) that the file holds. Pickled objects are refused, never read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is one npy array; expected an npz file with arrays x and y")
            stored = {name.lower(): name for name in file.files}
            return {name: _array(path, file, stored[name]) for name in _NAMES if name in stored}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not an npz file that can be read: {_reason(error)}") from None


def _array(path: Path, file: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    """The array, once its header has been held against the bytes that are there."""
    try:
        archive = file.zip
        assert archive is not None  # while the file is open
        info = archive.getinfo(f"{name}.npy")
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(member)
            else:
                shape, _, dtype = np.lib.format.read_array_header_2_0(member)
        size = dtype.itemsize
        for length in shape:
            size *= length
        if dtype.hasobject:
            raise DataError(f"{path}: {name} holds pickled objects, which are refused; save it as numbers or strings")
        if size > info.file_size:
            raise DataError(f"{path}: {name} says {shape} of {dtype}, more than its bytes; the file is damaged")
        return np.asarray(file[name])
    except MemoryError:
        raise DataError(f"{path}: {name} does not fit in memory") from None


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
