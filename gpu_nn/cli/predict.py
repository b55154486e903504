"""gpu-nn predict"""

import argparse
import csv
import io
import sys

import numpy as np

from gpu_nn.cli.arguments import SOURCES, file_name
from gpu_nn.data import read_inputs
from gpu_nn.errors import DataError
from gpu_nn.model_file import load, whole_file

HELP = "the class of each row, one a line, or the probabilities of all classes as CSV"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model.safetensors")
    parser.add_argument("--data", required=True, metavar="FILE|IDX-FOLDER", help=f"{SOURCES}; labels may be missing")
    parser.add_argument("--target", metavar="COLUMN", help="the column to leave out; default: as in training, if there")
    parser.add_argument("--proba", action="store_true", help="probabilities, one column a class")
    out_help = "write them there instead of to stdout"
    parser.add_argument("--out", type=file_name(".csv", ".npy"), metavar="FILE.csv|FILE.npy", help=out_help)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default auto)")


def run(options: argparse.Namespace) -> None:
    net = load(options.model, options.device)
    x = read_inputs(options.data, options.target, net.n_inputs)
    if x.shape[1] != net.n_inputs:
        raise DataError(f"{options.data} has {x.shape[1]} columns; the model was trained on {net.n_inputs}")
    scores = net.device.to_host(net.predict_proba(x) if options.proba else net.forward(x))
    finite = np.isfinite(scores).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise DataError(f"row {row} of {options.data} has no prediction: too large numbers for {net.dtype}")
    classes = np.asarray(range(net.n_classes) if net.classes is None else net.classes)
    values = scores if options.proba else classes[scores.argmax(axis=1)]
    if options.out is None:
        _to_stdout(_text(values, classes))
        return
    content = io.BytesIO()
    if options.out.endswith(".npy"):
        np.save(content, values, allow_pickle=False)
    else:
        content.write(_text(values, classes).encode())
    with whole_file(options.out) as file:
        file.write(content.getvalue())


def _to_stdout(text: str) -> None:
    """All of it, or an error: with PYTHONUNBUFFERED Python drops what a full disk or a reader did not take at once."""
    left = memoryview(text.encode(sys.stdout.encoding))
    while left:
        left = left[sys.stdout.buffer.write(left) :]


def _text(values: np.ndarray, classes: np.ndarray) -> str:
    """A class a line; or probabilities, (n, classes), as CSV under a line with the classes."""
    text = io.StringIO()
    if values.ndim == 2:
        csv.writer(text, lineterminator="\n").writerow(classes.tolist())
        # Nine digits tell any two float32 apart.
        np.savetxt(text, values, fmt="%.9g", delimiter=",")
    else:
        text.writelines(f"{value}\n" for value in values.tolist())
    return text.getvalue()
