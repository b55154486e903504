from collections.abc import Mapping
from dataclasses import dataclass

from gpu_nn.device import Array
from gpu_nn.layers._layer import BoundLayer, Workspace
from gpu_nn.layers._stochastic import StochasticLayer
from gpu_nn.validation import check_number


@dataclass(frozen=True)
class InputNoise(StochasticLayer):
    """In training x + deviation · ε with ε ~ N(0, 1), new for each value and pass; else the identity.

    The noise follows from the layer's seed and the number of the forward pass alone: it is the same on every device but
    for roundings, and training resumes with the noise that was due. Behind Standardize, deviation is a share of each
    column's own.
    """

    deviation: float

    def __post_init__(self) -> None:
        check_number("deviation", self.deviation)

    def stage(
        self, name: str, n: int, arrays: Mapping[str, Array], grads: Mapping[str, Array], at: Workspace
    ) -> BoundLayer:
        return _InputNoiseStage(self.deviation, name, n, arrays, at)


class _InputNoiseStage:
    def __init__(self, deviation: float, name: str, n: int, arrays: Mapping[str, Array], at: Workspace):
        self.deviation, self.name, self.n, self.at = deviation, name, n, at
        self.kernels = at.kernels
        self.seed, self.counter = int(at.device.to_host(arrays["seed"])[0]), arrays["counter"]

    def forward(self, x: Array, training: bool) -> Array:
        if not training or not self.deviation:
            return x
        out = self.at.rows(f"{self.name}.out", self.n, x.shape[1])
        self.kernels.noise(x, out, self.deviation, self.seed, self.counter)
        self.kernels.increment(self.counter)
        return out

    def backward(self, d: Array, needs_input_grad: bool) -> Array | None:
        return d
