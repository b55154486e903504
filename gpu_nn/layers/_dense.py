from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from gpu_nn.device import Array
from gpu_nn.errors import unknown_name
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.kernels.relu_backward_fusion import ReluBackwardFusion
from gpu_nn.layers._layer import BoundLayer, Workspace
from gpu_nn.validation import check_int


@dataclass(frozen=True)
class Dense:
    """a = act(b + x·w) with w of shape (inputs, units).

    Backward (seed, section 3): δ = ∂C/∂a · act'(z), ∂C/∂b = Σ_r δ, ∂C/∂w = xᵀδ, ∂C/∂x = δ wᵀ.
    Weights start with variance 2/inputs (He et al. 2015) or 2/(inputs+units) (Glorot & Bengio 2010), as the table entry
    of the activation says; biases at 0. bias=False leaves b out: for a BatchNorm to come, which would undo it.
    """

    units: int
    activation: str = "identity"
    bias: bool = True
    fixed: ClassVar[bool] = False
    decayed: ClassVar[tuple[str, ...]] = ("weight",)
    supports_half: ClassVar[bool] = True
    half_params: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def __post_init__(self) -> None:
        check_int("units", self.units, 1)
        if self.activation not in ACTIVATIONS:
            raise unknown_name("activation", self.activation, ACTIVATIONS)
        if not isinstance(self.bias, bool | np.bool_):
            raise ValueError(f"bias={self.bias!r}; expected True or False")

    def n_outputs(self, n_inputs: int) -> int:
        return self.units

    def parameter_shapes(self, n_inputs: int) -> dict[str, tuple[int, ...]]:
        weight: dict[str, tuple[int, ...]] = {"weight": (n_inputs, self.units)}
        return {**weight, "bias": (self.units,)} if self.bias else weight

    def state_shapes(self, n_inputs: int) -> dict[str, tuple[tuple[int, ...], str | None]]:
        return {}

    def initialise(self, arrays: Mapping[str, np.ndarray], random: np.random.Generator) -> None:
        weight = arrays["weight"]
        n_inputs, units = weight.shape
        he = ACTIVATIONS[self.activation].initialisation == "he"
        variance = 2 / n_inputs if he else 2 / (n_inputs + units)
        weight[:] = random.uniform(-1, 1, weight.shape) * (3 * variance) ** 0.5
        if self.bias:
            arrays["bias"][:] = 0

    def stage(
        self, name: str, n: int, arrays: Mapping[str, Array], grads: Mapping[str, Array], at: Workspace
    ) -> BoundLayer:
        return _DenseStage(self, name, n, arrays, grads, at)


class _DenseStage:
    def __init__(
        self, layer: Dense, name: str, n: int, arrays: Mapping[str, Array], grads: Mapping[str, Array], at: Workspace
    ):
        self.activation = layer.activation
        self.kernels, self.tf32 = at.kernels, at.tf32
        self.weight, self.bias = arrays["weight"], arrays.get("bias")
        self.weight_transposed = self.weight.T
        units = self.weight.shape[1]
        of_output = ACTIVATIONS[layer.activation].of_output
        self.z = at.rows(f"{name}.z", n, units)
        self.a = self.z if of_output else at.rows(f"{name}.a", n, units)
        self.saved = self.a if of_output else self.z
        if grads:
            self.weight_grad, self.bias_grad = grads["weight"], grads.get("bias")
            self.name, self.n, self.at = name, n, at
            self.input_grad: Array = None  # allocated where it is needed
        self.relu_fusion: ReluBackwardFusion | None = None
        self.below: ReluBackwardFusion | None = None

    def take_over(self, below: BoundLayer) -> None:
        """Let this layer's backward pass make δ of the layer right below on its way, where that has a ReLU."""
        if not isinstance(below, _DenseStage) or below.activation != "relu":
            return
        width = self.kernels.relu_mask_bytes(below.a.shape[1])
        mask = below.at.rows(f"{below.name}.mask", below.n, width, np.uint8) if width else None
        self.below = below.relu_fusion = ReluBackwardFusion(below.a, below.bias_grad, mask)

    def forward(self, x: Array, training: bool) -> Array:
        self.x = x
        self.kernels.dense(x, self.weight, self.bias, self.z, self.a, self.activation, self.tf32, self.relu_fusion)
        return self.a

    def backward(self, d: Array, needs_input_grad: bool) -> Array | None:
        if needs_input_grad and self.input_grad is None:
            self.input_grad = self.at.rows(f"{self.name}.input_grad", self.n, len(self.weight))
        dx = self.input_grad if needs_input_grad else None
        # What the layer above took over, it has done.
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


def join(stages: Sequence[BoundLayer]) -> None:
    """Let the backward pass of each dense layer take over what it can of a dense layer right below it."""
    for below, above in pairwise(stages):
        if isinstance(above, _DenseStage):
            above.take_over(below)
