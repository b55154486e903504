"""gpu-nn evaluate"""

import argparse
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_nn import functional as F
from gpu_nn.cli.arguments import SOURCES, TARGET
from gpu_nn.cli.results import print_json, table, to_stdout
from gpu_nn.data import labelled
from gpu_nn.data.labels import encoded
from gpu_nn.errors import DataError
from gpu_nn.model_file import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model.safetensors")
    parser.add_argument("--data", required=True, metavar="FILE|IDX-FOLDER", help=f"its test part, if any; {SOURCES}")
    parser.add_argument("--target", metavar="COLUMN|FILE", help=TARGET)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default auto)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(options: argparse.Namespace) -> None:
    net = load(options.model, options.device)
    x, labels = labelled(options.data, options.target)
    if x.shape[1] != net.n_inputs:
        raise DataError(f"{options.data} has {x.shape[1]} columns; the model was trained on {net.n_inputs}")
    classes = list(range(net.n_classes) if net.classes is None else net.classes)
    y = encoded(options.data, labels, classes)
    logits = net.forward(x)
    with net.device.active():
        loss = float(F.softmax_cross_entropy(logits, net.device.asarray(y), reduction="none").mean(dtype=np.float64))
    if not math.isfinite(loss):
        raise DataError(f"the loss of {options.model} on {options.data} is {loss}: too large numbers for {net.dtype}")
    predicted = net.device.to_host(logits.argmax(axis=1))
    accuracy = float((predicted == y).mean())
    per_class = scores(y, predicted, classes)
    mean = {name: _mean(per_class, name) for name in ("precision", "recall", "f1")}
    if options.json:
        print_json({"accuracy": accuracy, "loss": loss, "rows": len(x), "classes": per_class, "class_mean": mean})
        return
    rows = [*per_class, {"class": "mean of the classes", **mean, "support": len(x)}]
    text = table(
        ("class", "precision", "recall", "f1", "rows"),
        [
            (str(row["class"]), *map(_share, (row["precision"], row["recall"], row["f1"])), str(row["support"]))
            for row in rows
        ],
    )
    to_stdout(f"accuracy {100 * accuracy:.2f} % on {len(x)} rows, loss {loss:.4g}\n\n{text}")


def scores(y: np.ndarray, predicted: np.ndarray, classes: Sequence[Any]) -> list[dict[str, Any]]:
    """Precision, recall, f1 and support of each class, from indices (n,) into `classes`.

    NaN where a class is never predicted (precision), not in y (recall), or neither (f1).
    """
    from sklearn.metrics import precision_recall_fscore_support

    labels = np.arange(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(y, predicted, labels=labels, zero_division=np.nan)
    columns = (classes, precision.tolist(), recall.tolist(), f1.tolist(), support.tolist())
    names = ("class", "precision", "recall", "f1", "support")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _mean(per_class: list[dict[str, Any]], name: str) -> float:
    """Over the classes that have the score."""
    found = [row[name] for row in per_class if not math.isnan(row[name])]
    return sum(found) / len(found) if found else math.nan


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f} %"
