"""Logs of the epochs' records: files that grow by a line an epoch."""

import csv
import io
import json
import os
from dataclasses import asdict, fields
from pathlib import Path

from gpu_nn.errors import DataError
from gpu_nn.files import atomic_write
from gpu_nn.training.callbacks.callback import Callback, TrainerView
from gpu_nn.training.history import EpochRecord


class _LineLog(Callback):
    """Appends a line after each epoch.

    When a fit begins, the file is rewritten from the history, which a resumed training loads from its checkpoint: lines
    that a killed run wrote after its checkpoint, or wrote in part, are removed.

    Raises DataError when the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    def begin(self, trainer: TrainerView) -> None:
        with atomic_write(self.path) as file:
            file.write((self._head() + "".join(map(self._line, trainer.history.epochs))).encode())

    def __call__(self, trainer: TrainerView, record: EpochRecord) -> None:
        try:
            with open(self.path, "ab") as file:
                file.write(self._line(record).encode())
        except OSError as error:
            raise DataError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _head(self) -> str:
        return ""

    def _line(self, record: EpochRecord) -> str:
        raise NotImplementedError


class JsonLinesLog(_LineLog):
    """The fields of `EpochRecord` as a JSON object a line; null where there is no validation."""

    def _line(self, record: EpochRecord) -> str:
        return json.dumps(asdict(record)) + "\n"


class CsvLog(_LineLog):
    """The fields of `EpochRecord` as columns, their names in the first line; empty where there is no validation."""

    def _head(self) -> str:
        return _csv([field.name for field in fields(EpochRecord)])

    def _line(self, record: EpochRecord) -> str:
        return _csv(list(asdict(record).values()))


def _csv(values: list) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
