"""gpu-nn export: a model as an ONNX file, or its arrays as npz. gpu-nn info: what a model contains, or the machine."""

import argparse
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_nn import __version__
from gpu_nn.cli.output import print_result
from gpu_nn.device import cuda_unavailable_reason, resolve_device
from gpu_nn.errors import one_line
from gpu_nn.files import atomic_write
from gpu_nn.kernels import why_no_half_products
from gpu_nn.model_file import host_arrays_and_classes, load
from gpu_nn.precision import DTYPES, PRECISIONS

# Text lists this many names; JSON lists all.
_MAX_NAMES = 20

_PACKAGES = ("numpy", "scipy", "scikit-learn", "safetensors", "cupy-cuda12x", "cupy-cuda13x", "nvmath-python")


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    from gpu_nn.cli.arguments import add_model_argument, file_name  # info does without it

    add_model_argument(parser)
    to_help = "the file; its suffix chooses the format: onnx with preprocessing, labels and probabilities, or npz"
    suffixes = file_name(".onnx", ".npz")
    parser.add_argument("--to", required=True, type=suffixes, metavar="FILE.onnx|FILE.npz", help=to_help)


def run_export(options: argparse.Namespace) -> None:
    from gpu_nn.onnx_file import export_onnx, label_values

    net = load(options.model, "cpu")
    if options.to.endswith(".onnx"):
        try:
            export_onnx(net, options.to)
        except ImportError as error:
            raise ValueError(f"--to {options.to}: {error}") from None
        return
    # Parameters and state under their names in the network, and "classes" where the classes have names.
    arrays, classes = host_arrays_and_classes(net)
    labels = {} if classes is None else {"classes": np.array(label_values(classes).tolist())}
    with atomic_write(options.to) as file:
        np.savez(file, allow_pickle=False, **arrays, **labels)


def add_info_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", nargs="?", help="describe this model.safetensors instead")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run_info(options: argparse.Namespace) -> None:
    facts, lines = _machine() if options.model is None else _model(options.model)
    print_result(options.json, facts, "".join(f"{line}\n" for line in lines))


def _machine() -> tuple[dict[str, Any], list[str]]:
    """The facts about this machine, and their lines of text."""
    auto = resolve_device("auto")
    packages = {name: _installed(name) for name in _PACKAGES}
    gpus = [] if cuda_unavailable_reason() else _gpus()
    dtypes = [name for name in PRECISIONS if name in DTYPES or not why_no_half_products(auto)]
    lines = [f"gpu_nn {__version__}, Python {platform.python_version()}"]
    lines += [f"{name} {installed or 'not installed'}" for name, installed in packages.items()]
    for gpu in gpus:
        size = f"{gpu['memory_bytes'] / 2**30:.0f} GiB"
        lines.append(f"{gpu['device']}: {gpu['name']}, {size}, sm_{gpu['compute_capability']}")
    lines.append(f"auto chooses {auto}, which computes in {', '.join(dtypes)}")
    facts = {
        "gpu_nn": __version__,
        "python": platform.python_version(),
        "packages": packages,
        "gpus": gpus,
        "auto": str(auto),
        "dtypes": dtypes,
    }
    return facts, lines


def _model(path: str) -> tuple[dict[str, Any], list[str]]:
    """The facts about a model, and their lines of text. Raises DataError for a file that is no model."""
    net = load(path, "cpu")
    names, target, several = net.feature_names, net.target_name, net.multilabel is not None
    classes = list(range(net.n_probabilities)) if net.classes is None else net.classes
    layers, n_parameters = [str(layer) for layer in net.layers], net.flat.n_parameters
    kind = "labels, several a row" if several else "classes"
    lines = [
        f"{path}: {n_parameters:,} parameters of {net.dtype.name}",
        f"{net.n_inputs:,} inputs: {'without names' if names is None else _list(names)}",
        f"{len(classes):,} {kind}{'' if target is None else f' of {target}'}: {_list(classes)}",
        *layers,
    ]
    facts = {
        "model": path,
        "inputs": net.n_inputs,
        "feature_names": names,
        "target_name": target,
        "classes": classes,
        "several_labels": several,
        "layers": layers,
        "parameters": n_parameters,
        "dtype": net.dtype.name,
    }
    return facts, lines


def _list(names: Sequence[Any]) -> str:
    return one_line(", ".join(map(str, names[:_MAX_NAMES])) + (" …" if len(names) > _MAX_NAMES else ""))


def _installed(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # export does without it

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpus() -> list[dict[str, Any]]:
    import cupy

    gpus = []
    for index in range(cupy.cuda.runtime.getDeviceCount()):
        properties = cupy.cuda.runtime.getDeviceProperties(index)
        gpus.append(
            {
                "device": f"cuda:{index}",
                "name": properties["name"].decode(),
                "memory_bytes": properties["totalGlobalMem"],
                "compute_capability": f"{properties['major']}{properties['minor']}",
            }
        )
    return gpus
