"""IDX files, the format of MNIST: a magic number with type and rank, the dimensions, then the array's bytes."""

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from gpu_nn.data.memory import max_inflated_bytes
from gpu_nn.errors import DataError
from gpu_nn.files import reading

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file, compressed with gzip or not. Raises DataError for a file that is not one."""
    with reading(path, {"cannot be read": (EOFError, zlib.error)}), path.open("rb") as file:
        if file.peek(2)[:2] == GZIP_MAGIC:
            with gzip.open(file) as unpacked:
                return _read_array(path, cast(BinaryIO, unpacked), max_inflated_bytes(path))
        return _read_array(path, file, path.stat().st_size)


def _read_array(path: Path, file: BinaryIO, max_bytes: int) -> np.ndarray:
    """The array in the open file, which holds at most `max_bytes`."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not 1 <= magic[3] <= 8:
        raise DataError(f"{path} is not an IDX file: it begins with {magic.hex(' ')}, expected 00 00 type rank")
    rank = magic[3]
    header = file.read(4 * rank)
    if len(header) < 4 * rank:
        raise DataError(f"{path} ends within its header; it is cut short")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4"))
    dtype = np.dtype(_TYPES[magic[2]])
    n_bytes = math.prod(shape) * dtype.itemsize
    header_says = f"{path} says {'×'.join(map(str, shape))}, {n_bytes} bytes, but"
    if n_bytes > max_bytes:
        raise DataError(f"{header_says} cannot hold more than {max_bytes}; it is cut short or damaged")
    # In chunks, so that a damaged header does not allocate memory that the file cannot fill.
    body = bytearray()
    while len(body) <= n_bytes and (chunk := file.read(1 << 24)):
        body += chunk
    if len(body) != n_bytes:
        raise DataError(f"{header_says} holds {'more' if len(body) > n_bytes else len(body)}; it is not whole")
    try:
        array = np.frombuffer(body, dtype).reshape(shape)
    except ValueError:
        # One dimension is 0, and the product of the others overflows NumPy's index type.
        raise DataError(f"{header_says} no array has such dimensions; it is damaged") from None
    return array.astype(dtype.newbyteorder("="), copy=False)


def read_idx_folder(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{"train": (images, labels), "t10k": …}: the pairs of files, by the part of their names before "-images"."""
    pairs = {}
    labels = _files(folder, "-labels")
    for name, path in _files(folder, "-images").items():
        if name not in labels:
            raise DataError(f"{folder} holds {path.name}, but no {name}-labels file")
        x, y = read_idx(path), read_idx(labels[name])
        if y.shape != (len(x),):
            raise DataError(f"{path} has {len(x)} images, {labels[name].name} is {y.shape}; expected a label each")
        pairs[name] = x, y
    return pairs


def read_idx_images(folder: Path) -> dict[str, np.ndarray]:
    """The images of a folder, by the part of their files' names before "-images". Labels are optional."""
    return {name: read_idx(path) for name, path in _files(folder, "-images").items()}


def _files(folder: Path, kind: str) -> dict[str, Path]:
    """The files with `kind` in their name, by what precedes it. Of a compressed and a plain file one is taken."""
    found = {path.name.partition(kind)[0]: path for path in sorted(folder.glob(f"*{kind}*idx*")) if path.is_file()}
    if not found and kind == "-images":
        raise DataError(f"{folder} holds no IDX images; expected files such as train-images-idx3-ubyte.gz")
    return found
