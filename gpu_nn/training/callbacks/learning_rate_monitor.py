"""The learning rate as it was, for a plot."""

from typing import Any

import numpy as np

from gpu_nn.training.callbacks.callback import Callback, TrainerView, Trigger
from gpu_nn.training.history import StepRecord


class LearningRateMonitor(Callback):
    """Records the learning rate every `steps` optimizer steps. steps, rates: lists of equal length."""

    def __init__(self, steps: int = 1):
        self.every = Trigger(steps=steps)
        self.steps: list[int] = []
        self.rates: list[float] = []

    def __call__(self, trainer: TrainerView, record: StepRecord) -> None:
        self.steps.append(record.steps)
        self.rates.append(record.learning_rate)

    def state(self) -> dict[str, Any]:
        return {"steps": np.array(self.steps, np.int64), "rates": np.array(self.rates, np.float64)}

    def load_state(self, state: dict[str, Any]) -> None:
        steps, rates = state["steps"], state["rates"]
        alike = steps.shape == rates.shape == (len(steps),) and (steps.dtype, rates.dtype) == (np.int64, np.float64)
        if not (alike and (steps >= 0).all() and np.isfinite(rates).all()):
            raise ValueError(
                f"steps {steps.shape} of {steps.dtype}, rates {rates.shape} of {rates.dtype}, or not finite"
            )
        self.steps, self.rates = steps.tolist(), rates.tolist()
