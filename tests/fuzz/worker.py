"""The process that reads the inputs of one format, and the limits that it enforces."""

import os
import resource
import signal
import sys
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from gpu_nn.data import read
from gpu_nn.errors import DataError
from tests.data.files import live_pickle
from tests.fuzz.formats import Format

# Indices of the shared counts.
INPUT, READ, REFUSED, SECONDS, MEMORY = range(5)

# Limits for one input: CPU seconds, and bytes of memory. IDX files are read in blocks of 16 MiB.
_MOST_SECONDS = 1.0
_MOST_MEMORY = 64 << 20

# Limit of the address space beyond what the process has at its start.
_MOST_ADDRESSES = 1 << 30

# The longest message that counts as a line.
_LONGEST_MESSAGE = 2000

# Audit events that a reader must not cause.
_FORBIDDEN = ("pickle.", "subprocess.", "socket.", "os.system", "os.exec", "os.posix_spawn", "os.fork")


class _TooSlow(BaseException):
    pass


class _Executed(BaseException):
    pass


def work(formats: str, name: str, first: int, end: int, folder: str, counts: Any, problems: Connection) -> None:
    """Read the inputs from `first` up to `end` of a format of the module `formats`.

    counts: shared memory, updated after each input. problems: receives a line for each.
    """
    warnings.simplefilter("error")
    np.seterr(all="ignore")  # as the command does
    form: Format = import_module(formats).FORMATS[name]
    watch = _Watch()
    place = Path(folder)
    sign = place / "sign"
    payload = live_pickle(sign)
    for beside, content in form.beside().items():
        (place / beside).parent.mkdir(exist_ok=True)
        (place / beside).write_bytes(content)
    _warm_up(form, place, payload)
    watch.begin()
    for i in range(first, end):
        counts[INPUT] = i
        before = form.beside()
        filed, content = form.input(f"{name} {i}", payload)
        path = place / filed
        path.write_bytes(content)
        was_read, said = _outcome(form, path, watch)
        counts[READ if was_read else REFUSED] += 1
        counts[SECONDS] = max(counts[SECONDS], watch.seconds)
        counts[MEMORY] = max(counts[MEMORY], watch.memory)
        if sign.exists():
            said.append("a pickle was loaded")
            sign.unlink()
        for problem in said:
            problems.send(f"{name} {i}: {problem}")
        if filed in before:
            path.write_bytes(before[filed])
        else:
            path.unlink()
    counts[INPUT] = end
    problems.close()


def _warm_up(form: Format, place: Path, payload: bytes) -> None:
    """Call each reader once: what the first calls import and cache does not count."""
    read(None)
    path = place / form.names[0]
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(form.valid()[0])
    for way in form.reads:
        try:
            way(path)
        except DataError:
            continue
    if before is not None:
        path.write_bytes(before)


def _outcome(form: Format, path: Path, watch: "_Watch") -> tuple[bool, list[str]]:
    """Whether the first reader read the file, and the problems of all."""
    was_read, wrong = [], []
    with watch.kept():
        for way in form.reads:
            try:
                with watch.on():
                    way(path)
                was_read.append(True)
                continue
            except DataError as error:
                complaint = _complaint(error)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                complaint = f"{type(error).__name__}: {error}"
            was_read.append(False)
            if complaint:
                wrong.append(f"{_name(way)}: {complaint[:400]!r}")
    if watch.memory > _MOST_MEMORY:
        wrong.append(f"takes {watch.memory >> 20} MiB")
    return was_read[0], wrong


def _complaint(error: DataError) -> str | None:
    """What is wrong with the error itself; None if nothing."""
    message = str(error)
    if not message.isprintable() or len(message.splitlines()) != 1:
        return f"no printable line: {message!r}"
    if len(message) > _LONGEST_MESSAGE:
        return f"{len(message)} characters: {message}"
    cause: BaseException | None = error
    while cause is not None:
        # Python also raises MemoryError for deeply nested text, which a reader calls damaged.
        if isinstance(cause, MemoryError) and "memory" in message:
            return f"more than {_MOST_ADDRESSES >> 20} MiB asked for: {message}"
        cause = cause.__context__
    return None


def _name(way: Any) -> str:
    return getattr(way, "__name__", "") or getattr(getattr(way, "func", way), "__name__", repr(way))


class _Watch:
    """Limits time and address space, measures memory, and audits what Python calls."""

    def __init__(self) -> None:
        self.seconds, self.memory = 0.0, 0
        self._reading = False

    def begin(self) -> None:
        signal.signal(signal.SIGPROF, self._too_slow)
        sys.addaudithook(self._audit)
        tracemalloc.start()
        size = _status("VmSize")
        if size:
            resource.setrlimit(resource.RLIMIT_AS, (size + _MOST_ADDRESSES, resource.RLIM_INFINITY))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Measure the peak memory within: allocated through Python, or resident in the process."""
        resident = _forget_the_peak()
        tracemalloc.reset_peak()
        held = tracemalloc.get_traced_memory()[0]
        self.seconds = 0.0
        yield
        used = _status("VmHWM") - resident if resident else 0
        self.memory = max(tracemalloc.get_traced_memory()[1] - held, used)

    @contextmanager
    def on(self) -> Iterator[None]:
        began = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, _MOST_SECONDS)
        self._reading = True
        try:
            yield
        finally:
            self._reading = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.seconds = max(self.seconds, time.process_time() - began)

    def _too_slow(self, signum: int, frame: FrameType | None) -> None:
        raise _TooSlow(f"more than {_MOST_SECONDS} seconds")

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._reading:
            return
        if event.startswith(_FORBIDDEN):
            raise _Executed(event)
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise _Executed(f"open {arguments[0]} to write")


def _forget_the_peak() -> int:
    """Reset the system's peak memory; the bytes resident now, or 0 where the system has no such file."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _status("VmRSS")


def _status(name: str) -> int:
    """A field of /proc/self/status in bytes; 0 where there is none."""
    try:
        with open("/proc/self/status") as file:
            return next((1024 * int(line.split()[1]) for line in file if line.startswith(f"{name}:")), 0)
    except OSError:
        return 0
