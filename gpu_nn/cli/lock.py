"""One process at a time in the folder of a run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gpu_nn.errors import DataError

# A name of our own: what another program has there is not ours to take away.
NAME = ".gpu-nn.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps others that ask for the same out of the folder. Raises DataError when another process is in there.

    The system takes the lock from a process that ends in whatever way; a file that is left holds nobody up. Where the
    system or the file system has no locks, or the folder cannot be written, nobody is kept out.
    """
    path = folder / NAME
    file = _taken(path)
    try:
        yield
    finally:
        if file is not None:
            # While it is held: whoever has opened it meanwhile finds that it is not there any more.
            with suppress(OSError):
                path.unlink()
            os.close(file)


def _taken(path: Path) -> int | None:
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock
    except ImportError:
        return None
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None
        try:
            flock(file, LOCK_EX | LOCK_NB)
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(file)
            raise DataError(f"another process trains in {path.parent}; wait for it, or end it first") from None
        except OSError:
            os.close(file)
            return None
        os.close(file)
