"""npz files with arrays x and y, and, when there are any, x_test and y_test."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from gpu_nn.data.compression import max_inflated_bytes
from gpu_nn.data.npy import UNREADABLE, array, check_whole, header
from gpu_nn.errors import DataError

_NAMES = ("x", "y", "x_test", "y_test")


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
    except (*UNREADABLE, zipfile.BadZipFile, zlib.error) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{path} is not an npz file with arrays x and y that can be read: {reason}") from None


def _array(path: Path, archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> np.ndarray:
    """The array, once its header has been held against the bytes that are there."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{path}: {name} is packed in a way that numpy.savez does not use; save it anew")
    with archive.open(info) as member:
        shape, dtype, _ = header(f"{path}: {name}", member)
        check_whole(f"{path}: {name}", shape, dtype, min(info.file_size, max_inflated_bytes(path)) - member.tell())
    with archive.open(info) as member:
        found = array(member)
        # Reading to the end also makes zipfile compare the checksum.
        if member.read(1):
            raise DataError(f"{path}: {name} says {shape} of {dtype}, less than its bytes; the file is damaged")
    return found
