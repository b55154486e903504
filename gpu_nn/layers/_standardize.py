from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gpu_nn.device import Array
from gpu_nn.layers._layer import BoundLayer, Workspace


@dataclass(frozen=True)
class Standardize:
    """(x - shift) · scale with constants that belong to the model: the inputs as they come, brought to the same size.

    The constants are `net.state["0.shift"]` and `net.state["0.scale"]`, (inputs,) each; 0 and 1 until they are set.
    """

    fixed: ClassVar[bool] = True
    decayed: ClassVar[tuple[str, ...]] = ()
    supports_half: ClassVar[bool] = False
    half_params: ClassVar[tuple[str, ...]] = ()

    def n_outputs(self, n_inputs: int) -> int:
        return n_inputs

    def parameter_shapes(self, n_inputs: int) -> dict[str, tuple[int, ...]]:
        return {}

    def state_shapes(self, n_inputs: int) -> dict[str, tuple[tuple[int, ...], str | None]]:
        return {"shift": ((n_inputs,), None), "scale": ((n_inputs,), None)}

    def initialise(self, arrays: Mapping[str, np.ndarray], random: np.random.Generator) -> None:
        arrays["shift"][:] = 0
        arrays["scale"][:] = 1

    def stage(
        self, name: str, n: int, arrays: Mapping[str, Array], grads: Mapping[str, Array], at: Workspace
    ) -> BoundLayer:
        return _StandardizeStage(name, n, arrays, at)


class _StandardizeStage:
    def __init__(self, name: str, n: int, arrays: Mapping[str, Array], at: Workspace):
        self.xp = at.device.xp
        self.shift, self.scale = arrays["shift"], arrays["scale"]
        self.out = at.rows(f"{name}.out", n, len(self.shift))

    def forward(self, x: Array, training: bool) -> Array:
        self.xp.subtract(x, self.shift, out=self.out)
        self.xp.multiply(self.out, self.scale, out=self.out)
        return self.out

    def backward(self, d: Array, needs_input_grad: bool) -> Array | None:
        d *= self.scale
        return d
