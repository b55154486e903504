"""npz files with arrays x and y, and optionally x_test and y_test."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from gpu_nn.data.memory import max_inflated_bytes
from gpu_nn.data.npy import INVALID_NPY, check_size, read_array, read_header
from gpu_nn.errors import DataError
from gpu_nn.files import reading

_NAMES = ("x", "y", "x_test", "y_test")
_INVALID = {"is not an npz file with arrays x and y that can be read": (*INVALID_NPY, zipfile.BadZipFile, zlib.error)}


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of those names (in upper or lower case) that the file holds. Pickled objects are never read.

    Raises DataError for a file that is not an npz file, is damaged, or holds pickled objects.
    """
    with reading(path, _INVALID), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy").lower(): info for info in archive.infolist()}
        return {name: _read_member(path, name, archive, members[name]) for name in _NAMES if name in members}


def _read_member(path: Path, name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """The array, after its header was compared with the number of bytes stored."""
    name = f"{path}: {name}"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{name} is packed in a way that numpy.savez does not use; save it anew")
    with archive.open(info) as member:
        shape, dtype, _ = read_header(name, member)
        check_size(name, shape, dtype, min(info.file_size, max_inflated_bytes(path)) - member.tell())
    with archive.open(info) as member:
        array = read_array(member)
        # Reading to the end makes zipfile compare the checksum.
        if member.read(1):
            raise DataError(f"{name} says {shape} of {dtype}, less than its bytes; the file is damaged")
    return array
