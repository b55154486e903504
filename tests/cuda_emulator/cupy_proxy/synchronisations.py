"""Counts what makes the host wait for the device, and copies from the host to it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..work import refuse_in_capture

_HERE = str(Path(__file__).parent)


class Waits:
    """How often the host waited. ``count`` is the total; ``record()`` collects what happens inside a ``with``."""

    def __init__(self) -> None:
        self.count = 0
        self._recordings: list[list[str]] = []

    def note(self, what: str) -> None:
        refuse_in_capture(what)
        self.count += 1
        if self._recordings:
            entry = f"{what} at {_caller()}"
            for recording in self._recordings:
                recording.append(entry)

    @contextmanager
    def record(self) -> Iterator[list[str]]:
        """A list that grows by an entry "what at file:line" for each one."""
        recording: list[str] = []
        self._recordings.append(recording)
        try:
            yield recording
        finally:
            self._recordings = [other for other in self._recordings if other is not recording]


def _caller() -> str:
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


synchronisations = Waits()
uploads = Waits()
