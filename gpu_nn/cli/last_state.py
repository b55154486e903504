"""What a run ends with, for one that goes on with it to more epochs."""

from pathlib import Path
from typing import ClassVar

from gpu_nn.cli.results import say
from gpu_nn.errors import DataError
from gpu_nn.training import Callback, EpochRecord, TrainerView
from gpu_nn.training.checkpoint import write


class LastState(Callback):
    """Saves the state after the last of `epochs` epochs, or the one that ends the training early, as a checkpoint in
    the file `path`: that of the latest epoch, where the model may be that of the best.
    """

    last: ClassVar[bool] = True

    def __init__(self, path: Path, epochs: int):
        self.path, self.epochs = path, epochs

    def begin(self, trainer: TrainerView) -> None:
        # That of a process which was killed before its run was finished is not what this one will end with.
        self.path.unlink(missing_ok=True)

    def __call__(self, trainer: TrainerView, record: EpochRecord) -> None:
        if not (trainer.stopping or record.epoch == self.epochs):
            return
        try:
            write(self.path, *trainer.state_dict())
        except DataError as error:
            # The run is whole without it.
            say(f"{error}: this run cannot go on to more epochs")
