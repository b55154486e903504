"""gpu-nn export: a model as an ONNX file, or its arrays as npz."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gpu_nn.cli.arguments import add_model_argument, file_name
from gpu_nn.files import atomic_write
from gpu_nn.model_file import host_arrays_and_classes, load
from gpu_nn.network import Network
from gpu_nn.onnx_file import export_onnx, label_values


def _export_npz(net: Network, path: str | os.PathLike[str]) -> None:
    """Parameters and state under their names in the network, and "classes" where the classes have names."""
    arrays, classes = host_arrays_and_classes(net)
    labels = {} if classes is None else {"classes": np.array(label_values(classes).tolist())}
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **arrays, **labels)


_FORMATS: dict[str, Callable[[Network, str], None]] = {".onnx": export_onnx, ".npz": _export_npz}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_argument(parser)
    to_help = "the file; its suffix chooses the format: onnx with preprocessing, labels and probabilities, or npz"
    parser.add_argument("--to", required=True, type=file_name(*_FORMATS), metavar="FILE.onnx|FILE.npz", help=to_help)


def run(options: argparse.Namespace) -> None:
    net = load(options.model, "cpu")
    try:
        _FORMATS[Path(options.to).suffix](net, options.to)
    except ImportError as error:
        raise ValueError(f"--to {options.to}: {error}") from None
