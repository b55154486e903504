"""What the normalising layers share: an affine map with an activation, and its parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gpu_nn.device import Array
from gpu_nn.errors import unknown_name
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.layers._layer import BoundLayer, Layer, LayerMemory
from gpu_nn.validation import POSITIVE, check_number


@dataclass(frozen=True)
class Normalisation(Layer):
    """a = act(weight · x̂ + bias), where a subclass defines x̂. weight starts at 1, bias at 0; neither decays.

    In mixed precision only x and a are of the half type: mean, variance, weight and bias are always float32.
    """

    activation: str = "identity"
    eps: float = 1e-5
    start_at_1: ClassVar[tuple[str, ...]] = ("weight",)

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise unknown_name("activation", self.activation, ACTIVATIONS)
        check_number("eps", self.eps, POSITIVE, ", such as 1e-5")

    def parameter_shapes(self, n_inputs: int) -> Mapping[str, tuple[int, ...]]:
        return {"weight": (n_inputs,), "bias": (n_inputs,)}


class BoundNormalisation(BoundLayer[Normalisation]):
    """options: eps and activation, as the kernels take them.  affine: weight and bias, in training their gradients,
    too.  out: the output, (n, columns)."""

    def __init__(self, layer: Normalisation, memory: LayerMemory):
        super().__init__(layer, memory)
        self.options = layer.eps, layer.activation
        self.weight, self.bias = memory.arrays["weight"], memory.arrays["bias"]
        self.out = memory.rows("out", len(self.weight))
        if memory.grads:
            self.affine: tuple[Array, ...] = self.weight, self.bias, memory.grads["weight"], memory.grads["bias"]
