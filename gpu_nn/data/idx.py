"""IDX files, the format of MNIST: a magic number with type and rank, the dimensions, then the bytes of the array."""

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from gpu_nn.data.compression import max_inflated_bytes
from gpu_nn.errors import DataError

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP = b"\x1f\x8b"


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file, compressed with gzip or not; DataError for anything else."""
    try:
        with path.open("rb") as file:
            if file.peek(2)[:2] == GZIP:
                with gzip.open(file) as unpacked:
                    return _array(path, cast(BinaryIO, unpacked), max_inflated_bytes(path))
            return _array(path, file, path.stat().st_size)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    except MemoryError:
        raise DataError(f"{path} does not fit in memory") from None


def _array(path: Path, file: BinaryIO, most: int) -> np.ndarray:
    """The array in the open file, which cannot hold more than `most` bytes."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not 1 <= magic[3] <= 8:
        raise DataError(f"{path} is not an IDX file: it begins with {magic.hex(' ')}, expected 00 00 type rank")
    rank = magic[3]
    header = file.read(4 * rank)
    if len(header) < 4 * rank:
        raise DataError(f"{path} ends within its header; it is cut short")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4"))
    dtype = np.dtype(_TYPES[magic[2]])
    wanted = math.prod(shape) * dtype.itemsize
    says = f"{path} says {'×'.join(map(str, shape))}, {wanted} bytes, but"
    if wanted > most:
        raise DataError(f"{says} cannot hold more than {most}; it is cut short or damaged")
    # In pieces: a header that lies must not make us ask for memory that the file does not fill.
    body = bytearray()
    while len(body) <= wanted and (piece := file.read(1 << 24)):
        body += piece
    if len(body) != wanted:
        raise DataError(f"{says} holds {'more' if len(body) > wanted else len(body)}; it is not whole")
    try:
        array = np.frombuffer(body, dtype).reshape(shape)
    except ValueError:
        # One dimension is 0, and the others are more than NumPy counts.
        raise DataError(f"{says} no array has such dimensions; it is damaged") from None
    return array.astype(dtype.newbyteorder("="), copy=False)


def read_idx_folder(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The pairs of a folder: "train" and "t10k" (or whatever stands before -images), each (images, labels)."""
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
    """The images of a folder, by what stands before -images; labels need not be there."""
    return {name: read_idx(path) for name, path in _files(folder, "-images").items()}


def _files(folder: Path, kind: str) -> dict[str, Path]:
    """The files of that kind by what stands before it; one, where a file is there both packed and unpacked."""
    found = {path.name.partition(kind)[0]: path for path in sorted(folder.glob(f"*{kind}*idx*")) if path.is_file()}
    if not found and kind == "-images":
        raise DataError(f"{folder} holds no IDX images; expected files such as train-images-idx3-ubyte.gz")
    return found
