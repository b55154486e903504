from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gpu_nn.device import Array
from gpu_nn.layers._layer import BoundLayer, Workspace
from gpu_nn.layers._stochastic import StochasticLayer
from gpu_nn.validation import BELOW_1, check_number


@dataclass(frozen=True)
class Dropout(StochasticLayer):
    """In training each input is 0 with probability `rate`, and the others are divided by 1-rate; else the identity.

    The mask follows from the layer's seed and the number of the forward pass alone: it is the same on every device, and
    training resumes with the mask that was due.
    """

    rate: float

    def __post_init__(self) -> None:
        check_number("rate", self.rate, BELOW_1)

    def stage(
        self, name: str, n: int, arrays: Mapping[str, Array], grads: Mapping[str, Array], at: Workspace
    ) -> BoundLayer:
        return _DropoutStage(self.rate, name, n, arrays, at)


class _DropoutStage:
    def __init__(self, rate: float, name: str, n: int, arrays: Mapping[str, Array], at: Workspace):
        self.rate, self.name, self.n, self.at = rate, name, n, at
        self.kernels = at.kernels
        self.seed, self.counter = int(at.device.to_host(arrays["seed"])[0]), arrays["counter"]

    def forward(self, x: Array, training: bool) -> Array:
        if not training or not self.rate:
            return x
        # Not over x: the layer before needs its output for its derivative.
        out = self.at.rows(f"{self.name}.out", self.n, x.shape[1])
        self.mask = self.at.rows(f"{self.name}.mask", self.n, x.shape[1], np.bool_)
        self.kernels.dropout(x, out, self.mask, self.rate, self.seed, self.counter)
        self.kernels.increment(self.counter)
        return out

    def backward(self, d: Array, needs_input_grad: bool) -> Array | None:
        if self.rate:
            self.kernels.dropout_backward(d, self.mask, self.rate)
        return d
