"""Stops a training that no longer improves."""

from typing import Any

from gpu_nn.training.callbacks.best_weights import BestWeights
from gpu_nn.training.callbacks.callback import Callback, TrainerView
from gpu_nn.training.callbacks.monitor import Monitor, load_best
from gpu_nn.training.history import EpochRecord
from gpu_nn.validation import check_int, check_json_int


class EarlyStopping(Callback):
    """Ends the training after `patience` epochs in a row in which `monitor` does not improve by more than min_delta.

    monitor: "validation_loss", "validation_accuracy" or "loss".  restore_best: the end of the fit, early or
    not, restores the parameters of the best epoch.

    best: the best value so far; best_epoch: its epoch, from 1; None before the first epoch.
    """

    def __init__(
        self,
        monitor: str = "validation_loss",
        *,
        patience: int = 10,
        min_delta: float = 0.0,
        restore_best: bool = True,
    ):
        self.monitor = Monitor(monitor, min_delta)
        self.patience = check_int("patience", patience, 1)
        self.restore_best = restore_best
        self._weights = BestWeights()
        self._forget()

    def _forget(self) -> None:
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.waited = 0

    def begin(self, trainer: TrainerView) -> None:
        self.monitor.check(trainer)
        self._forget()
        self._weights.begin(trainer.net)

    def __call__(self, trainer: TrainerView, record: EpochRecord) -> None:
        value = self.monitor.value(record)
        if self.monitor.better(value, self.best):
            self.best, self.best_epoch, self.waited = value, record.epoch, 0
            if self.restore_best:
                self._weights.keep(trainer.net)
            return
        self.waited += 1
        if self.waited >= self.patience:
            trainer.stopping = True

    def end(self, trainer: TrainerView) -> None:
        # A training that will be resumed continues with the latest parameters.
        if not trainer.interrupted:
            self._weights.restore(trainer.net)
            # A callback outlives its training and may be pickled, so it keeps no device memory.
            self._weights.forget()

    def state(self) -> dict[str, Any]:
        best = {"best": self.best, "best_epoch": self.best_epoch}
        return {**best, "waited": self.waited, **self._weights.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        best, epoch, waited = *load_best(state), check_json_int("waited", state["waited"])
        self._weights.load_state(state)
        self.best, self.best_epoch, self.waited = best, epoch, waited
