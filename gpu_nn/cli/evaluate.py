"""gpu-nn evaluate: accuracy and loss of a model, and precision, recall and F1 of each class."""

import argparse
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_nn import functional as F
from gpu_nn.cli.arguments import SOURCES, TARGET_HELP, add_device_argument, add_model_argument, add_stream_argument
from gpu_nn.cli.input_data import labelled_batches
from gpu_nn.cli.output import print_json, table, write_stdout
from gpu_nn.errors import DataError
from gpu_nn.model_file import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_argument(parser)
    data_help = f"data with labels, of which the test part is used, if any; {SOURCES}"
    parser.add_argument("--data", required=True, metavar="FILE|IDX-FOLDER", help=data_help)
    parser.add_argument("--target", metavar="COLUMN|FILE", help=TARGET_HELP)
    add_stream_argument(parser)
    add_device_argument(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(options: argparse.Namespace) -> None:
    net = load(options.model, options.device)
    if net.multilabel is not None:
        raise DataError(f"{options.model} gives several labels a row; evaluate counts rows of one label: use predict")
    classes = list(range(net.n_classes) if net.classes is None else net.classes)
    rows = labelled_batches(options, net, classes)
    counts, cost = ClassCounts(net.n_classes), 0.0
    for x, y in rows.batches:
        logits = net.forward(x)
        with net.device.active():
            losses = F.softmax_cross_entropy(logits, net.device.asarray(y), reduction="none")
            cost += float(losses.sum(dtype=np.float64))
        counts.add(y, net.device.to_host(logits.argmax(axis=1)))
    loss = cost / rows.n_rows
    if not math.isfinite(loss):
        raise DataError(f"the loss of {options.model} on {options.data} is {loss}: too large numbers for {net.dtype}")
    accuracy, per_class = counts.accuracy, counts.scores(classes)
    mean = {name: _mean(per_class, name) for name in ("precision", "recall", "f1")}
    if options.json:
        print_json({"accuracy": accuracy, "loss": loss, "rows": rows.n_rows, "classes": per_class, "class_mean": mean})
        return
    scores = [*per_class, {"class": "mean of the classes", **mean, "support": rows.n_rows}]
    lines = [
        (str(row["class"]), *(_percent(row[name]) for name in ("precision", "recall", "f1")), str(row["support"]))
        for row in scores
    ]
    text = table(("class", "precision", "recall", "f1", "rows"), lines)
    write_stdout(f"accuracy {100 * accuracy:.2f} % on {rows.n_rows} rows, loss {loss:.4g}\n\n{text}")


class ClassCounts:
    """For each class the number of its rows, of predictions of it, and of correct ones."""

    def __init__(self, n_classes: int):
        self.support, self.predicted, self.correct = (np.zeros(n_classes, np.int64) for _ in range(3))

    def add(self, y: np.ndarray, predicted: np.ndarray) -> None:
        """Add rows, as indices of classes, (n,) each."""
        n = len(self.support)
        self.support += np.bincount(y, minlength=n)
        self.predicted += np.bincount(predicted, minlength=n)
        self.correct += np.bincount(y[y == predicted], minlength=n)

    @property
    def accuracy(self) -> float:
        return float(self.correct.sum() / self.support.sum())

    def scores(self, classes: Sequence[Any]) -> list[dict[str, Any]]:
        """Precision, recall, F1 and support of each class. classes: their names.

        NaN for a class that is never predicted (precision), has no row (recall), or both (F1).
        """
        with np.errstate(invalid="ignore"):
            precision, recall = self.correct / self.predicted, self.correct / self.support
            f1 = 2 * self.correct / (self.predicted + self.support)
        columns = (classes, precision.tolist(), recall.tolist(), f1.tolist(), self.support.tolist())
        names = ("class", "precision", "recall", "f1", "support")
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _mean(per_class: list[dict[str, Any]], name: str) -> float:
    """The mean over the classes whose score is not NaN."""
    scores = [row[name] for row in per_class if not math.isnan(row[name])]
    return sum(scores) / len(scores) if scores else math.nan


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f} %"
