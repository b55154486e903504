"""SIGINT and SIGTERM: a training stops after its current step; every other command stops at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu_nn.training import Trainer


class Interrupted(KeyboardInterrupt):
    """The signal `signum` stopped the command."""

    def __init__(self, signum: int, message: str = "interrupted"):
        super().__init__(message)
        self.signum = signum


class SignalHandler:
    """While `installed`, a signal raises Interrupted or, during `training`, stops the fit after the current step.

    signum: the signal that arrived, 0 before. A second SIGINT stops a training at once; a second SIGTERM has no effect,
    because schedulers send several.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._trainer: Trainer | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            # Python lets only the main thread handle signals.
            yield
            return
        previous = {signum: signal.signal(signum, self._handle) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)

    @contextmanager
    def training(self, trainer: "Trainer") -> Iterator[None]:
        """A fit of `trainer`. Raises Interrupted afterwards when a signal arrived."""
        self._trainer = trainer
        try:
            yield
        finally:
            self._trainer = None
        if self.signum:
            raise Interrupted(self.signum)

    def _handle(self, signum: int, frame: Any) -> None:
        is_second_sigint = signum == self.signum == signal.SIGINT
        self.signum = signum
        if self._trainer is None or is_second_sigint:
            raise Interrupted(signum)
        self._trainer.interrupt()
