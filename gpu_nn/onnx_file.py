"""Networks as ONNX files (the extra `onnx`), for onnxruntime and other readers.

Input "x": (batch, n_inputs), unscaled, of the network's dtype.
Outputs: "label", (batch,): the name of the most probable class, or its index where the network has no names; string,
int64 or double. "probabilities": (batch, classes), of the network's dtype.
For several labels per row "label" is their flags, (batch, labels) of int64, and "probabilities" that of each label.
Metadata: producer "gpu_nn" with its version; "classes", "feature_names", "target_name" as JSON, where the network has
them.

The graph uses opset 13, and only operators that onnxruntime supports for double. Dropout and noise are left out.
To add a layer, add an entry to `LAYER_NODES`; an activation's nodes are in its entry of `kernels.activations`.
"""

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from gpu_nn import __version__
from gpu_nn.files import atomic_write
from gpu_nn.flat_parameters import arrays_of_layer
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.layers import BatchNorm, Dense, Dropout, InputNoise, Layer, LayerNorm, Standardize
from gpu_nn.model_file import column_names, host_arrays_and_classes
from gpu_nn.multilabel import LARGEST_LOGARITHM, REFERENCE, bounds_above_half
from gpu_nn.network import Network

# Softmax works along one axis from opset 13 on, which onnxruntime reads from 1.6 on.
OPSET, IR_VERSION = 13, 7

# A protocol buffer has at most 2 GiB - 1; 1 MiB is reserved for all but the arrays.
_MAX_BYTES = 2**31 - 1 - 2**20

# Degree of the polynomial for erfc in float64, with error 1e-14; a higher degree is not more accurate.
_ERFC_DEGREE = 22

Operand = str | float | np.ndarray
Nodes = Callable[["Graph", str, Any, Mapping[str, str]], str]


class Graph:
    """Nodes in topological order: `graph.Add(a, b)` appends a node of the operator Add and returns its output's name.

    An operand is the name of a value, or a number or array, which becomes a constant of `dtype`.
    """

    def __init__(self, dtype: np.dtype):
        self.dtype = dtype
        self.scope = ""
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def __getattr__(self, operator: str) -> Callable[..., str]:
        if not operator[0].isupper():
            raise AttributeError(operator)
        return partial(self.add, operator)

    def add(self, operator: str, *operands: Operand, output: str | None = None, **attributes: Any) -> str:
        from onnx.helper import make_node

        name = output or f"{self.scope}.{operator}.{len(self.nodes)}"
        inputs = [operand if isinstance(operand, str) else self.constant(operand) for operand in operands]
        self.nodes.append(make_node(operator, inputs, [name], name, **attributes))
        return name

    def constant(self, values: float | np.ndarray, name: str | None = None, dtype: Any = None) -> str:
        """Adds a constant of `dtype`, by default the graph's, and returns its name."""
        name = name or f"{self.scope}.constant.{len(self.constants)}"
        self.constants[name] = np.asarray(values, dtype or self.dtype)
        return name

    def columns(self, z: str, first: int, last: int) -> str:
        """The columns first … last-1 of the matrix z."""
        first_last_axis = [self.constant(np.array([value]), dtype=np.int64) for value in (first, last, 1)]
        return self.Slice(z, *first_last_axis)

    def erfc_of_positive(self, x: str) -> str:
        """erfc(x) for x ≥ 0: 1 - erf(x) in float32. onnxruntime has no erf for double: there it is

        erfc(x) = t e^{-x²} P(2t-1), t = 2/(2+x), where P interpolates erfcx(x)/t in the Chebyshev points.
        """
        if self.dtype == np.float32:
            return self.Sub(1.0, self.Erf(x))
        t = self.Div(2.0, self.Add(x, 2.0))
        u = self.Sub(self.Mul(t, 2.0), 1.0)
        *lower, value = _erfc_coefficients()
        for coefficient in reversed(lower):
            value = self.Add(self.Mul(u, value), coefficient)
        return self.Mul(self.Mul(t, self.Exp(self.Neg(self.Mul(x, x)))), value)


def _erfc_coefficients() -> list[Any]:
    """The coefficients of P in ascending powers of u = 2t-1."""
    from numpy.polynomial import chebyshev
    from scipy.special import erfcx

    u = chebyshev.chebpts1(_ERFC_DEGREE + 1)
    t = (u + 1) / 2
    return chebyshev.cheb2poly(chebyshev.chebfit(u, erfcx(2 / t - 2) / t, _ERFC_DEGREE)).tolist()


def _dense(graph: Graph, x: str, layer: Dense, arrays: Mapping[str, str]) -> str:
    z = graph.MatMul(x, arrays["weight"])
    z = graph.Add(z, arrays["bias"]) if layer.bias else z
    return ACTIVATIONS[layer.activation].onnx(graph, z)


def _batch_norm(graph: Graph, x: str, layer: BatchNorm, arrays: Mapping[str, str]) -> str:
    return _normalised(graph, graph.Sub(x, arrays["running_mean"]), arrays["running_var"], layer, arrays)


def _layer_norm(graph: Graph, x: str, layer: LayerNorm, arrays: Mapping[str, str]) -> str:
    centred = graph.Sub(x, graph.ReduceMean(x, axes=[1]))
    variance = graph.ReduceMean(graph.Mul(centred, centred), axes=[1])
    return _normalised(graph, centred, variance, layer, arrays)


def _normalised(
    graph: Graph, centred: str, variance: str, layer: BatchNorm | LayerNorm, arrays: Mapping[str, str]
) -> str:
    z = graph.Div(centred, graph.Sqrt(graph.Add(variance, layer.eps)))
    z = graph.Add(graph.Mul(z, arrays["weight"]), arrays["bias"])
    return ACTIVATIONS[layer.activation].onnx(graph, z)


# (graph, name of the layer's input, layer, names of the layer's arrays) → name of its output in prediction.
LAYER_NODES: dict[type[Layer], Nodes] = {
    BatchNorm: _batch_norm,
    Dense: _dense,
    Dropout: lambda graph, x, layer, arrays: x,
    InputNoise: lambda graph, x, layer, arrays: x,
    LayerNorm: _layer_norm,
    Standardize: lambda graph, x, layer, arrays: graph.Mul(graph.Sub(x, arrays["shift"]), arrays["scale"]),
}


def export_onnx(net: Network, path: str | os.PathLike[str]) -> None:
    """Write the network as an ONNX file, atomically; the module's documentation describes its content.

    Raises ImportError when onnx is not installed, DataError when the file cannot be written, ValueError for a network
    with parameters that are not finite, with `classes` that do not fit its outputs or int64, or of 2 GiB or more.
    """
    content = _model(net).SerializeToString()
    with atomic_write(path) as file:
        file.write(content)


def _model(net: Network) -> Any:
    try:
        from onnx import helper, numpy_helper
    except ModuleNotFoundError as error:
        raise ImportError("ONNX export needs the package onnx: pip install 'gpu_nn[onnx]'") from error

    arrays, classes = host_arrays_and_classes(net)
    graph = Graph(net.dtype)
    logits = _logits(graph, net, arrays)
    graph.scope = "output"
    if net.multilabel is not None:
        _multilabel(graph, logits, net.n_probabilities, net.multilabel.complement_weight)
        names: np.ndarray | None = None
    else:
        graph.Softmax(logits, axis=1, output="probabilities")
        names = None if classes is None else label_values(classes)
        index = graph.ArgMax(logits, axis=1, keepdims=0, **({"output": "label"} if names is None else {}))
    inputs = {name for node in graph.nodes for name in node.input}
    used = {name: array for name, array in graph.constants.items() if name in inputs}
    size = sum(array.nbytes for array in used.values())
    if size > _MAX_BYTES:
        raise ValueError(f"the network's arrays have {size / 2**30:.1f} GiB; an ONNX file holds less than 2 GiB")
    constants = [numpy_helper.from_array(array, name) for name, array in used.items()]
    tensor_type = helper.np_dtype_to_tensor_dtype
    label_type = tensor_type(np.dtype(np.int64) if names is None else names.dtype)
    if names is not None:
        constants.append(helper.make_tensor("classes", label_type, names.shape, names.tolist()))
        graph.Gather("classes", index, output="label")
    real, several = tensor_type(net.dtype), net.multilabel is not None
    rows: list[Any] = ["batch", net.n_probabilities]
    onnx_graph = helper.make_graph(
        graph.nodes,
        "gpu_nn",
        [helper.make_tensor_value_info("x", real, ["batch", net.n_inputs])],
        [
            helper.make_tensor_value_info("label", label_type, rows if several else rows[:1]),
            helper.make_tensor_value_info("probabilities", real, rows),
        ],
        constants,
    )
    model = helper.make_model(
        onnx_graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="gpu_nn",
        producer_version=__version__,
    )
    metadata = {**({} if classes is None else {"classes": classes}), **column_names(net)}
    if metadata:
        helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    return model


def _logits(graph: Graph, net: Network, arrays: Mapping[str, np.ndarray]) -> str:
    value = "x"
    for i, layer in enumerate(net.layers):
        if type(layer) not in LAYER_NODES:
            known = ", ".join(layer_type.__name__ for layer_type in LAYER_NODES)
            raise ValueError(f"layer {i} is {layer}, for which ONNX export has no entry; it knows {known}")
        graph.scope = f"{i}.{type(layer).__name__}"
        own = {name: graph.constant(array, f"{i}.{name}") for name, array in arrays_of_layer(i, arrays).items()}
        value = LAYER_NODES[type(layer)](graph, value, layer, own)
    return value


def _multilabel(graph: Graph, logits: str, labels: int, complement_weight: float) -> None:
    """Adds the outputs for several labels per row, with the names of the module `multilabel`."""
    from onnx import TensorProto

    chosen, reference = graph.columns(logits, 0, labels), graph.columns(logits, labels, labels + 1)
    above = graph.Greater(chosen, reference)
    graph.Cast(above, to=TensorProto.INT64, output="label")
    ratio = graph.Exp(graph.Min(graph.Sub(chosen, reference), LARGEST_LOGARITHM))
    if not complement_weight:
        q = graph.Div(ratio, 2.0)
    else:
        p = graph.columns(graph.Softmax(logits, axis=1), 0, labels)
        share, rest = graph.Softmax(chosen, axis=1), graph.Sub(1.0, p)
        weighted = graph.Mul(p, complement_weight)
        halves = graph.Div(graph.Mul(rest, graph.Sub(ratio, graph.Mul(share, complement_weight))), 2.0)
        q = graph.Div(graph.Add(weighted, halves), graph.Add(rest, weighted))
    least, most = bounds_above_half(graph.dtype)
    graph.Where(above, graph.Clip(q, least, most), graph.Clip(q, 0.0, REFERENCE), output="probabilities")


def label_values(classes: list[str | int | float]) -> np.ndarray:
    """The classes as strings (of type object), int64 or float64. Raises ValueError for one beyond int64."""
    if all(isinstance(value, str) for value in classes):
        return np.array(classes, object)
    if any(isinstance(value, float) for value in classes):
        return np.array(classes, np.float64)
    beyond = [value for value in classes if not -(2**63) <= int(value) < 2**63]
    if beyond:
        raise ValueError(f"class {beyond[0]} does not fit into int64, which labels have there")
    return np.array(classes, np.int64)
