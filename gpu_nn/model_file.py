"""Models in one safetensors file: the arrays, and a header that describes the network.

Header (safetensors metadata, strings):
    "format": "gpu_nn.network"
    "version": "1"; "2" with "several_labels", which a reader of version 1 would ignore
    "network": JSON of
        "n_inputs"   columns of the inputs      "dtype": "float32" or "float64"
        "layers"     [{"layer": "Dense", "units": 256, "activation": "relu", "bias": true}, …]: name and fields of each
        "classes"    names or numbers, one for each output, or for each label of a multilabel network; or null
        "several_labels"   {"complement_weight": λ of the cost} of a multilabel network, whose last output is the
                     reference (see the module of that name); absent for one label per row
        "feature_names", "target_name"   of the table that the network was trained on: a unique name for each input,
                     and the target's; absent where the data had no names
Arrays: "0.weight", "0.bias", …: index of the layer, and name of its parameter or state, in the network's dtype or the
state's own. Equal models give equal bytes. Reading a file executes nothing.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gpu_nn.device import Device, resolve_device
from gpu_nn.errors import DataError
from gpu_nn.files import atomic_write, reading, write_safetensors
from gpu_nn.layers import LAYERS, Layer
from gpu_nn.multilabel import Multilabel
from gpu_nn.network import DTYPES, Network
from gpu_nn.precision import parameter_dtype, precision_name
from gpu_nn.validation import check_int

FORMAT = "gpu_nn.network"
VERSIONS = ("1", "2")

# safetensors' names of the types that a network's arrays have.
_TYPES = {"F32": "float32", "F64": "float64", "U64": "uint64"}


def save(net: Network, path: str | os.PathLike[str]) -> None:
    """Write the network atomically.

    Raises DataError when the file cannot be written, ValueError for a network that `load` would refuse: with parameters
    that are not finite, or with `classes` or names that do not fit its outputs or inputs.
    """
    arrays, classes = host_arrays_and_classes(net)
    layers = [{"layer": type(layer).__name__, **asdict(layer)} for layer in net.layers]
    header = {"n_inputs": net.n_inputs, "dtype": net.dtype.name, "layers": layers, "classes": classes}
    header |= column_names(net)
    if net.multilabel is not None:
        header["several_labels"] = asdict(net.multilabel)
    text = json.dumps(header, default=np.generic.item)  # a layer's fields can be NumPy scalars
    with atomic_write(path) as file:
        write_safetensors(file, arrays, {"format": FORMAT, "version": _version(header), "network": text})


def _version(header: dict[str, Any]) -> str:
    return VERSIONS["several_labels" in header]


def host_arrays_and_classes(net: Network) -> tuple[dict[str, np.ndarray], list[str | int | float] | None]:
    """The network's parameters and state as NumPy arrays, and its classes as Python values, both checked.

    Raises TypeError for another object, ValueError for parameters that are not finite or `classes` that do not fit.
    """
    if not isinstance(net, Network):
        raise TypeError(
            f"a {type(net).__name__} is no Network, which a file holds; a fitted classifier has it as .net_"
        )
    arrays = {name: np.ascontiguousarray(net.device.to_host(array)) for name, array in _arrays(net).items()}
    classes = net.classes
    if classes is not None:
        classes = [value.item() if isinstance(value, np.generic) else value for value in classes]
    for name, array in arrays.items():
        _check_finite(name, array)
    _check_classes(classes, net.n_probabilities)
    return arrays, classes


def column_names(net: Network) -> dict[str, Any]:
    """The feature_names and the target_name of the network, where it has them. Raises ValueError where they do not
    fit its inputs.
    """
    names = None if net.feature_names is None else list(map(str, net.feature_names))
    _check_names(names, net.target_name, net.n_inputs)
    found = {"feature_names": names, "target_name": net.target_name}
    return {key: value for key, value in found.items() if value is not None}


def load(path: str | os.PathLike[str], device: str | Device = "auto", dtype: Any = None) -> Network:
    """The network in the file, on `device`.

    dtype: as of `Network`, whose parameters have the file's dtype: a float32 file can compute in "mixed_bfloat16".
    None for the file's own.

    Raises DataError for a file that is missing, truncated, of another format, or whose header does not fit its arrays
    or dtype; ValueError and DeviceError for the device, as `resolve_device` does, and for the dtype, as `Network` does.
    """
    from safetensors import SafetensorError, safe_open

    device = resolve_device(device)
    precision = None if dtype is None else precision_name(dtype)
    if Path(path).is_dir():
        raise DataError(f"{path} is a folder; expected a file, such as {Path(path) / 'model.safetensors'}")
    invalid = {"is not a whole safetensors file": (SafetensorError,), "makes no network": (ValueError,)}
    with reading(path, invalid), safe_open(str(path), framework="numpy") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise DataError(f"{path} is a safetensors file, but not one that gpu_nn wrote")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # safe_open is not a mapping
        stored = {
            name: (_TYPES.get(array.get_dtype(), array.get_dtype()), tuple(array.get_shape()))
            for name, array in slices.items()
        }
        net = _build(path, metadata, stored, device, precision)
        for name, array in _arrays(net).items():
            values = file.get_tensor(name)
            _check_finite(name, values)
            array[...] = net.device.asarray(values)
    return net


def _arrays(net: Network) -> dict[str, Any]:
    return {**net.parameters, **net.state}


def _check_finite(name: str, array: np.ndarray) -> None:
    if not np.isfinite(array).all():
        raise ValueError(f"array {name} has NaN or infinite values; expected finite numbers")


def _check_classes(classes: Any, count: int) -> None:
    if classes is None:
        return
    alike = isinstance(classes, list) and (
        all(isinstance(value, str) for value in classes) or all(isinstance(value, int | float) for value in classes)
    )
    if not alike:
        raise ValueError(f"classes={classes!r}; expected a list of names or a list of numbers")
    if len(classes) != count or len(set(classes)) != count:
        raise ValueError(f"classes has {len(classes)} names, {len(set(classes))} different; expected {count}")


def _check_names(names: Any, target: Any, count: int) -> None:
    if names is not None:
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ValueError(f"feature_names is of {type(names).__name__}; expected a list of names")
        if len(names) != count or len(set(names)) != count:
            raise ValueError(f"feature_names has {len(names)} names, {len(set(names))} different; expected {count}")
    if not (target is None or isinstance(target, str)):
        raise ValueError(f"target_name={target!r}; expected a name")


def _build(
    path: str | os.PathLike[str],
    metadata: dict[str, str],
    stored: dict[str, tuple[str, tuple[int, ...]]],
    device: Device,
    precision: str | None,
) -> Network:
    """The network that the header describes, with arrays to be filled.

    stored: dtype and shape of each array in the file.  precision: its name; None for the header's. Allocates nothing
    before the header's arrays equal the stored ones, so that a header cannot request more memory than the file has
    bytes.
    """
    version = metadata.get("version", "")
    if version not in VERSIONS:
        known = " and ".join(VERSIONS)
        raise DataError(f"{path} has format version {version!r}; this gpu_nn reads versions {known}: upgrade gpu_nn")
    with reading(path, {"has a header that makes no network": (KeyError, TypeError, ValueError, RecursionError)}):
        header = json.loads(metadata["network"])
        layers = [_layer(dict(entry)) for entry in header["layers"]]
        n_inputs, dtype, classes = header["n_inputs"], header["dtype"], header["classes"]
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
        check_int("n_inputs", n_inputs, 1)
        expected: dict[str, tuple[str, tuple[int, ...]]] = {}
        width = n_inputs
        for i, layer in enumerate(layers):
            arrays: dict[str, tuple[tuple[int, ...], str | None]] = dict(layer.state_shapes(width))
            arrays |= {name: (shape, None) for name, shape in layer.parameter_shapes(width).items()}
            expected |= {f"{i}.{name}": (own_dtype or dtype, shape) for name, (shape, own_dtype) in arrays.items()}
            width = layer.n_outputs(width)
        if version != _version(header):
            raise ValueError(f"version {version!r} does not go with the fields {', '.join(sorted(header))}")
        several = Multilabel(**header["several_labels"]) if "several_labels" in header else None
        _check_classes(classes, width - (several is not None))
        feature_names, target_name = header.get("feature_names"), header.get("target_name")
        _check_names(feature_names, target_name, n_inputs)
    for name in sorted(expected.keys() | stored.keys()):
        if expected.get(name) != stored.get(name):
            found, wanted = _shape_and_dtype(stored.get(name)), _shape_and_dtype(expected.get(name))
            raise DataError(f"{path} does not fit its header: array {name} is {found}, the header says {wanted}")
    if precision is not None and parameter_dtype(precision) != dtype:
        expected_dtype = parameter_dtype(precision)
        raise DataError(f"{path} holds parameters of {dtype}; dtype={precision!r} has them of {expected_dtype}")
    net = Network(layers, n_inputs=n_inputs, dtype=precision or dtype, device=device)
    net.classes, net.feature_names, net.target_name = classes, feature_names, target_name
    net.multilabel = several
    return net


def _shape_and_dtype(array: tuple[str, tuple[int, ...]] | None) -> str:
    return "absent" if array is None else f"{array[1]} of {array[0]}"


def _layer(entry: dict[str, Any]) -> Layer:
    name = entry.pop("layer")
    if name not in LAYERS:
        raise ValueError(f"layer {name!r} is not one of {', '.join(sorted(LAYERS))}")
    return LAYERS[name](**entry)
