"""The rows that a model evaluates or predicts, piece by piece: of data in memory, or read as they come."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from gpu_nn.cli.arguments import STREAM, STREAMED
from gpu_nn.cli.parts import Parts
from gpu_nn.cli.results import say
from gpu_nn.data import Features, StreamDataset, is_large, open_row_reader, read_inputs, read_labelled
from gpu_nn.data.labels import Labels, encode_labels
from gpu_nn.errors import DataError
from gpu_nn.network import INFERENCE_ROWS, Network

# Inputs and outputs of a piece in float32.
_PIECE_BYTES = 16 << 20


@dataclass(frozen=True)
class Rows:
    """n: how many there are. pieces: (x, y) of them in order, y None where no labels were asked for; a piece is good
    until the next one is asked for. Its rows are as many whether the data are in memory or not, so results are equal.
    """

    n: int
    pieces: Iterator[tuple[np.ndarray, Any]]


def add_stream_argument(parser: argparse.ArgumentParser) -> None:
    help = f"{STREAMED} (default auto)"
    parser.add_argument("--stream", nargs="?", const="always", default="auto", type=STREAM, help=help)


def features_of(net: Network) -> Features | None:
    """The columns that the network was trained on, None where they had no names. What is said of them is said once."""
    if net.feature_names is None:
        return None
    return Features(tuple(net.feature_names), net.target_name, cache(say))


def labelled_rows(options: argparse.Namespace, net: Network, classes: Sequence[Any], as_stored: bool = False) -> Rows:
    """Those of --data, with y as indices into `classes`. as_stored: x of the type that the data have, where it might be
    the network's. Raises DataError for data that do not fit the network."""
    features = features_of(net)
    if _streamed(options, None, features):
        source = open_row_reader(options.data, options.target, None, features)
        whole = StreamDataset.from_reader(source, window_rows=_piece(net), classes=classes)
        if whole.targets:
            raise DataError(f"{options.data}: y has rows of {whole.targets}; expected one label for each row")
        _check_width(options.data, whole.shape[1], net)
        dtype = whole.reader.dtype if as_stored else net.dtype
        return Rows(len(whole), whole.windows(dtype, net.n_classes))
    x, labels = read_labelled(options.data, options.target, features)
    _check_width(options.data, x.shape[1], net)
    return Rows(len(x), _cut(x, encode_labels(options.data, labels, classes), net))


def tested_rows(name: str, data: Parts, net: Network, classes: Sequence[Any]) -> Rows:
    """Those of the test part of a run's data, as they are stored, with y as indices into `classes`. Raises DataError,
    with their name, for data that do not fit the network."""
    _check_width(name, data.n_inputs, net)
    if isinstance(data.test, StreamDataset):
        test = replace(data.test, window_rows=_piece(net), classes=np.asarray(classes))
        return Rows(len(test), test.windows(test.reader.dtype, net.n_classes))
    x, y = data.test
    return Rows(len(x), _cut(x, encode_labels(name, Labels(data.classes, y), classes), net))


def input_rows(options: argparse.Namespace, net: Network) -> Rows:
    """Those of --data, whether there are labels or not. Raises DataError for data that do not fit the network."""
    features = features_of(net)
    if _streamed(options, net.n_inputs, features):
        source = open_row_reader(options.data, options.target, net.n_inputs, features)
        whole = StreamDataset.from_reader(source, window_rows=_piece(net))
        _check_width(options.data, whole.shape[1], net)
        return Rows(len(whole), ((x, None) for x, _ in whole.windows(net.dtype)))
    x = read_inputs(options.data, options.target, net.n_inputs, features)
    _check_width(options.data, x.shape[1], net)
    return Rows(len(x), _cut(x, None, net))


def _streamed(options: argparse.Namespace, n_inputs: int | None, features: Features | None) -> bool:
    if options.stream == "auto":
        return is_large(options.data, options.target, n_inputs, features)
    return bool(options.stream == "always")


def _check_width(source: str, columns: int, net: Network) -> None:
    if columns != net.n_inputs:
        raise DataError(f"{source} has {columns} columns; the model was trained on {net.n_inputs}")


def _cut(x: np.ndarray, y: np.ndarray | None, net: Network) -> Iterator[tuple[np.ndarray, Any]]:
    rows = _piece(net)
    for start in range(0, len(x), rows):
        yield x[start : start + rows], None if y is None else y[start : start + rows]


def _piece(net: Network) -> int:
    """Rows of a piece; where there are many they are whole turns of the network, which gives each row the same bits."""
    rows = max(_PIECE_BYTES // (4 * (net.n_inputs + net.n_classes)), 1)
    return max(rows // INFERENCE_ROWS * INFERENCE_ROWS, min(rows, INFERENCE_ROWS))
