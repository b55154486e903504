"""Files: written as a whole or not at all, and read with errors that name the file."""

import json
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np

from gpu_nn.errors import DataError, MissingFile, OutOfDeviceMemory


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A temporary file to write, which takes the place of `path` once all of it is on the disk.

    Raises DataError when it cannot be written; on any error `path` stays as it was.
    """
    path = Path(path)
    temporary = None
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with open(descriptor, "wb") as file:
            yield file
            fsync(file)
        os.umask(umask := os.umask(0))  # there is no call that only reads it
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def fsync(file: BinaryIO) -> None:
    """Flush the file and wait until its content is on the disk. Raises OSError when the disk is full."""
    file.flush()
    os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Wait until the folder's list of files is on the disk, where the file system supports that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def reading(
    path: object,
    invalid: Mapping[str, tuple[type[Exception], ...]] = MappingProxyType({}),
    damaged: type[DataError] = DataError,
) -> Iterator[None]:
    """A context that turns what reading the file `path` raises into errors that name the file.

    invalid: messages, and the exceptions by which the reader of the content says so: `damaged` is raised with
    "{path} {message}: {reason}". The first entry that matches is used. DataError and OutOfDeviceMemory pass unchanged.

    Raises MissingFile for a file that does not exist, DataError for one that the system cannot read or that does not
    fit in memory, `damaged` for what `invalid` lists.
    """
    try:
        yield
    except (DataError, OutOfDeviceMemory):
        raise
    except FileNotFoundError:
        raise MissingFile(f"{path} does not exist") from None
    except MemoryError:
        raise DataError(f"{path} does not fit in memory") from None
    except Exception as error:  # any: the caller says which types mean a damaged file; all others are raised again
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        for message, types in invalid.items():
            if isinstance(error, types):
                raise damaged(f"{path} {message}: {_reason(error)}") from None
        if isinstance(error, OSError):
            raise DataError(f"{path} cannot be read: {error}") from None
        raise


def _reason(error: Exception) -> str:
    if type(error) is KeyError:
        return f"{error} is missing"
    return next(iter(str(error).splitlines()), type(error).__name__)


def write_safetensors(file: BinaryIO, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whose bytes depend on the arrays and the metadata alone.

    The safetensors package orders the metadata at random; here the header's keys are sorted.
    """
    from safetensors.numpy import save as to_bytes

    content = to_bytes(dict(arrays), dict(metadata))
    start = 8 + struct.unpack_from("<Q", content)[0]
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # keeps the arrays aligned
    file.write(struct.pack("<Q", len(header)) + header)
    file.write(memoryview(content)[start:])
