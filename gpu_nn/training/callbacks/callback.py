"""The one protocol of callbacks: when, what, and what to keep for a training that resumes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from gpu_nn.validation import POSITIVE, is_int

if TYPE_CHECKING:
    from gpu_nn.training.trainer import Trainer


@dataclass(frozen=True)
class Trigger:
    """After every `epochs` epochs, or every `steps` optimizer steps, or once `seconds` have passed, between two steps.

    Exactly one of the three; epochs and steps are counted from the beginning of the training, seconds from the latest
    call, or from the beginning of `fit`. Raises ValueError for anything else.
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


class Callback:
    """Something that a Trainer calls.

    Subclasses say what they do in `__call__` and, where it is not every epoch, when: in `every`. What they remember
    goes through `state` and `load_state`, so that a training that resumes from a checkpoint goes on as if unbroken.
    A plain function callback(trainer, record) will do instead; it is called after every epoch.

    Order in a fit: `begin`; `load_state` when it resumes; the calls; `end`; `close`. Callbacks due at one moment are
    called in the order of `Trainer.callbacks`, those that are `last` after all others, and closed the other way round.
    An exception of any of these methods ends the training, with a note that names the callback and the moment.
    """

    every: Trigger = Trigger(epochs=1)
    # For what saves the states of all the others.
    last: ClassVar[bool] = False

    def __call__(self, trainer: "Trainer", record: Any) -> None:
        """record: an `EpochRecord` when called after epochs, else a `StepRecord`.

        It may set `trainer.stopping = True`: the epoch is finished, and the training ends.
        """
        raise NotImplementedError

    def begin(self, trainer: "Trainer") -> None:
        """A fit begins; when it resumes, history, parameters and optimizer are already those of the checkpoint."""

    def end(self, trainer: "Trainer") -> None:
        """A fit ends without an exception; `trainer.interrupted` says that it is to be resumed."""

    def close(self) -> None:
        """The fit that called `begin` is over, with an exception or without: let go of files, threads and memory."""

    def state(self) -> dict[str, Any]:
        """What to remember: names to what JSON holds, or to arrays of at least 1-D (they come back as NumPy's)."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
