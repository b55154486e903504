"""The data of the commands: the splits of a run, and the rows that a model evaluates or predicts in batches."""

import argparse
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from gpu_nn.cli.output import print_stderr
from gpu_nn.data import (
    Features,
    StreamDataset,
    is_large,
    open_row_reader,
    read,
    read_inputs,
    read_labelled,
    read_streams,
    shift_and_scale,
    split,
)
from gpu_nn.data.labels import Labels, encode_labels
from gpu_nn.errors import DataError
from gpu_nn.network import INFERENCE_ROWS, Network
from gpu_nn.training import Trainer

# Values of the test split that a checksum takes at once, in float64.
_CHECKSUM_VALUES = 1 << 20

# Inputs and outputs of a batch in float32.
_BATCH_BYTES = 16 << 20


@dataclass(frozen=True)
class DataSplits:
    """training, validation, test: (x, y) in memory, or a StreamDataset; validation may be None. classes: index i of y
    means classes[i]. target, names: the columns of the labels and of the inputs, None where they have no names.
    shift, scale: (inputs,), of the training split.
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
        """Of the training, the validation and the test split."""
        return _rows(self.training), _rows(self.validation), _rows(self.test)

    @property
    def rows_on_device(self) -> int:
        """The most rows that the device holds at once, in trainings whose batches have no more rows."""
        if isinstance(self.training, StreamDataset):
            return min(self.training.window_rows, len(self.training))
        return sum(self.rows)

    @property
    def n_inputs(self) -> int:
        return len(self.shift)

    def fit(self, trainer: Trainer, *, balanced: bool = False, **options: Any) -> None:
        """`trainer.fit` on the training and validation splits. balanced: all classes have the same total weight."""
        if isinstance(self.training, StreamDataset):
            trainer.fit(self.training, validation=self.validation, **options)
            return
        x, y = self.training
        weight = None
        if balanced:
            rows = np.bincount(y, minlength=len(self.classes))
            weight = len(y) / (np.count_nonzero(rows) * rows[y])
        trainer.fit(x, y, validation=self.validation, sample_weight=weight, **options)

    def evaluate_test(self, trainer: Trainer) -> tuple[float, float]:
        """Loss and accuracy on the test split."""
        if isinstance(self.test, StreamDataset):
            return trainer.evaluation.of_stream(self.test)
        x, y = self.test
        return trainer.evaluation.of_arrays(trainer.net.prepare(x), trainer.net.device.asarray(y))

    def test_fingerprint(self) -> dict[str, Any]:
        """Identifies the test split: its rows, columns and a checksum, which covers a sample of a StreamDataset."""
        if isinstance(self.test, StreamDataset):
            return self.test.fingerprint()
        x, y = self.test
        checksum = zlib.crc32(str(self.classes.tolist()).encode())
        rows = max(_CHECKSUM_VALUES // x.shape[1], 1)
        for start in range(0, len(x), rows):
            for array, dtype in ((x, "<f8"), (y, "<i8")):
                checksum = zlib.crc32(np.ascontiguousarray(array[start : start + rows], dtype).data, checksum)
        return {"rows": len(x), "columns": x.shape[1], "checksum": checksum}


def read_splits(settings: argparse.Namespace) -> DataSplits:
    """The data of a run with these settings. Raises DataError for data that cannot be used."""
    source, fraction, seed = settings.data, settings.validation_fraction, settings.seed
    if settings.class_weight is not None and settings.stream == "always":
        raise ValueError(
            f"--class-weight {settings.class_weight} needs the rows in memory, to weight them; --stream never reads "
            f"them there"
        )
    options = {"test_fraction": settings.test_fraction, "test_last": settings.test_last, "seed": seed}
    if settings.stream == "always":
        if source is None:
            raise ValueError("--stream needs --data; the digits are in memory")
        streams = read_streams(source, **options, target=settings.target, validation_fraction=fraction)
        splits = streams.training, streams.validation, streams.test
        return DataSplits(*splits, streams.classes, streams.target, streams.names, streams.shift, streams.scale)
    data = read(source, **options, target=settings.target)
    x, y, validation = data.x, data.y, None
    if fraction is not None:
        name = "the training part of " + ("digits" if source is None else source)
        x, y, *held_out = split(name, x, y, fraction, None, seed, "validation_fraction")
        validation = held_out[0], held_out[1]
    test = data.x_test, data.y_test
    return DataSplits((x, y), validation, test, data.classes, data.target, data.names, *shift_and_scale(x))


def _rows(part: tuple[np.ndarray, np.ndarray] | StreamDataset | None) -> int:
    if part is None:
        return 0
    return len(part) if isinstance(part, StreamDataset) else len(part[0])


@dataclass(frozen=True)
class RowBatches:
    """n_rows: in all batches. batches: (x, y) in order, y None without labels; each is valid until the next one.

    Batches have the same rows whether the data are in memory or streamed, so that the results are equal.
    """

    n_rows: int
    batches: Iterator[tuple[np.ndarray, Any]]


def labelled_batches(
    options: argparse.Namespace, net: Network, classes: Sequence[Any], stored_dtype: bool = False
) -> RowBatches:
    """The rows of --data, with y as indices into `classes`. stored_dtype: x keeps the dtype of streamed data instead of
    the network's. Raises DataError for data that do not fit the network."""
    features = _features_of(net)
    if _is_streamed(options, None, features):
        reader = open_row_reader(options.data, options.target, None, features)
        stream = StreamDataset.from_reader(reader, window_rows=_batch_rows(net), classes=classes)
        if stream.targets:
            raise DataError(f"{options.data}: y has rows of {stream.targets}; expected one label for each row")
        _check_width(options.data, stream.shape[1], net)
        dtype = stream.reader.dtype if stored_dtype else net.dtype
        return RowBatches(len(stream), stream.windows(dtype, net.n_classes))
    x, labels = read_labelled(options.data, options.target, features)
    _check_width(options.data, x.shape[1], net)
    return RowBatches(len(x), _batches(x, encode_labels(options.data, labels, classes), net))


def split_batches(name: str, data: DataSplits, net: Network, classes: Sequence[Any]) -> RowBatches:
    """The rows of a run's test split in their stored dtype, with y as indices into `classes`. Raises DataError, which
    begins with `name`, for data that do not fit the network."""
    _check_width(name, data.n_inputs, net)
    if isinstance(data.test, StreamDataset):
        test = replace(data.test, window_rows=_batch_rows(net), classes=np.asarray(classes))
        return RowBatches(len(test), test.windows(test.reader.dtype, net.n_classes))
    x, y = data.test
    return RowBatches(len(x), _batches(x, encode_labels(name, Labels(data.classes, y), classes), net))


def input_batches(options: argparse.Namespace, net: Network) -> RowBatches:
    """The rows of --data without their labels, if any. Raises DataError for data that do not fit the network."""
    features = _features_of(net)
    if _is_streamed(options, net.n_inputs, features):
        reader = open_row_reader(options.data, options.target, net.n_inputs, features)
        stream = StreamDataset.from_reader(reader, window_rows=_batch_rows(net))
        _check_width(options.data, stream.shape[1], net)
        return RowBatches(len(stream), ((x, None) for x, _ in stream.windows(net.dtype)))
    x = read_inputs(options.data, options.target, net.n_inputs, features)
    _check_width(options.data, x.shape[1], net)
    return RowBatches(len(x), _batches(x, None, net))


def _features_of(net: Network) -> Features | None:
    """The columns that the network was trained on, None where they had no names. Each warning is printed once."""
    if net.feature_names is None:
        return None
    return Features(tuple(net.feature_names), net.target_name, cache(print_stderr))


def _is_streamed(options: argparse.Namespace, n_inputs: int | None, features: Features | None) -> bool:
    if options.stream == "auto":
        return is_large(options.data, options.target, n_inputs, features)
    return bool(options.stream == "always")


def _check_width(source: str, columns: int, net: Network) -> None:
    if columns != net.n_inputs:
        raise DataError(f"{source} has {columns} columns; the model was trained on {net.n_inputs}")


def _batches(x: np.ndarray, y: np.ndarray | None, net: Network) -> Iterator[tuple[np.ndarray, Any]]:
    rows = _batch_rows(net)
    for start in range(0, len(x), rows):
        yield x[start : start + rows], None if y is None else y[start : start + rows]


def _batch_rows(net: Network) -> int:
    """A multiple of INFERENCE_ROWS where it is larger: the network then computes each row in the same bits."""
    rows = max(_BATCH_BYTES // (4 * (net.n_inputs + net.n_classes)), 1)
    return max(rows // INFERENCE_ROWS * INFERENCE_ROWS, min(rows, INFERENCE_ROWS))
