"""Saves the model of the best epoch so far."""

import os
from pathlib import Path
from typing import Any

from gpu_nn.model_file import save
from gpu_nn.training.callbacks.callback import Callback, TrainerView
from gpu_nn.training.callbacks.monitor import Monitor, load_best
from gpu_nn.training.history import EpochRecord


class BestModel(Callback):
    """Writes the network to `path`, for `gpu_nn.load`, after every epoch that improves on the best one.

    monitor: "validation_loss", "validation_accuracy" or "loss". Raises DataError when the file cannot be written; the
    previous one then stays whole.
    """

    def __init__(self, path: str | os.PathLike[str], monitor: str = "validation_loss"):
        self.path = Path(path)
        self.monitor = Monitor(monitor)
        self.best: float | None = None
        self.best_epoch: int | None = None

    def begin(self, trainer: TrainerView) -> None:
        self.monitor.check(trainer)
        self.best = self.best_epoch = None

    def __call__(self, trainer: TrainerView, record: EpochRecord) -> None:
        value = self.monitor.value(record)
        if self.monitor.better(value, self.best):
            save(trainer.net, self.path)
            self.best, self.best_epoch = value, record.epoch

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state(self, state: dict[str, Any]) -> None:
        self.best, self.best_epoch = load_best(state)
