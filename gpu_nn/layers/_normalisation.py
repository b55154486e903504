"""What the normalising layers share: an affine map with an activation, and the arrays that learn it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gpu_nn.errors import unknown_name
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.validation import POSITIVE, check_number


@dataclass(frozen=True)
class Normalisation:
    """a = act(weight · x̂ + bias); what x̂ is, is the layer's. weight starts at 1, bias at 0; neither decays.

    Of a half type are x and a alone: mean, variance, weight and bias are numbers of float32 in all precisions.
    """

    activation: str = "identity"
    eps: float = 1e-5
    fixed: ClassVar[bool] = False
    supports_half: ClassVar[bool] = True
    half_params: ClassVar[tuple[str, ...]] = ()
    decayed: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise unknown_name("activation", self.activation, ACTIVATIONS)
        check_number("eps", self.eps, POSITIVE, ", such as 1e-5")

    def n_outputs(self, n_inputs: int) -> int:
        return n_inputs

    def parameter_shapes(self, n_inputs: int) -> dict[str, tuple[int, ...]]:
        return {"weight": (n_inputs,), "bias": (n_inputs,)}

    def initialise(self, arrays: Mapping[str, np.ndarray], random: np.random.Generator) -> None:
        arrays["weight"][:] = 1
        arrays["bias"][:] = 0
