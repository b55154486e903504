from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gpu_nn.device import Array
from gpu_nn.layers._layer import BoundLayer, Layer, LayerMemory


@dataclass(frozen=True)
class Standardize(Layer):
    """(x - shift) · scale with constants that belong to the model, so that the columns have one scale.

    The constants are `net.state["0.shift"]` and `net.state["0.scale"]`, (inputs,) each; 0 and 1 until they are set.
    """

    is_preprocessing: ClassVar[bool] = True
    supports_half: ClassVar[bool] = False
    start_at_1: ClassVar[tuple[str, ...]] = ("scale",)

    def state_shapes(self, n_inputs: int) -> Mapping[str, tuple[tuple[int, ...], str | None]]:
        return {"shift": ((n_inputs,), None), "scale": ((n_inputs,), None)}

    def bind(self, memory: LayerMemory) -> "_BoundStandardize":
        return _BoundStandardize(self, memory)


class _BoundStandardize(BoundLayer[Standardize]):
    def __init__(self, layer: Standardize, memory: LayerMemory):
        super().__init__(layer, memory)
        self.xp = memory.workspace.device.xp
        self.shift, self.scale = memory.arrays["shift"], memory.arrays["scale"]
        self.out = memory.rows("out", len(self.shift))

    def forward(self, x: Array, training: bool) -> Array:
        self.xp.subtract(x, self.shift, out=self.out)
        self.xp.multiply(self.out, self.scale, out=self.out)
        return self.out

    def backward(self, d: Array, needs_input_grad: bool) -> Array | None:
        d *= self.scale
        return d
