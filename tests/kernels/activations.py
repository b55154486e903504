"""Activations and their derivatives by definition, in mpmath's numbers."""

from collections.abc import Callable

import mpmath

from gpu_nn.kernels.activations import LEAK

Formula = Callable[[mpmath.mpf], mpmath.mpf]

# a = act(z).
ACTIVATION_FORMULAS: dict[str, Formula] = {
    "identity": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "tanh": mpmath.tanh,
    "relu": lambda z: max(z, mpmath.mpf(0)),
    "leaky_relu": lambda z: z if z > 0 else LEAK * z,
    "elu": lambda z: z if z > 0 else mpmath.expm1(z),
    "gelu": lambda z: z * mpmath.erfc(-z / mpmath.sqrt(2)) / 2,
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "softplus": lambda z: mpmath.log1p(mpmath.exp(z)),
}

# ∂a/∂z as a function of a, or of z where `gpu_nn.kernels.activations` saves z.
ACTIVATION_DERIVATIVES: dict[str, Formula] = {
    "identity": lambda a: mpmath.mpf(1),
    "sigmoid": lambda a: a * (1 - a),
    "tanh": lambda a: 1 - a * a,
    "relu": lambda a: mpmath.mpf(a > 0),
    "leaky_relu": lambda a: mpmath.mpf(1) if a > 0 else mpmath.mpf(LEAK),
    "elu": lambda a: mpmath.mpf(1) if a > 0 else a + 1,
    "gelu": lambda z: mpmath.erfc(-z / mpmath.sqrt(2)) / 2 + z * mpmath.npdf(z),
    "silu": lambda z: (1 + z / (1 + mpmath.exp(z))) / (1 + mpmath.exp(-z)),
    "softplus": lambda a: -mpmath.expm1(-a),
}
