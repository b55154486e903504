"""What layers share that draw random numbers in training: a seed, and a count of the forward passes."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np


class StochasticLayer:
    """What a pass draws follows from the layer's seed and the number of the pass alone: it is the same on every device,
    and training resumes with what was due."""

    fixed: ClassVar[bool] = False
    supports_half: ClassVar[bool] = True
    half_params: ClassVar[tuple[str, ...]] = ()
    decayed: ClassVar[tuple[str, ...]] = ()

    def n_outputs(self, n_inputs: int) -> int:
        return n_inputs

    def parameter_shapes(self, n_inputs: int) -> dict[str, tuple[int, ...]]:
        return {}

    def state_shapes(self, n_inputs: int) -> dict[str, tuple[tuple[int, ...], str | None]]:
        return {"seed": ((1,), "uint64"), "counter": ((1,), "uint64")}

    def initialise(self, arrays: Mapping[str, np.ndarray], random: np.random.Generator) -> None:
        arrays["seed"][0] = random.integers(0, 2**63, dtype=np.uint64)
        arrays["counter"][0] = 0
