"""Checkpoints as the training goes."""

import os
import time
from pathlib import Path
from typing import Any, ClassVar

from gpu_nn.errors import DataError
from gpu_nn.training import checkpoint
from gpu_nn.training.callbacks.callback import Callback, TrainerView, Trigger
from gpu_nn.validation import check_int

# A checkpoint by the clock waits for so many times the seconds that the last one took: less than 1 % of the time.
_REST = 100


class Checkpoints(Callback):
    """Saves the whole state of the training in `folder`, for `Trainer.fit(..., resume=folder)`.

    every: when; by the clock they take less than 1 % of the time, and come more rarely than asked for if need be.
    keep: how many of the newest stay; the older go when a new one is whole. One more is saved when the training is
    interrupted (`Trainer.interrupt`).

    A fit that does not resume from the folder begins with an empty one: DataError when it holds checkpoints. DataError
    also when one cannot be written; those that were there stay whole.
    """

    last: ClassVar[bool] = True

    def __init__(self, folder: str | os.PathLike[str], every: Trigger | None = None, *, keep: int = 2):
        self.folder = Path(folder)
        self.every = every or Trigger(epochs=1)
        self.keep = check_int("keep", keep, 1)
        self._is_ours = False
        self._seconds = self._saved_at = 0.0

    def found(self) -> Path | None:
        """`folder` where it holds checkpoints, else None: fit(..., resume=checkpoints.found()) begins or resumes."""
        return self.folder if checkpoint.written_in(self.folder) else None

    def begin(self, trainer: TrainerView) -> None:
        resumed = trainer.resumed_from
        # This callback, or what it is a copy of, may have been in another training before.
        goes_on = self._is_ours and (len(trainer.history) > 0 or trainer.optimizer.steps > 0)
        goes_on = goes_on or (resumed is not None and resumed.resolve().parent == self.folder.resolve())
        if not goes_on and checkpoint.written_in(self.folder):
            hint = f"resume={str(self.folder)!r} goes on with it; choose another folder, or empty this one"
            raise DataError(f"{self.folder} holds the checkpoints of another training: {hint}")
        self._is_ours = True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # What a write that was broken off left.
            for half in self.folder.glob(".steps-*"):
                half.unlink()
        except OSError as error:
            raise DataError(f"cannot write in {self.folder}: {error.strerror or error}") from error

    def __call__(self, trainer: TrainerView, record: Any) -> None:
        rests = time.monotonic() - self._saved_at < _REST * self._seconds
        if not (self.every.seconds and rests):
            self.save(trainer)

    def end(self, trainer: TrainerView) -> None:
        if trainer.interrupted:
            self.save(trainer)

    def save(self, trainer: TrainerView) -> Path:
        """Save now; returns the file. For between two steps."""
        began = time.monotonic()
        steps = trainer.optimizer.steps
        path = self.folder / checkpoint.name(steps)
        checkpoint.write(path, *trainer.state_dict())
        kept = 0
        for other, older in checkpoint.written_in(self.folder).items():
            # Later steps are of a run that was broken, and come again.
            kept += other <= steps
            if other > steps or kept > self.keep:
                older.unlink(missing_ok=True)
        self._saved_at = time.monotonic()
        self._seconds = self._saved_at - began
        return path
