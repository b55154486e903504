"""The table of activations: to add one, add an entry here.

An entry holds the NumPy and the CUDA form of a = act(z) and of its derivative side by side. Most derivatives are
functions of a alone, so z need not be kept: then a is written over z. The CUDA forms are expressions of type T
(float or double) in z, or in a for a derivative `of_output`. The ONNX form appends the nodes of a = act(z) to an
`onnx_file.Graph`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy import ndarray


@dataclass(frozen=True)
class Activation:
    """forward(z, a): a = act(z); a may be z when the derivative is of_output.
    derivative(s, d): d = act'(z), from s = a when of_output, else from s = z; d is never s.
    onnx(graph, z): appends the nodes of act and returns the name of the value a.
    initialisation: "he" (variance 2/inputs) where act suppresses negative inputs, else "glorot" (2/(inputs+outputs)).
    """

    forward: Callable[[ndarray, ndarray], object]
    derivative: Callable[[ndarray, ndarray], object]
    cuda_forward: str
    cuda_derivative: str
    onnx: Callable[[Any, str], str]
    of_output: bool = True
    initialisation: Literal["he", "glorot"] = "glorot"


LEAK = 0.01  # slope of leaky_relu for z < 0
_SQRT_HALF = 0.7071067811865476
_INV_SQRT_2PI = 0.3989422804014327


def _sigmoid(z: ndarray, a: ndarray) -> None:
    np.negative(z, out=a)
    with np.errstate(over="ignore"):  # where e^{-z} overflows, 1/(1+∞) = 0 is the answer
        np.exp(a, out=a)
    a += 1
    np.reciprocal(a, out=a)


def _sigmoid_derivative(a: ndarray, d: ndarray) -> None:
    np.subtract(1, a, out=d)
    d *= a


def _tanh_derivative(a: ndarray, d: ndarray) -> None:
    np.multiply(a, a, out=d)
    np.subtract(1, d, out=d)


def _leaky_relu(z: ndarray, a: ndarray) -> None:
    np.maximum(z, z * LEAK, out=a)


def _leaky_relu_derivative(a: ndarray, d: ndarray) -> None:
    np.greater(a, 0, out=d)
    d *= 1 - LEAK
    d += LEAK


def _elu(z: ndarray, a: ndarray) -> None:
    # max(z,0) + e^{min(z,0)} - 1: one term is 0 on either side.
    tail = np.expm1(np.minimum(z, 0))
    np.maximum(z, 0, out=a)
    a += tail


def _elu_derivative(a: ndarray, d: ndarray) -> None:
    np.minimum(a, 0, out=d)
    d += 1


def _normal_cdf(z: ndarray, out: ndarray) -> None:
    # erfc keeps the digits of the lower tail, which 1 + erf would cancel.
    from scipy.special import erfc

    np.multiply(z, -_SQRT_HALF, out=out)
    erfc(out, out=out)
    out *= 0.5


def _gelu(z: ndarray, a: ndarray) -> None:
    _normal_cdf(z, a)
    a *= z


def _gelu_derivative(z: ndarray, d: ndarray) -> None:
    density = np.square(z)
    density *= -0.5
    np.exp(density, out=density)
    density *= _INV_SQRT_2PI
    density *= z
    _normal_cdf(z, d)
    d += density


def _gelu_onnx(g: Any, z: str) -> str:
    # z Φ(z) = max(z,0) - ½|z| erfc(|z|/√2) on either side of 0.
    size = g.Abs(z)
    return g.Sub(g.Relu(z), g.Mul(g.Mul(size, 0.5), g.erfc_of_positive(g.Mul(size, _SQRT_HALF))))


def _silu(z: ndarray, a: ndarray) -> None:
    _sigmoid(z, a)
    a *= z


def _silu_derivative(z: ndarray, d: ndarray) -> None:
    # σ(z) (1 + z σ(-z)): 1 - σ(z) would be left with few digits where z is large.
    sigmoid = np.empty_like(z)
    _sigmoid(z, sigmoid)
    np.negative(z, out=d)
    _sigmoid(d, d)
    d *= z
    d += 1
    d *= sigmoid


def _softplus(z: ndarray, a: ndarray) -> None:
    tail = np.abs(z)
    np.negative(tail, out=tail)
    np.exp(tail, out=tail)
    np.log1p(tail, out=tail)
    np.maximum(z, 0, out=a)
    a += tail


def _softplus_derivative(a: ndarray, d: ndarray) -> None:
    np.negative(a, out=d)
    np.expm1(d, out=d)
    np.negative(d, out=d)


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(
        forward=lambda z, a: np.copyto(a, z),
        derivative=lambda a, d: d.fill(1),
        cuda_forward="z",
        cuda_derivative="T(1)",
        onnx=lambda g, z: z,
    ),
    "sigmoid": Activation(
        forward=_sigmoid,
        derivative=_sigmoid_derivative,
        cuda_forward="T(1) / (T(1) + exp(-z))",
        cuda_derivative="a * (T(1) - a)",
        onnx=lambda g, z: g.Sigmoid(z),
    ),
    "tanh": Activation(
        forward=lambda z, a: np.tanh(z, out=a),
        derivative=_tanh_derivative,
        cuda_forward="tanh(z)",
        cuda_derivative="T(1) - a * a",
        onnx=lambda g, z: g.Tanh(z),
    ),
    "relu": Activation(
        forward=lambda z, a: np.maximum(z, 0, out=a),
        derivative=lambda a, d: np.greater(a, 0, out=d),
        # Written so that NaN stays NaN, as in np.maximum.
        cuda_forward="z < T(0) ? T(0) : z",
        cuda_derivative="a > T(0) ? T(1) : T(0)",
        onnx=lambda g, z: g.Relu(z),
        initialisation="he",
    ),
    "leaky_relu": Activation(
        forward=_leaky_relu,
        derivative=_leaky_relu_derivative,
        cuda_forward=f"z < T(0) ? T({LEAK}) * z : z",
        cuda_derivative=f"a > T(0) ? T(1) : T({LEAK})",
        onnx=lambda g, z: g.Max(z, g.Mul(z, LEAK)),
        initialisation="he",
    ),
    "elu": Activation(
        forward=_elu,
        derivative=_elu_derivative,
        cuda_forward="z < T(0) ? expm1(z) : z",
        # Written so that NaN stays NaN.
        cuda_derivative="a > T(0) ? T(1) : a + T(1)",
        onnx=lambda g, z: g.Add(g.Relu(z), g.Sub(g.Exp(g.Min(z, 0.0)), 1.0)),
        initialisation="he",
    ),
    "gelu": Activation(
        forward=_gelu,
        derivative=_gelu_derivative,
        cuda_forward=f"T(0.5) * z * erfc(T(-{_SQRT_HALF}) * z)",
        cuda_derivative=(f"T(0.5) * erfc(T(-{_SQRT_HALF}) * z) + T({_INV_SQRT_2PI}) * z * exp(T(-0.5) * z * z)"),
        onnx=_gelu_onnx,
        of_output=False,
        initialisation="he",
    ),
    "silu": Activation(
        forward=_silu,
        derivative=_silu_derivative,
        cuda_forward="z / (T(1) + exp(-z))",
        # 1 / (1 + e^z) is 1 - sigmoid(z) with all its digits.
        cuda_derivative="(T(1) + z / (T(1) + exp(z))) / (T(1) + exp(-z))",
        # onnxruntime's Sigmoid in float is off by 1e-7, which z would multiply.
        onnx=lambda g, z: g.Div(z, g.Add(g.Exp(g.Neg(z)), 1.0)),
        of_output=False,
        initialisation="he",
    ),
    "softplus": Activation(
        forward=_softplus,
        derivative=_softplus_derivative,
        cuda_forward="(z > T(0) ? z : T(0)) + log1p(exp(-fabs(z)))",
        cuda_derivative="-expm1(-a)",
        onnx=lambda g, z: g.Add(g.Relu(z), g.Log(g.Add(g.Exp(g.Neg(g.Abs(z))), 1.0))),
        initialisation="he",
    ),
}


def slope(z: ndarray, activation: str, out: ndarray) -> None:
    """out = act'(z), for either kind of derivative; z is overwritten."""
    entry = ACTIVATIONS[activation]
    if entry.of_output:
        entry.forward(z, z)
    entry.derivative(z, out)


def cuda_header() -> str:
    """The table as a CUDA header: a struct `<name>_activation` for each entry; slope(z) is act'(z)."""
    return "\n".join(
        f"struct {name}_activation {{\n"
        f"    template <class T> static __device__ T forward(T z) {{ return {entry.cuda_forward}; }}\n"
        f"    template <class T> static __device__ T derivative(T {'a' if entry.of_output else 'z'}) "
        f"{{ return {entry.cuda_derivative}; }}\n"
        f"    template <class T> static __device__ T slope(T z) "
        f"{{ return derivative({'forward(z)' if entry.of_output else 'z'}); }}\n"
        f"}};"
        for name, entry in ACTIVATIONS.items()
    )
