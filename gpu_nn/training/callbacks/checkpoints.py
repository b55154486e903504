"""Saves checkpoints during a training."""

import os
import time
from pathlib import Path
from typing import Any, ClassVar

from gpu_nn.errors import DataError
from gpu_nn.training import checkpoint
from gpu_nn.training.callbacks.callback import Callback, TrainerView, Trigger
from gpu_nn.validation import check_int

# A checkpoint by the clock waits for this many times the seconds that the last one took: less than 1 % of the time.
_REST = 100


class Checkpoints(Callback):
    """Saves the whole state of the training in `folder`, for `Trainer.fit(..., resume=folder)`.

    every: when to save; by the clock, saving takes less than 1 % of the time, and waits longer than asked for if it
    must. keep: the number of newest checkpoints that stay; older ones are removed when a new one is whole. An
    interrupted training (`Trainer.interrupt`) saves one more.

    Raises DataError when a fit that does not resume from the folder finds checkpoints in it, and when one cannot be
    written; older ones then stay whole.
    """

    last: ClassVar[bool] = True

    def __init__(self, folder: str | os.PathLike[str], every: Trigger | None = None, *, keep: int = 2):
        self.folder = Path(folder)
        self.every = every or Trigger(epochs=1)
        self.keep = check_int("keep", keep, 1)
        self._is_ours = False
        self._seconds = self._saved_at = 0.0

    def found(self) -> Path | None:
        """The folder if it holds checkpoints, else None: fit(..., resume=checkpoints.found()) starts or resumes."""
        return self.folder if checkpoint.list_checkpoints(self.folder) else None

    def begin(self, trainer: TrainerView) -> None:
        resumed = trainer.resumed_from
        # This callback, or the one that it is a copy of, may have belonged to another training.
        continues = self._is_ours and (len(trainer.history) > 0 or trainer.optimizer.steps > 0)
        continues = continues or (resumed is not None and resumed.resolve().parent == self.folder.resolve())
        if not continues and checkpoint.list_checkpoints(self.folder):
            hint = f"resume={str(self.folder)!r} resumes it; choose another folder, or empty this one"
            raise DataError(f"{self.folder} holds the checkpoints of another training: {hint}")
        self._is_ours = True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Temporary files of a process that was killed.
            for temporary in self.folder.glob(".steps-*"):
                temporary.unlink()
        except OSError as error:
            raise DataError(f"cannot write in {self.folder}: {error.strerror or error}") from error

    def __call__(self, trainer: TrainerView, record: Any) -> None:
        is_resting = time.monotonic() - self._saved_at < _REST * self._seconds
        if not (self.every.seconds and is_resting):
            self.save(trainer)

    def end(self, trainer: TrainerView) -> None:
        if trainer.interrupted:
            self.save(trainer)

    def save(self, trainer: TrainerView) -> Path:
        """Save now, between two steps; returns the file."""
        began = time.monotonic()
        steps = trainer.optimizer.steps
        path = self.folder / checkpoint.file_name(steps)
        checkpoint.write(path, *trainer.state_dict())
        kept = 0
        for other, older in checkpoint.list_checkpoints(self.folder).items():
            # Later steps belong to a run that was killed; this one makes them again.
            kept += other <= steps
            if other > steps or kept > self.keep:
                older.unlink(missing_ok=True)
        self._saved_at = time.monotonic()
        self._seconds = self._saved_at - began
        return path
