"""The epochs' records for TensorBoard (the extra `tensorboard`)."""

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu_nn.training.callbacks.callback import Callback, TrainerView
from gpu_nn.training.history import EpochRecord

# Distinguishes our event files from others in the same folder.
_SUFFIX = ".gpu_nn"


class TensorBoardLog(Callback):
    """Losses, accuracy, learning rate and seconds of each epoch, over the epochs, as scalars in `folder`.

    When a fit begins, it replaces our event files there by one written from the history, so that a resumed training has
    each epoch once. Raises ImportError, with a hint, when TensorBoard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self._writer: Any = None
        _event_writer()

    def begin(self, trainer: TrainerView) -> None:
        for older in self.folder.glob(f"events.out.tfevents.*{_SUFFIX}"):
            older.unlink()
        self._writer = _event_writer()(str(self.folder), filename_suffix=_SUFFIX)
        for record in trainer.history.epochs:
            self._add(record)
        self._writer.flush()

    def __call__(self, trainer: TrainerView, record: EpochRecord) -> None:
        self._add(record)
        self._writer.flush()

    def close(self) -> None:
        # The writer is a thread, which cannot be pickled or copied with the callback.
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _add(self, record: EpochRecord) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = {name: value for name, value in asdict(record).items() if name not in ("epoch", "steps")}
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items() if value is not None]
        self._writer.add_event(Event(wall_time=time.time(), step=record.epoch, summary=Summary(value=values)))


def _event_writer() -> Any:
    try:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ModuleNotFoundError as error:
        raise ImportError("TensorBoardLog needs TensorBoard: pip install 'gpu_nn[tensorboard]'") from error
    return EventFileWriter
