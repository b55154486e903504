"""The layers that draw random numbers in training: a seed, and a counter of the forward passes."""

from collections.abc import Mapping

import numpy as np

from gpu_nn.device import Array
from gpu_nn.layers._layer import BoundLayer, Layer, LayerMemory, LayerT


class StochasticLayer(Layer):
    """The identity outside training. What a training pass draws is a function of the layer's seed and the number of the
    pass alone: it is the same on every device, and training resumes with the draw that was due."""

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
