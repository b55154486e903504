"""The learning rate over a run: a schedule by its name, whose other numbers follow from how many steps the run has."""

import argparse
from collections.abc import Callable

from gpu_nn.schedules import Constant, Cosine, ReduceOnPlateau, Schedule, Step, WarmUp

# From the learning rate and all the steps of a run. What each does is said in the help of --schedule.
SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {
    "constant": lambda lr, steps: Constant(lr),
    "cosine": Cosine,
    "step": lambda lr, steps: Step(lr, every=-(-steps // 3)),
    "exponential": lambda lr, steps: Step(lr, every=1, factor=0.01 ** (1 / steps)),
    "plateau": lambda lr, steps: ReduceOnPlateau(lr),
}

# With more epochs these are others from the first step on.
FIXED_BY_EPOCHS = ("cosine", "step", "exponential")


def schedule_of(settings: argparse.Namespace, rows: int) -> Schedule:
    """That of a run that trains on so many rows."""
    an_epoch = -(-rows // settings.batch_size)
    # Runs of before there were schedules name none.
    made = SCHEDULES[settings.schedule or "constant"](settings.lr, max(settings.epochs * an_epoch, 1))
    if settings.warm_up is None:
        return made
    return WarmUp(settings.warm_up.steps or settings.warm_up.epochs * an_epoch, made)


def said_of(settings: argparse.Namespace) -> str:
    """The learning rate in words."""
    words = [] if settings.schedule in (None, "constant") else [settings.schedule]
    if settings.warm_up is not None:
        words.append(f"warm-up of {settings.warm_up}")
    return f"learning rate {settings.lr:g}" + (f" ({', '.join(words)})" if words else "")
