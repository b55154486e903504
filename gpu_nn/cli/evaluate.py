"""gpu-nn evaluate"""

import argparse
import json
import math

from gpu_nn.cli.arguments import SOURCES, TARGET
from gpu_nn.data import labelled
from gpu_nn.data.labels import encoded
from gpu_nn.errors import DataError
from gpu_nn.model_file import load
from gpu_nn.optimizers import SGD
from gpu_nn.training import Trainer

HELP = "accuracy and cost of a model on labelled data"


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
    classes = range(net.n_classes) if net.classes is None else net.classes
    y = net.device.asarray(encoded(options.data, labels, classes))
    loss, accuracy = Trainer(net, SGD()).evaluate(net.prepare(x), y)
    if not math.isfinite(loss):
        raise DataError(f"the loss of {options.model} on {options.data} is {loss}: too large numbers for {net.dtype}")
    if options.json:
        print(json.dumps({"accuracy": accuracy, "loss": loss, "rows": len(x)}))
    else:
        print(f"accuracy {100 * accuracy:.2f} % on {len(x)} rows, loss {loss:.4g}")
