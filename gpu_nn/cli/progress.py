"""What is seen of a training while it goes on."""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from gpu_nn.cli.results import say
from gpu_nn.training import Callback, EpochRecord, Trainer, TrainerView


def shown(trainer: Trainer, epochs: int, rows: int) -> AbstractContextManager[Any]:
    """A context that shows how far the trainer is: a progress bar on a terminal, elsewhere a line for each epoch.

    rows: of an epoch.
    """
    if not sys.stderr.isatty():
        trainer.callbacks.append(lambda _, record: say(record.line()))
        return nullcontext()
    from tqdm import tqdm

    bar: Any = tqdm(total=epochs * rows, unit="rows", unit_scale=True, dynamic_ncols=True)
    trainer.on_batch_end = bar.update
    trainer.callbacks.append(_Bar(bar, rows))
    context: AbstractContextManager[Any] = bar
    return context


class _Bar(Callback):
    """Sets the progress bar to where a training begins, and says what its epochs come to."""

    def __init__(self, bar: Any, rows: int):
        self.bar, self.rows = bar, rows

    def begin(self, trainer: TrainerView) -> None:
        in_epoch = min(trainer.step_record().step * trainer.batch_size, self.rows)
        self.bar.update(len(trainer.history) * self.rows + in_epoch)

    def __call__(self, trainer: TrainerView, record: EpochRecord) -> None:
        self.bar.set_postfix_str(f"epoch {record.epoch}, loss {record.loss:.4g}")
