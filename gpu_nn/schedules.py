"""Learning rates that change with the optimizer's step.

A schedule is called with the index of the step, from 0, and returns the learning rate. A Trainer also calls its
`observe(metric)` after each epoch with the value to be lowered; only ReduceOnPlateau uses it.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from gpu_nn.validation import FINITE, check_int, check_json_int, check_number


@dataclass
class Schedule:
    """A call must not depend on earlier calls: training that resumes calls the schedule from the middle.

    Raises ValueError unless each float among the fields is a finite number ≥ 0, and each int a whole number ≥ 1.
    """

    def __post_init__(self) -> None:
        for parameter in fields(self):
            if parameter.init and parameter.type is float:
                check_number(parameter.name, getattr(self, parameter.name))
            elif parameter.init and parameter.type is int:
                check_int(parameter.name, getattr(self, parameter.name), 1)

    def __call__(self, step: int) -> float:
        raise NotImplementedError

    def observe(self, metric: float) -> None:
        """Record the metric after an epoch."""

    def state(self) -> dict[str, Any]:
        """What `observe` recorded, for a checkpoint."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""


@dataclass
class Constant(Schedule):
    """η."""

    lr: float

    def __call__(self, step: int) -> float:
        return self.lr


@dataclass
class Step(Schedule):
    """η · factor^⌊step / every⌋."""

    lr: float
    every: int
    factor: float = 0.1

    def __call__(self, step: int) -> float:
        return self.lr * self.factor ** (step // self.every)


@dataclass
class Cosine(Schedule):
    """From η down to `final` along half a cosine in `steps` steps, then `final` (Loshchilov & Hutter 2017)."""

    lr: float
    steps: int
    final: float = 0.0

    def __call__(self, step: int) -> float:
        done = min(step / self.steps, 1.0)
        return self.final + (self.lr - self.final) * (1 + math.cos(math.pi * done)) / 2


@dataclass
class WarmUp(Schedule):
    """The schedule `then`, multiplied by (step+1)/steps during the first `steps` steps."""

    steps: int
    then: Schedule

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.then, Schedule):
            raise TypeError(f"then={self.then!r}; expected a schedule, such as Constant({self.then!r})")

    def __call__(self, step: int) -> float:
        return self.then(step) * min((step + 1) / self.steps, 1.0)

    def observe(self, metric: float) -> None:
        self.then.observe(metric)

    def state(self) -> dict[str, Any]:
        return self.then.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self.then.load_state(state)


@dataclass
class ReduceOnPlateau(Schedule):
    """η, multiplied by `factor` whenever the metric has not fallen by `min_delta` for `patience` epochs."""

    lr: float
    factor: float = 0.5
    patience: int = 5
    min_delta: float = 0.0
    min_lr: float = 0.0
    _current: float = field(init=False, repr=False)
    _best: float = field(init=False, repr=False, default=math.inf)
    _epochs_since_best: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._current = self.lr

    def __call__(self, step: int) -> float:
        return self._current

    def observe(self, metric: float) -> None:
        if metric < self._best - self.min_delta:
            self._best = metric
            self._epochs_since_best = 0
            return
        self._epochs_since_best += 1
        if self._epochs_since_best >= self.patience:
            self._current = max(self._current * self.factor, self.min_lr)
            self._epochs_since_best = 0

    def state(self) -> dict[str, Any]:
        return {"current": self._current, "best": self._best, "epochs_since_best": self._epochs_since_best}

    def load_state(self, state: dict[str, Any]) -> None:
        current = check_number("current", state["current"])
        waited = check_json_int("epochs_since_best", state["epochs_since_best"])
        # Infinite before the first epoch.
        best = math.inf if state["best"] == math.inf else check_number("best", state["best"], FINITE)
        self._current, self._best, self._epochs_since_best = current, best, waited


def as_schedule(lr: "float | Schedule") -> Schedule:
    """A number as a constant schedule."""
    if isinstance(lr, Schedule):
        return lr
    return Constant(check_number("lr", lr, alternative=", or a schedule"))
