"""gpu-nn predict"""

import argparse
import csv
import io
from typing import Any, BinaryIO

import numpy as np

from gpu_nn.cli.arguments import SOURCES, file_name
from gpu_nn.cli.results import print_json, to_stdout
from gpu_nn.data import read_inputs
from gpu_nn.errors import DataError
from gpu_nn.model_file import load, whole_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model.safetensors")
    parser.add_argument("--data", required=True, metavar="FILE|IDX-FOLDER", help=f"{SOURCES}; labels may be missing")
    parser.add_argument("--target", metavar="COLUMN", help="the column to leave out; default: as in training, if there")
    parser.add_argument("--proba", action="store_true", help="probabilities, one column a class")
    out_help = "write them there instead of to stdout; Parquet needs the extra parquet"
    kind = file_name(".csv", ".npy", ".parquet")
    parser.add_argument("--out", type=kind, metavar="FILE.csv|FILE.npy|FILE.parquet", help=out_help)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default auto)")
    json_help = "print them as JSON; with --out, say as JSON what was written"
    parser.add_argument("--json", action="store_true", help=json_help)


def run(options: argparse.Namespace) -> None:
    parquet = _parquet() if (options.out or "").endswith(".parquet") else None
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
    if options.out is not None:
        with whole_file(options.out) as file:
            _write(file, options.out, values, classes, parquet)
        if options.json:
            print_json({"file": options.out, "rows": len(values)})
    elif options.json:
        what = "probabilities" if options.proba else "predictions"
        print_json({"classes": classes.tolist(), what: values.tolist()})
    else:
        to_stdout(_text(values, classes))


def _write(file: BinaryIO, name: str, values: np.ndarray, classes: np.ndarray, parquet: Any) -> None:
    """In the format that the name ends with. values: classes (n,), or probabilities (n, classes)."""
    if parquet is not None:
        parquet.write_table(_columns(values, classes), file)
    elif name.endswith(".npy"):
        # By way of memory: NumPy tells a full disk from a file that is none by the name of an attribute.
        content = io.BytesIO()
        np.save(content, values, allow_pickle=False)
        file.write(content.getbuffer())
    else:
        file.write(_text(values, classes).encode())


def _parquet() -> Any:
    """The module that writes Parquet; ValueError, with the cure, without it."""
    try:
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise ValueError("--out FILE.parquet needs pyarrow: pip install 'gpu_nn[parquet]'") from None
    return parquet


def _columns(values: np.ndarray, classes: np.ndarray) -> Any:
    """A table with the column `class`, or with a column of probabilities for each class, by its name."""
    import pyarrow

    if values.ndim == 1:
        return pyarrow.table({"class": pyarrow.array(values.tolist() if values.dtype.kind == "U" else values)})
    columns = [pyarrow.array(np.ascontiguousarray(column)) for column in values.T]
    return pyarrow.table(columns, names=[str(name) for name in classes.tolist()])


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
