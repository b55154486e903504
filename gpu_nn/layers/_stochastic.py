"""The layers that draw random numbers in training: a seed, and a counter of the forward passes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gpu_nn.device import Array
from gpu_nn.layers._layer import BoundLayer, Layer, LayerMemory, LayerT
from gpu_nn.validation import BELOW_1, check_number


class StochasticLayer(Layer):
    """The identity outside training. What a training pass draws is a function of the layer's seed and the number of the
    pass alone: it is the same on every device, noise but for rounding, and training resumes with the draw that was due.
    """

    def state_shapes(self, n_inputs: int) -> Mapping[str, tuple[tuple[int, ...], str | None]]:
        return {"seed": ((1,), "uint64"), "counter": ((1,), "uint64")}

    def initialise(self, arrays: Mapping[str, np.ndarray], random: np.random.Generator) -> None:
        arrays["seed"][0] = random.integers(0, 2**63, dtype=np.uint64)


class BoundStochasticLayer(BoundLayer[LayerT]):
    """strength: the layer's parameter of the distribution; at 0 nothing is drawn."""

    def __init__(self, layer: LayerT, memory: LayerMemory, strength: float):
        super().__init__(layer, memory)
        self.strength = strength
        self.seed = int(memory.workspace.device.to_host(memory.arrays["seed"])[0])
        self.counter = memory.arrays["counter"]

    def forward(self, x: Array, training: bool) -> Array:
        if not training or not self.strength:
            return x
        # Not in place: the layer before needs its output for its derivative.
        out = self.memory.rows("out", x.shape[1])
        self.draw(x, out)
        self.kernels.increment(self.counter)
        return out

    def draw(self, x: Array, out: Array) -> None:
        """Write the layer's output for x, (n, inputs), into `out`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Dropout(StochasticLayer):
    """In training each input is 0 with probability `rate`, and the others are divided by 1-rate; else the identity."""

    rate: float

    def __post_init__(self) -> None:
        check_number("rate", self.rate, BELOW_1)

    def bind(self, memory: LayerMemory) -> "_BoundDropout":
        return _BoundDropout(self, memory, self.rate)


class _BoundDropout(BoundStochasticLayer[Dropout]):
    def draw(self, x: Array, out: Array) -> None:
        self.mask = self.memory.rows("mask", x.shape[1], np.bool_)
        self.kernels.dropout(x, out, self.mask, self.strength, self.seed, self.counter)

    def backward(self, d: Array, needs_input_grad: bool) -> Array | None:
        if self.strength:
            self.kernels.dropout_backward(d, self.mask, self.strength)
        return d


@dataclass(frozen=True)
class InputNoise(StochasticLayer):
    """In training x + deviation · ε with ε ~ N(0, 1), new for each value and pass; else the identity.

    Behind Standardize, `deviation` is in units of each column's standard deviation.
    """

    deviation: float

    def __post_init__(self) -> None:
        check_number("deviation", self.deviation)

    def bind(self, memory: LayerMemory) -> "_BoundInputNoise":
        return _BoundInputNoise(self, memory, self.deviation)


class _BoundInputNoise(BoundStochasticLayer[InputNoise]):
    def draw(self, x: Array, out: Array) -> None:
        self.kernels.noise(x, out, self.strength, self.seed, self.counter)
