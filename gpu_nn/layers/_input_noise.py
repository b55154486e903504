from dataclasses import dataclass

from gpu_nn.device import Array
from gpu_nn.layers._layer import LayerMemory
from gpu_nn.layers._stochastic import BoundStochasticLayer, StochasticLayer
from gpu_nn.validation import check_number


@dataclass(frozen=True)
class InputNoise(StochasticLayer):
    """In training x + deviation · ε with ε ~ N(0, 1), new for each value and pass; else the identity.

    The noise is a function of the layer's seed and the number of the forward pass alone: it is the same on every device
    but for rounding, and training resumes with the noise that was due. Behind Standardize, `deviation` is in units of
    each column's standard deviation.
    """

    deviation: float

    def __post_init__(self) -> None:
        check_number("deviation", self.deviation)

    def bind(self, memory: LayerMemory) -> "_BoundInputNoise":
        return _BoundInputNoise(self, memory, self.deviation)


class _BoundInputNoise(BoundStochasticLayer[InputNoise]):
    def draw(self, x: Array, out: Array) -> None:
        self.kernels.noise(x, out, self.strength, self.seed, self.counter)
