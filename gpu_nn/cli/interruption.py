"""SIGINT and SIGTERM: a training finishes its step; anything else ends at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu_nn.training import Trainer


class Interrupted(KeyboardInterrupt):
    """The command was asked to end by the signal `signum`."""

    def __init__(self, signum: int, message: str = "interrupted"):
        super().__init__(message)
        self.signum = signum


class Interruption:
    """While `caught`, signals raise Interrupted, or, during `training`, end the fit after the step at work.

    signum: of the signal that came, 0 before. A second SIGINT ends a training at once; a second SIGTERM is nothing new,
    as schedulers send several.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._trainer: Trainer | None = None

    @contextmanager
    def caught(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            # Only the main thread may handle signals.
            yield
            return
        before = {signum: signal.signal(signum, self._came) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    @contextmanager
    def training(self, trainer: "Trainer") -> Iterator[None]:
        """A fit of `trainer`. Raises Interrupted afterwards when a signal came."""
        self._trainer = trainer
        try:
            yield
        finally:
            self._trainer = None
        if self.signum:
            raise Interrupted(self.signum)

    def _came(self, signum: int, frame: Any) -> None:
        again = signum == self.signum == signal.SIGINT
        self.signum = signum
        if self._trainer is None or again:
            raise Interrupted(signum)
        self._trainer.interrupt()
