from dataclasses import dataclass

import numpy as np

from gpu_nn.device import Array
from gpu_nn.layers._layer import LayerMemory
from gpu_nn.layers._stochastic import BoundStochasticLayer, StochasticLayer
from gpu_nn.validation import BELOW_1, check_number


@dataclass(frozen=True)
class Dropout(StochasticLayer):
    """In training each input is 0 with probability `rate`, and the others are divided by 1-rate; else the identity.

    The mask is a function of the layer's seed and the number of the forward pass alone: it is the same on every device,
    and training resumes with the mask that was due.
    """

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
