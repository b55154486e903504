"""A metric of the epochs' records, and when it is the best so far."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from gpu_nn.errors import unknown_name
from gpu_nn.training.callbacks.callback import TrainerView
from gpu_nn.training.history import EpochRecord
from gpu_nn.validation import FINITE, check_json_int, check_number

_MONITORED = tuple(field.name for field in fields(EpochRecord) if field.name.endswith(("loss", "accuracy")))


@dataclass(frozen=True)
class Monitor:
    """name: "loss", "validation_loss" or "validation_accuracy"; the highest accuracy and the lowest loss are best.

    min_delta: an improvement by no more than this does not count. Raises ValueError for another name.
    """

    name: str
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in _MONITORED:
            raise unknown_name("monitor", self.name, _MONITORED)
        check_number("min_delta", self.min_delta)

    def check(self, trainer: TrainerView) -> None:
        """Raises ValueError when the metric needs validation data and the training has none."""
        if self.name.startswith("validation") and trainer.data["validation"] is None:
            raise ValueError(f"monitor={self.name!r} needs validation data: fit(x, y, validation=(x_held, y_held))")

    def value(self, record: EpochRecord) -> float:
        value: float = getattr(record, self.name)
        return value

    def better(self, value: float, best: float | None) -> bool:
        """Whether `value` is better than the best so far, None when there is none. NaN is never better."""
        if best is None:
            return value == value
        return value > best + self.min_delta if self.name.endswith("accuracy") else value < best - self.min_delta


def load_best(state: Mapping[str, Any]) -> tuple[float | None, int | None]:
    """best and best_epoch of a callback's state. Raises ValueError for impossible ones."""
    best, epoch = state["best"], state["best_epoch"]
    if (best is None) != (epoch is None):
        raise ValueError(f"best is {best!r}, best_epoch {epoch!r}; expected both or neither")
    if best is None:
        return None, None
    return check_number("best", best, FINITE), check_json_int("best_epoch", epoch, 1)
