"""Stop when the training no longer gets better."""

from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_nn.device import Array
from gpu_nn.training.callbacks.callback import Callback
from gpu_nn.training.callbacks.monitor import Monitor
from gpu_nn.training.history import EpochRecord

if TYPE_CHECKING:
    from gpu_nn.training.trainer import Trainer


class EarlyStopping(Callback):
    """Ends the training once `monitor` has not been better by more than min_delta for `patience` epochs in a row.

    monitor: "validation_loss", "validation_accuracy" or "loss".  restore_best: at the end of the fit, stopped early or
    not, the network gets back the parameters of its best epoch.

    best: the best value so far; best_epoch: when it was, from 1; None before the first epoch.
    """

    def __init__(
        self,
        monitor: str = "validation_loss",
        *,
        patience: int = 10,
        min_delta: float = 0.0,
        restore_best: bool = True,
    ):
        if not (isinstance(patience, int | np.integer) and patience >= 1):
            raise ValueError(f"patience={patience!r}; expected a whole number ≥ 1")
        self.monitor = Monitor(monitor, min_delta)
        self.patience = int(patience)
        self.restore_best = restore_best
        self._forget()

    def _forget(self) -> None:
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.waited = 0
        self._kept: dict[str, Array] = {}

    def begin(self, trainer: "Trainer") -> None:
        self.monitor.check(trainer)
        self._forget()
        self._shapes = {name: array.shape for name, array in trainer.net.learned.items()}

    def __call__(self, trainer: "Trainer", record: EpochRecord) -> None:
        value = self.monitor.value(record)
        if self.monitor.better(value, self.best):
            self.best, self.best_epoch, self.waited = value, record.epoch, 0
            if self.restore_best:
                self._keep(trainer)
            return
        self.waited += 1
        if self.waited >= self.patience:
            trainer.stopping = True

    def end(self, trainer: "Trainer") -> None:
        # A training that is to be resumed goes on with the latest parameters.
        if not trainer.interrupted:
            for name, array in trainer.net.learned.items():
                if name in self._kept:
                    array[...] = trainer.net.device.asarray(self._kept[name])

    def close(self) -> None:
        # A callback outlives its training, and may be pickled: it holds on to no memory of a device.
        self._kept = {}

    def _keep(self, trainer: "Trainer") -> None:
        for name, array in trainer.net.learned.items():
            if name not in self._kept or type(self._kept[name]) is not type(array):
                self._kept[name] = trainer.net.device.xp.empty_like(array)
            self._kept[name][...] = array

    def state(self) -> dict[str, Any]:
        kept = {f"kept.{name}": array for name, array in self._kept.items()}
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self.waited, **kept}

    def load_state(self, state: dict[str, Any]) -> None:
        best, epoch = state["best"], state["best_epoch"]
        kept = {name.removeprefix("kept."): array for name, array in state.items() if name.startswith("kept.")}
        if kept and {name: array.shape for name, array in kept.items()} != self._shapes:
            raise ValueError("the best weights are those of another network")
        self.best, self.best_epoch = None if best is None else float(best), None if epoch is None else int(epoch)
        self.waited, self._kept = int(state["waited"]), kept
