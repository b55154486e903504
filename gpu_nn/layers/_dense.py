from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from gpu_nn.device import Array
from gpu_nn.errors import unknown_name
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.kernels.relu_backward_fusion import ReluBackwardFusion
from gpu_nn.layers._layer import BoundLayer, Layer, LayerMemory
from gpu_nn.validation import check_int


@dataclass(frozen=True)
class Dense(Layer):
    """a = act(b + x·w) with w of shape (inputs, units).

    Backward: δ = ∂C/∂a · act'(z), ∂C/∂b = Σ_r δ, ∂C/∂w = xᵀδ, ∂C/∂x = δ wᵀ.
    Weights start with variance 2/inputs (He et al. 2015) or 2/(inputs+units) (Glorot & Bengio 2010), whichever
    `ACTIVATIONS` gives for the activation; biases start at 0. bias=False leaves b out, for a BatchNorm behind it, which
    would undo it.
    """

    units: int
    activation: str = "identity"
    bias: bool = True
    half_params: ClassVar[tuple[str, ...]] = ("weight", "bias")
    weight_decay_params: ClassVar[tuple[str, ...]] = ("weight",)

    def __post_init__(self) -> None:
        check_int("units", self.units, 1)
        if self.activation not in ACTIVATIONS:
            raise unknown_name("activation", self.activation, ACTIVATIONS)
        if not isinstance(self.bias, bool | np.bool_):
            raise ValueError(f"bias={self.bias!r}; expected True or False")

    def n_outputs(self, n_inputs: int) -> int:
        return self.units

    def parameter_shapes(self, n_inputs: int) -> Mapping[str, tuple[int, ...]]:
        weight = {"weight": (n_inputs, self.units)}
        return {**weight, "bias": (self.units,)} if self.bias else weight

    def initialise(self, arrays: Mapping[str, np.ndarray], random: np.random.Generator) -> None:
        weight = arrays["weight"]
        n_inputs, units = weight.shape
        he = ACTIVATIONS[self.activation].initialisation == "he"
        variance = 2 / n_inputs if he else 2 / (n_inputs + units)
        weight[:] = random.uniform(-1, 1, weight.shape) * (3 * variance) ** 0.5

    def bind(self, memory: LayerMemory) -> "_BoundDense":
        return _BoundDense(self, memory)


class _BoundDense(BoundLayer[Dense]):
    def __init__(self, layer: Dense, memory: LayerMemory):
        super().__init__(layer, memory)
        self.activation, self.tf32 = layer.activation, memory.workspace.tf32
        self.weight, self.bias = memory.arrays["weight"], memory.arrays.get("bias")
        self.weight_transposed = self.weight.T
        from_output = ACTIVATIONS[layer.activation].of_output
        self.z = memory.rows("z", layer.units)
        self.a = self.z if from_output else memory.rows("a", layer.units)
        self.saved = self.a if from_output else self.z
        if memory.grads:
            self.weight_grad, self.bias_grad = memory.grads["weight"], memory.grads.get("bias")
            self.input_grad: Array = None  # allocated where it is needed
        self.relu_fusion: ReluBackwardFusion | None = None
        self.below: ReluBackwardFusion | None = None

    def fuse_relu_of(self, below: "_BoundDense") -> None:
        """Let this layer's backward pass compute ∂C/∂z of the layer below, which has a ReLU."""
        width = self.kernels.relu_mask_bytes(below.layer.units)
        mask = below.memory.rows("mask", width, np.uint8) if width else None
        self.below = below.relu_fusion = ReluBackwardFusion(below.a, below.bias_grad, mask)

    def forward(self, x: Array, training: bool) -> Array:
        self.x = x
        self.kernels.dense(x, self.weight, self.bias, self.z, self.a, self.activation, self.tf32, self.relu_fusion)
        return self.a

    def backward(self, d: Array, needs_input_grad: bool) -> Array | None:
        if needs_input_grad and self.input_grad is None:
            self.input_grad = self.memory.rows("input_grad", len(self.weight))
        dx = self.input_grad if needs_input_grad else None
        # Where the ReLU is fused into the layer above, d is ∂C/∂z already and the bias gradient is filled.
        activation, bias_grad = (self.activation, self.bias_grad) if self.relu_fusion is None else ("identity", None)
        self.kernels.dense_backward(
            self.x,
            self.weight_transposed,
            d,
            self.saved,
            self.weight_grad,
            bias_grad,
            dx,
            activation,
            self.tf32,
            self.below,
        )
        return dx


def fuse_relu_backward(layers: Sequence[BoundLayer[Any]]) -> None:
    """Fuse the derivative of each dense layer's ReLU into the backward pass of a dense layer right above it."""
    for below, above in pairwise(layers):
        if isinstance(above, _BoundDense) and isinstance(below, _BoundDense) and below.activation == "relu":
            above.fuse_relu_of(below)
