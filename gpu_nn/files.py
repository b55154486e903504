"""Files that are written whole or not at all."""

import json
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gpu_nn.errors import DataError


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that appears under `path` when all of it is on the disk, and not at all otherwise.

    Raises DataError when it cannot be written; what was there before then stays as it was.
    """
    path = Path(path)
    temporary = None
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with open(descriptor, "wb") as file:
            yield file
            fsync(file)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def fsync(file: BinaryIO) -> None:
    """Returns when all that was written to the file is on the disk. Raises OSError when there is no room."""
    file.flush()
    os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_safetensors(file: BinaryIO, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whose bytes follow from the arrays and the metadata.

    safetensors itself writes the metadata in another order each time; here the whole header is in the order of keys.
    """
    from safetensors.numpy import save as to_bytes

    content = to_bytes(dict(arrays), dict(metadata))
    start = 8 + struct.unpack_from("<Q", content)[0]
    text = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # keeps the arrays aligned
    file.write(struct.pack("<Q", len(text)) + text)
    file.write(memoryview(content)[start:])
