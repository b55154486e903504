"""The protocol of callbacks: when they are called, with what, and what they save for a training that resumes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from gpu_nn.network import Network
from gpu_nn.optimizers import Optimizer
from gpu_nn.training.history import History, StepRecord
from gpu_nn.validation import POSITIVE, is_int


@dataclass(frozen=True)
class Trigger:
    """Fires after every `epochs` epochs, after every `steps` optimizer steps, or once `seconds` have passed.

    Exactly one of the three is given. Epochs and steps count from the beginning of the training, seconds from the
    latest call or from the beginning of `fit`. Raises ValueError for anything else.
    """

    epochs: int = 0
    steps: int = 0
    seconds: float = 0

    def __post_init__(self) -> None:
        given = [value for value in (self.epochs, self.steps, self.seconds) if value]
        whole = is_int(self.epochs) and is_int(self.steps)
        if not (len(given) == 1 and given[0] in POSITIVE and whole):
            raise ValueError(f"{self!r}; expected one of epochs (whole), steps (whole), seconds, above 0")

    def __str__(self) -> str:
        return next(f"{value} {name}" for name, value in vars(self).items() if value)


class TrainerView(Protocol):
    """What a callback may use of a Trainer.

    stopping: set it to True to end the training after the current epoch.  interrupted: whether the fit ends to be
    resumed.  resumed_from: the file of the checkpoint that the fit resumed from.  data: the fingerprints of the data,
    "training" and "validation" (None without validation).
    """

    net: Network
    optimizer: Optimizer
    history: History
    stopping: bool
    interrupted: bool
    resumed_from: Path | None
    data: dict[str, Any]
    batch_size: int

    def interrupt(self) -> None:
        """End the fit after the current step, for a later one that resumes."""

    def latest_loss(self) -> float:
        """The mean cost of the latest step's batch. On a GPU this waits for the device."""

    def step_record(self) -> StepRecord:
        """Where the training is, between two steps."""

    def state_dict(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The JSON and the arrays of a checkpoint of this moment. On a GPU this waits for the device."""


class Callback:
    """The base class of what a Trainer calls.

    A subclass implements `__call__` and, unless it is called after every epoch, sets the trigger `every`. It saves and
    restores what it remembers in `state` and `load_state`, so that a training resumes from a checkpoint as if it had
    not stopped. A plain function callback(trainer, record) is called after every epoch.

    Order in a fit: `begin`; `load_state` when the fit resumes; the calls; `end`; `close`. Callbacks that are due at the
    same time are called in the order of `Trainer.callbacks`, those with `last` after all others, and closed in reverse
    order. An exception of any of these methods ends the training, with a note that names the callback and the method.
    """

    every: Trigger = Trigger(epochs=1)
    # Set by a callback that saves the states of all others.
    last: ClassVar[bool] = False

    def __call__(self, trainer: TrainerView, record: Any) -> None:
        """record: an `EpochRecord` when called after epochs, else a `StepRecord`.

        It may set `trainer.stopping = True` to end the training after the current epoch.
        """
        raise NotImplementedError

    def begin(self, trainer: TrainerView) -> None:
        """A fit begins. When it resumes, history, parameters and optimizer are already those of the checkpoint."""

    def end(self, trainer: TrainerView) -> None:
        """A fit ends without an exception."""

    def close(self) -> None:
        """The fit that called `begin` is over, with an exception or without. Releases files, threads and memory."""

    def state(self) -> dict[str, Any]:
        """What to save, by name: values that JSON represents, and arrays of at least 1-D (NumPy's when loaded)."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
