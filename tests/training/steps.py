from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from gpu_nn.training import trainer
from gpu_nn.training.train_step import TrainStep


@contextmanager
def recorded_steps() -> Iterator[list[TrainStep]]:
    """Collects the step of each fit, which a Trainer does not keep."""
    steps = []

    def record(*arguments, **options):
        steps.append(TrainStep(*arguments, **options))
        return steps[-1]

    with mock.patch.object(trainer, "TrainStep", record):
        yield steps
