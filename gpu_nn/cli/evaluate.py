"""gpu-nn evaluate"""

import argparse
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_nn import functional as F
from gpu_nn.cli.arguments import SOURCES, TARGET
from gpu_nn.cli.results import print_json, table, to_stdout
from gpu_nn.cli.rows import add_stream_argument, labelled_rows
from gpu_nn.errors import DataError
from gpu_nn.model_file import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model.safetensors")
    parser.add_argument("--data", required=True, metavar="FILE|IDX-FOLDER", help=f"its test part, if any; {SOURCES}")
    parser.add_argument("--target", metavar="COLUMN|FILE", help=TARGET)
    add_stream_argument(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default auto)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(options: argparse.Namespace) -> None:
    net = load(options.model, options.device)
    if net.multilabel is not None:
        raise DataError(f"{options.model} gives several labels a row; evaluate counts rows of one label: use predict")
    classes = list(range(net.n_classes) if net.classes is None else net.classes)
    rows = labelled_rows(options, net, classes)
    counts, cost = Counts(net.n_classes), 0.0
    for x, y in rows.pieces:
        logits = net.forward(x)
        with net.device.active():
            losses = F.softmax_cross_entropy(logits, net.device.asarray(y), reduction="none")
            cost += float(losses.sum(dtype=np.float64))
        counts.add(y, net.device.to_host(logits.argmax(axis=1)))
    loss = cost / rows.n
    if not math.isfinite(loss):
        raise DataError(f"the loss of {options.model} on {options.data} is {loss}: too large numbers for {net.dtype}")
    accuracy, per_class = counts.accuracy, counts.scores(classes)
    mean = {name: _mean(per_class, name) for name in ("precision", "recall", "f1")}
    if options.json:
        print_json({"accuracy": accuracy, "loss": loss, "rows": rows.n, "classes": per_class, "class_mean": mean})
        return
    shown = [*per_class, {"class": "mean of the classes", **mean, "support": rows.n}]
    text = table(
        ("class", "precision", "recall", "f1", "rows"),
        [
            (str(row["class"]), *map(_share, (row["precision"], row["recall"], row["f1"])), str(row["support"]))
            for row in shown
        ],
    )
    to_stdout(f"accuracy {100 * accuracy:.2f} % on {rows.n} rows, loss {loss:.4g}\n\n{text}")


class Counts:
    """Of each class: how many rows are of it, how many were predicted to be, and how many are both."""

    def __init__(self, n_classes: int):
        self.support, self.predicted, self.right = (np.zeros(n_classes, np.int64) for _ in range(3))

    def add(self, y: np.ndarray, predicted: np.ndarray) -> None:
        """Some more rows, as indices of classes, (n,) each."""
        n = len(self.support)
        self.support += np.bincount(y, minlength=n)
        self.predicted += np.bincount(predicted, minlength=n)
        self.right += np.bincount(y[y == predicted], minlength=n)

    @property
    def accuracy(self) -> float:
        """The share of rows that are predicted right."""
        return float(self.right.sum() / self.support.sum())

    def scores(self, classes: Sequence[Any]) -> list[dict[str, Any]]:
        """Precision, recall, f1 and support of each class. classes: their names.

        NaN where a class is never predicted (precision), in no row (recall), or neither (f1).
        """
        with np.errstate(invalid="ignore"):
            precision, recall = self.right / self.predicted, self.right / self.support
            f1 = 2 * self.right / (self.predicted + self.support)
        columns = (classes, precision.tolist(), recall.tolist(), f1.tolist(), self.support.tolist())
        names = ("class", "precision", "recall", "f1", "support")
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _mean(per_class: list[dict[str, Any]], name: str) -> float:
    """Over the classes that have the score."""
    found = [row[name] for row in per_class if not math.isnan(row[name])]
    return sum(found) / len(found) if found else math.nan


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f} %"
