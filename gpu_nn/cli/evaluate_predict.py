"""gpu-nn evaluate: accuracy and loss of a model, and precision, recall and F1 of each class.

gpu-nn predict: the class of each row or the probabilities of all classes, as CSV, JSON, npy or Parquet.
"""

import argparse
import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from gpu_nn import functional as F
from gpu_nn.cli.arguments import SOURCES, TARGET_HELP, add_data_arguments, add_model_argument, file_name
from gpu_nn.cli.input_data import RowBatches, input_batches, labelled_batches
from gpu_nn.cli.output import print_json, print_result, table, write_stdout_when_complete
from gpu_nn.errors import DataError
from gpu_nn.files import atomic_write
from gpu_nn.model_file import load
from gpu_nn.multilabel import threshold
from gpu_nn.network import Network

# Values of a Parquet row group, which is written from memory: 16 MiB of probabilities.
_ROW_GROUP_VALUES = 1 << 22


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_argument(parser)
    add_data_arguments(parser, f"data with labels, of which the test part is used, if any; {SOURCES}", TARGET_HELP)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run_evaluate(options: argparse.Namespace) -> None:
    net = load(options.model, options.device)
    if net.multilabel is not None:
        raise DataError(f"{options.model} gives several labels a row; evaluate counts rows of one label: use predict")
    classes = list(range(net.n_classes) if net.classes is None else net.classes)
    rows = labelled_batches(options, net, classes)
    support, predicted, correct = np.zeros((3, net.n_classes), np.int64)
    cost = 0.0
    for x, y in rows.batches:
        logits = net.forward(x)
        with net.device.active():
            losses = F.softmax_cross_entropy(logits, net.device.asarray(y), reduction="none")
            cost += float(losses.sum(dtype=np.float64))
        labels = net.device.to_host(logits.argmax(axis=1))
        for count, of_class in ((support, y), (predicted, labels), (correct, y[y == labels])):
            count += np.bincount(of_class, minlength=net.n_classes)
    loss = cost / rows.n_rows
    if not math.isfinite(loss):
        raise DataError(f"the loss of {options.model} on {options.data} is {loss}: too large numbers for {net.dtype}")
    accuracy = float(correct.sum() / support.sum())
    # NaN for a class that is never predicted (precision), has no row (recall), or both (F1).
    with np.errstate(invalid="ignore"):
        columns = (correct / predicted, correct / support, 2 * correct / (predicted + support), support)
    names = ("class", "precision", "recall", "f1", "support")
    rows_of_classes = zip(classes, *(column.tolist() for column in columns), strict=True)
    per_class = [dict(zip(names, row, strict=True)) for row in rows_of_classes]
    mean = {name: _mean(per_class, name) for name in ("precision", "recall", "f1")}
    scores = [*per_class, {"class": "mean of the classes", **mean, "support": rows.n_rows}]
    lines = [
        (str(row["class"]), *(_percent(row[name]) for name in ("precision", "recall", "f1")), str(row["support"]))
        for row in scores
    ]
    text = f"accuracy {100 * accuracy:.2f} % on {rows.n_rows} rows, loss {loss:.4g}\n\n"
    text += table(("class", "precision", "recall", "f1", "rows"), lines)
    result = {"accuracy": accuracy, "loss": loss, "rows": rows.n_rows, "classes": per_class, "class_mean": mean}
    print_result(options.json, result, text)


def _mean(per_class: list[dict[str, Any]], name: str) -> float:
    """The mean over the classes whose score is not NaN."""
    scores = [row[name] for row in per_class if not math.isnan(row[name])]
    return sum(scores) / len(scores) if scores else math.nan


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f} %"


def add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_argument(parser)
    target_help = "the column to leave out (default: the target of the training, if there is such a column)"
    add_data_arguments(parser, f"{SOURCES}; labels are optional", target_help, "COLUMN")
    parser.add_argument("--proba", action="store_true", help="probabilities, one column for each class")
    out_help = "write to this file instead of stdout; Parquet needs the extra parquet"
    suffixes = file_name(".csv", ".npy", ".parquet")
    parser.add_argument("--out", type=suffixes, metavar="FILE.csv|FILE.npy|FILE.parquet", help=out_help)
    json_help = "print JSON: the predictions or, with --out, the file and its rows"
    parser.add_argument("--json", action="store_true", help=json_help)


@dataclass(frozen=True)
class Predictions:
    """n_rows: in all batches. classes: their names. name: "probabilities" or "predictions". per_class: whether a row
    has a number for every class: probabilities, or the flags of several labels. batches: in the order of the rows, (n,)
    names of classes or (n, classes) numbers of `dtype`, computed while they are read.
    """

    n_rows: int
    classes: np.ndarray
    name: str
    per_class: bool
    dtype: np.dtype
    batches: Iterator[np.ndarray]


def run_predict(options: argparse.Namespace) -> None:
    parquet = _parquet() if (options.out or "").endswith(".parquet") else None
    net = load(options.model, options.device)
    classes = np.asarray(range(net.n_probabilities) if net.classes is None else net.classes)
    rows = input_batches(options, net)
    name, several = "probabilities" if options.proba else "predictions", net.multilabel is not None
    dtype = net.dtype if options.proba else np.dtype(np.int64) if several else classes.dtype
    batches = _predict(options, net, classes, rows)
    predictions = Predictions(rows.n_rows, classes, name, options.proba or several, dtype, batches)
    if options.out is None:
        texts = _json(predictions) if options.json else _csv(predictions)
        write_stdout_when_complete(texts, "--out FILE.csv is in UTF-8, and ")
        return
    with atomic_write(options.out) as file:
        if parquet is not None:
            _write_parquet(file, predictions, parquet)
        elif options.out.endswith(".npy"):
            _write_npy(file, predictions)
        else:
            file.writelines(text.encode() for text in _csv(predictions))
    if options.json:
        print_json({"file": options.out, "rows": rows.n_rows})


def _predict(options: argparse.Namespace, net: Network, classes: np.ndarray, rows: RowBatches) -> Iterator[np.ndarray]:
    first = 0
    for x, _ in rows.batches:
        scores = net.device.to_host(net.predict_proba(x) if options.proba else net.forward(x))
        finite = np.isfinite(scores).all(axis=1)
        if not finite.all():
            row = first + int(np.argmin(finite))
            raise DataError(f"row {row} of {options.data} has no prediction: too large numbers for {net.dtype}")
        first += len(x)
        if options.proba:
            yield scores
        else:
            yield classes[scores.argmax(axis=1)] if net.multilabel is None else threshold(scores)


def _csv(predictions: Predictions) -> Iterator[str]:
    """One class a line, or a header with the classes and the numbers of each row."""
    classes = predictions.classes.tolist()
    if predictions.per_class:
        yield _line(classes)
    lines = {value: _line([value]) for value in classes}
    for values in predictions.batches:
        text = io.StringIO()
        if predictions.per_class:
            # Nine digits distinguish any two float32 numbers.
            np.savetxt(text, values, fmt="%.9g", delimiter=",")
        else:
            text.writelines(map(lines.__getitem__, values.tolist()))
        yield text.getvalue()


def _line(values: list) -> str:
    """A line of CSV, with quotes where needed."""
    line = io.StringIO()
    # csv quotes fields with characters of the line terminator: \r\n has all that end a line for readers.
    csv.writer(line, lineterminator="\r\n").writerow(values)
    return line.getvalue().removesuffix("\r\n") + "\n"


def _json(predictions: Predictions) -> Iterator[str]:
    """One line: the classes, and a list with the predictions of all rows."""
    yield f'{{"classes": {json.dumps(predictions.classes.tolist())}, "{predictions.name}": '
    separator = "["
    for values in predictions.batches:
        yield separator + json.dumps(values.tolist())[1:-1]
        separator = ", "
    yield "]}\n"


def _write_npy(file: BinaryIO, predictions: Predictions) -> None:
    """Write the bytes that `np.save` writes for the whole array."""
    shape = (predictions.n_rows, len(predictions.classes)) if predictions.per_class else (predictions.n_rows,)
    header = {"descr": npy.dtype_to_descr(predictions.dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(file, header)
    for values in predictions.batches:
        file.write(np.ascontiguousarray(values).data)


def _write_parquet(file: BinaryIO, predictions: Predictions, parquet: Any) -> None:
    """Write a column `class`, or a column of numbers for each class, under its name."""
    empty = np.empty((0, len(predictions.classes)) if predictions.per_class else 0, predictions.dtype)
    pending = [empty]
    with parquet.ParquetWriter(file, _columns(predictions, empty).schema) as writer:
        for values in predictions.batches:
            pending.append(values)
            if sum(array.size for array in pending) >= _ROW_GROUP_VALUES:
                writer.write_table(_columns(predictions, np.concatenate(pending)))
                pending = [empty]
        writer.write_table(_columns(predictions, np.concatenate(pending)))


def _columns(predictions: Predictions, values: np.ndarray) -> Any:
    """The predictions of some rows as an Arrow table."""
    import pyarrow

    if not predictions.per_class:
        is_text = values.dtype.kind == "U"
        return pyarrow.table({"class": pyarrow.array(values.tolist(), pyarrow.string()) if is_text else values})
    columns = [pyarrow.array(np.ascontiguousarray(column)) for column in values.T]
    return pyarrow.table(columns, names=[str(name) for name in predictions.classes.tolist()])


def _parquet() -> Any:
    """The module that writes Parquet. Raises ValueError, with a hint, if it is not installed."""
    try:
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise ValueError("--out FILE.parquet needs pyarrow: pip install 'gpu_nn[parquet]'") from None
    return parquet
