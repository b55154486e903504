"""Models in one safetensors file: the arrays, and a header that says how to build the network.

Header (safetensors metadata, strings): "format": "gpu_nn.network"; "version": "1"; "network": JSON with
"n_inputs", "dtype", "layers": [{"layer": "Dense", "units": 256, "activation": "relu"}, …], "classes": [names] or null.
Arrays: "0.weight", "0.bias", …: parameters and state, in the network's dtype. Reading a file executes nothing.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpu_nn.device import Device
from gpu_nn.errors import DataError
from gpu_nn.layers import LAYERS, Layer
from gpu_nn.network import DTYPES, Network

FORMAT = "gpu_nn.network"
VERSION = 1

# A header may ask for at most this many parameters; it is believed only as far as the file has bytes.
_MAX_WIDTH = 1 << 31


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that appears under `path` when all of it is on the disk, and not at all otherwise.

    Raises DataError when it cannot be written; what was there before then stays as it was.
    """
    path = Path(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            yield file  # type: ignore[misc]
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save(net: Network, path: str | os.PathLike[str]) -> None:
    """Write the network, whole or not at all. Raises DataError when it cannot be written."""
    from safetensors.numpy import save as to_bytes

    arrays = {name: np.ascontiguousarray(net.device.to_host(array)) for name, array in _arrays(net).items()}
    layers = [{"layer": type(layer).__name__, **asdict(layer)} for layer in net.layers]  # type: ignore[call-overload]
    header = {"n_inputs": net.n_inputs, "dtype": net.dtype.name, "layers": layers, "classes": _plain(net.classes)}
    metadata = {"format": FORMAT, "version": str(VERSION), "network": json.dumps(header)}
    content = to_bytes(arrays, metadata)
    with whole_file(path) as file:
        file.write(content)


def load(path: str | os.PathLike[str], device: str | Device = "auto") -> Network:
    """The network in the file, on `device`.

    Raises DataError for a file that is missing, truncated, of another kind, or whose header does not fit its arrays.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise DataError(f"{path} is a safetensors file, but not one that gpu_nn wrote")
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            net = _built(path, metadata, shapes, device)
            for name, array in _arrays(net).items():
                array[...] = net.device.asarray(file.get_tensor(name), array.dtype)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} is not a whole safetensors file: {error}") from None
    return net


def _arrays(net: Network) -> dict[str, Any]:
    return {**net.parameters, **net.state}


def _plain(classes: Any) -> list[str | int | float] | None:
    if classes is None:
        return None
    return [value.item() if isinstance(value, np.generic) else value for value in classes]


def _built(
    path: str | os.PathLike[str],
    metadata: dict[str, str],
    shapes: dict[str, tuple[int, ...]],
    device: str | Device,
) -> Network:
    """The network that the header describes, after checking that it is the one whose arrays the file holds."""
    version = metadata.get("version", "")
    if version != str(VERSION):
        raise DataError(f"{path} has format version {version!r}; this gpu_nn reads version {VERSION}: upgrade gpu_nn")
    try:
        header = json.loads(metadata["network"])
        layers = [_layer(dict(entry)) for entry in header["layers"]]
        n_inputs, dtype, classes = header["n_inputs"], header["dtype"], header.get("classes")
        if dtype not in DTYPES or not 0 < n_inputs < _MAX_WIDTH:
            raise ValueError(f"dtype {dtype!r}, {n_inputs} inputs")
        expected, width = {}, n_inputs
        for i, layer in enumerate(layers):
            state = {name: shape for name, (shape, _) in layer.state_shapes(width).items()}
            for name, shape in {**layer.parameter_shapes(width), **state}.items():
                expected[f"{i}.{name}"] = tuple(shape)
            width = layer.n_outputs(width)
        if classes is not None and len(classes) != width:
            raise ValueError(f"{len(classes)} class names for {width} classes")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} has a header that makes no network: {error}") from None
    for name in sorted(expected.keys() | shapes.keys()):
        if expected.get(name) != shapes.get(name):
            came, wanted = shapes.get(name, "no such array"), expected.get(name, "none")
            raise DataError(f"{path} does not fit its header: array {name} is {came}, the header says {wanted}")
    net = Network(layers, n_inputs=n_inputs, dtype=dtype, device=device)
    net.classes = classes
    return net


def _layer(entry: dict[str, Any]) -> Layer:
    name = entry.pop("layer")
    if name not in LAYERS:
        raise ValueError(f"layer {name!r} is not one of {', '.join(sorted(LAYERS))}")
    return LAYERS[name](**entry)
