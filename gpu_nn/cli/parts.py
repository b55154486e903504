"""The training, validation and test parts of a run's data, in memory or as streams."""

import argparse
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_nn.data import StreamDataset, read, read_streams, shift_and_scale, split
from gpu_nn.training import Trainer

# Of what a checksum is made at once, in float64.
_VALUES = 1 << 20


@dataclass(frozen=True)
class Parts:
    """training, validation, test: (x, y) in memory, or a StreamDataset; validation is None where none is asked for.
    classes: what index i of y stands for. target, names: of the labels' column of a table, and of the inputs'
    where they have any. shift, scale: (inputs,), of the training part.
    """

    training: tuple[np.ndarray, np.ndarray] | StreamDataset
    validation: tuple[np.ndarray, np.ndarray] | StreamDataset | None
    test: tuple[np.ndarray, np.ndarray] | StreamDataset
    classes: np.ndarray
    target: str | None
    names: list[str] | None
    shift: np.ndarray
    scale: np.ndarray

    @property
    def rows(self) -> tuple[int, int, int]:
        """Of the training, the validation and the test part."""
        return _rows(self.training), _rows(self.validation), _rows(self.test)

    @property
    def rows_in_memory(self) -> int:
        """The most that are on the device at once, in trainings with batches of no more rows."""
        if isinstance(self.training, StreamDataset):
            return min(self.training.window_rows, len(self.training))
        return sum(self.rows)

    @property
    def n_inputs(self) -> int:
        return len(self.shift)

    def fit(self, trainer: Trainer, *, balanced: bool = False, **options: Any) -> None:
        """`trainer.fit` on the training and validation parts. balanced: all classes weigh the same in the training."""
        if isinstance(self.training, StreamDataset):
            trainer.fit(self.training, validation=self.validation, **options)
            return
        x, y = self.training
        weight = None
        if balanced:
            rows = np.bincount(y, minlength=len(self.classes))
            weight = len(y) / (np.count_nonzero(rows) * rows[y])
        trainer.fit(x, y, validation=self.validation, sample_weight=weight, **options)

    def tested(self, trainer: Trainer) -> tuple[float, float]:
        """Loss and accuracy on the test part."""
        if isinstance(self.test, StreamDataset):
            return trainer.evaluation.of_stream(self.test)
        x, y = self.test
        return trainer.evaluation.of_arrays(trainer.net.prepare(x), trainer.net.device.asarray(y))

    def test_fingerprint(self) -> dict[str, Any]:
        """What tells the test part from other data: its rows, columns, and a checksum of all of it, or of some of it
        where it is a StreamDataset."""
        if isinstance(self.test, StreamDataset):
            return self.test.fingerprint()
        x, y = self.test
        checksum = zlib.crc32(str(self.classes.tolist()).encode())
        rows = max(_VALUES // x.shape[1], 1)
        for start in range(0, len(x), rows):
            for array, kind in ((x, "<f8"), (y, "<i8")):
                checksum = zlib.crc32(np.ascontiguousarray(array[start : start + rows], kind).data, checksum)
        return {"rows": len(x), "columns": x.shape[1], "checksum": checksum}


def read_parts(settings: argparse.Namespace) -> Parts:
    """The data of a run with these settings. Raises DataError for data that cannot be used."""
    source, fraction, seed = settings.data, settings.validation_fraction, settings.seed
    if settings.class_weight is not None and settings.stream == "always":
        raise ValueError(
            f"--class-weight {settings.class_weight} goes with data in memory, whose rows have weights; --stream never "
            f"reads them there"
        )
    options = {"test_fraction": settings.test_fraction, "test_last": settings.test_last, "seed": seed}
    if settings.stream == "always":
        if source is None:
            raise ValueError("--stream goes with --data; the digits are in memory")
        found = read_streams(source, **options, target=settings.target, validation_fraction=fraction)
        parts = found.training, found.validation, found.test
        return Parts(*parts, found.classes, found.target, found.names, found.shift, found.scale)
    data = read(source, **options, target=settings.target)
    x, y, validation = data.x, data.y, None
    if fraction is not None:
        name = "the training part of " + ("digits" if source is None else source)
        x, y, *held_out = split(name, x, y, fraction, None, seed, "validation_fraction")
        validation = held_out[0], held_out[1]
    test = data.x_test, data.y_test
    return Parts((x, y), validation, test, data.classes, data.target, data.names, *shift_and_scale(x))


def _rows(part: tuple[np.ndarray, np.ndarray] | StreamDataset | None) -> int:
    if part is None:
        return 0
    return len(part) if isinstance(part, StreamDataset) else len(part[0])
