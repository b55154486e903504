"""IDX files, the format of MNIST: a magic number with type and rank, the dimensions, then the bytes of the array."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from gpu_nn.errors import DataError

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file, compressed with gzip or not; DataError for anything else."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
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
            # Read in pieces: a header that lies must not make us ask for memory that the file cannot fill.
            body = bytearray()
            while len(body) <= wanted and (piece := file.read(1 << 24)):
                body += piece
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if len(body) != wanted:
        some = "more" if len(body) > wanted else len(body)
        raise DataError(f"{path} says {'×'.join(map(str, shape))}, {wanted} bytes, but holds {some}; it is not whole")
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def read_idx_folder(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The pairs of a folder: "train" and "t10k" (or whatever stands before -images), each (images, labels)."""
    pairs = {}
    for images in sorted(folder.glob("*-images*idx*")):
        name = images.name.partition("-images")[0]
        labels = sorted(folder.glob(f"{name}-labels*idx*"))
        if not labels:
            raise DataError(f"{folder} holds {images.name}, but no {name}-labels file")
        x, y = read_idx(images), read_idx(labels[0])
        if y.ndim != 1 or len(x) != len(y):
            raise DataError(f"{images.name} has {len(x)} images, {labels[0].name} is {y.shape}; expected a label each")
        pairs[name] = x.reshape(len(x), -1), y
    if not pairs:
        raise DataError(f"{folder} holds no IDX images; expected files such as train-images-idx3-ubyte.gz")
    return pairs
