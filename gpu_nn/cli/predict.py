"""gpu-nn predict"""

import argparse
import io
import sys
from pathlib import Path

import numpy as np

from gpu_nn.data import read_inputs
from gpu_nn.errors import DataError
from gpu_nn.model_file import load, whole_file

HELP = "the class of each row, one a line, or the probabilities of all classes as CSV"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model.safetensors")
    parser.add_argument("--data", required=True, metavar="FILE.npz|IDX", help="an array x, or images")
    parser.add_argument("--proba", action="store_true", help="probabilities, one column a class")
    parser.add_argument("--out", metavar="FILE.csv|FILE.npy", help="write them there instead of to stdout")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default auto)")


def run(options: argparse.Namespace) -> None:
    out = None if options.out is None else Path(options.out)
    if out is not None and out.suffix not in (".csv", ".npy"):
        raise ValueError(f"--out {out}; expected a name that ends in .csv or .npy")
    net = load(options.model, options.device)
    x = read_inputs(options.data)
    if x.shape[1] != net.n_inputs:
        raise DataError(f"{options.data} has {x.shape[1]} columns; the model was trained on {net.n_inputs}")
    classes = np.asarray(range(net.n_classes) if net.classes is None else net.classes)
    answer = net.device.to_host(net.predict_proba(x) if options.proba else net.predict(x))
    values = answer if options.proba else classes[answer]
    content = io.BytesIO()
    if out is not None and out.suffix == ".npy":
        np.save(content, values, allow_pickle=False)
    elif options.proba:
        header = ",".join(map(str, classes))
        np.savetxt(content, values, fmt="%.9g", delimiter=",", header=header, comments="")
    else:
        np.savetxt(content, values, fmt="%s")
    if out is None:
        sys.stdout.write(content.getvalue().decode())
        return
    with whole_file(out) as file:
        file.write(content.getvalue())
