"""Faulty readers, which the fuzzer must report: each reads valid files and does something forbidden with others."""

import mmap
import os
import pickle
import signal
import sys
import time
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import numpy as np

from gpu_nn.errors import DataError
from tests.fuzz.formats import Format

_GOOD = b"good"
_PICKLE = pickle.dumps(Path)


def _with_bad_files(fault: Callable[[Path], object]) -> Callable[[Path], object]:
    @wraps(fault)
    def way(path: Path) -> object:
        return path.read_bytes() == _GOOD or fault(path)

    return way


@_with_bad_files
def _hangs(path):
    while True:
        pass


@_with_bad_files
def _asks_for_too_much(path):
    try:
        bytearray(1 << 40)
    except MemoryError:
        raise DataError("it does not fit in memory") from None


@_with_bad_files
def _raises_something_else(path):
    raise KeyError("x")


@_with_bad_files
def _warns(path):
    warnings.warn("something", stacklevel=1)


@_with_bad_files
def _unpickles(path):
    pickle.loads(_PICKLE)


@_with_bad_files
def _writes(path):
    (path.parent / "more").write_text("")


@_with_bad_files
def _starts(path):
    os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {})


@_with_bad_files
def _says_two_lines(path):
    error = DataError("")
    error.args = ("two\nlines",)
    raise error


@_with_bad_files
def _says_too_much(path):
    error = DataError("")
    error.args = ("x" * 5000,)
    raise error


@_with_bad_files
def _takes_memory(path):
    np.empty(20 << 20)


@_with_bad_files
def _takes_memory_of_the_system(path):
    with mmap.mmap(-1, 80 << 20) as pages:
        for at in range(0, len(pages), mmap.PAGESIZE):
            pages[at] = 1


@_with_bad_files
def _dies(path):
    if path.read_bytes() == b"2":
        os.kill(os.getpid(), signal.SIGKILL)


@_with_bad_files
def _sleeps(path):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})
    time.sleep(60)


class _Numbered(Format):
    """The content of an input is its number."""

    def input(self, key, payload):
        return "file", key.rpartition(" ")[2].encode()


def _format(*ways: Callable[[Path], object]) -> Format:
    return _Numbered(lambda: [_GOOD], lambda random: b"", ("file",), ways)


FORMATS = {
    "faults": _format(
        _hangs,
        _asks_for_too_much,
        _raises_something_else,
        _warns,
        _unpickles,
        _writes,
        _starts,
        _says_two_lines,
        _says_too_much,
        _takes_memory,
    ),
    "memory of the system": _format(_takes_memory_of_the_system),
    "dies at its third": _format(_dies),
    "sleeps": _format(_sleeps),
}
