"""The records of a training: one an epoch, and one between two steps."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class EpochRecord:
    """epoch: from 1.  steps: optimizer steps since the beginning.  loss: mean cost of the training samples during
    the epoch.  validation_loss, validation_accuracy: after the epoch, None without validation data.  learning_rate: of
    the last step.  seconds: of the epoch, validation included.
    """

    epoch: int
    steps: int
    loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float

    def line(self) -> str:
        """The record as one line of text."""
        parts = [f"epoch {self.epoch}", f"loss {self.loss:.4g}"]
        if self.validation_loss is not None:
            parts.append(f"validation loss {self.validation_loss:.4g}")
            parts.append(f"accuracy {100 * (self.validation_accuracy or 0):.2f} %")
        return ", ".join([*parts, f"{self.seconds:.2f} s"])


@dataclass(frozen=True)
class StepRecord:
    """Between two steps. epoch: the one in progress, from 1.  step: steps of this epoch so far.  steps: optimizer steps
    since the beginning.  learning_rate: of the latest step.

    It has no loss, for which the host would wait for the device: `Trainer.latest_loss()` does.
    """

    epoch: int
    step: int
    steps: int
    learning_rate: float


@dataclass
class History:
    """The records of a training, oldest first."""

    epochs: list[EpochRecord] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.epochs)

    def __getitem__(self, index: int) -> EpochRecord:
        return self.epochs[index]

    def column(self, name: str) -> list[Any]:
        """One field of every record."""
        return [getattr(record, name) for record in self.epochs]

    def to_json(self) -> str:
        return json.dumps({"epochs": [asdict(record) for record in self.epochs]}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "History":
        return cls([EpochRecord(**record) for record in json.loads(text)["epochs"]])
