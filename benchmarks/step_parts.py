"""Which kernels hold the time of our training step."""

import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

from gpu_nn import Adam, Trainer, network
from gpu_nn.device import CPU
from gpu_nn.kernels import kernels_for


class Timed:
    """Kernels with a clock: `seconds` by name. Those that call one another count once, in the outer one."""

    def __init__(self, kernels: Any):
        self._kernels = kernels
        self.seconds: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        kernel = getattr(self._kernels, name)
        if name == "cuda_graph" or not callable(kernel):
            return kernel
        timed = self._timed(name, kernel)
        setattr(self, name, timed)
        return timed

    def _timed(self, name: str, kernel: Callable) -> Callable:
        seconds = self.seconds

        def run(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            result = kernel(*args, **options)
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
            return result

        return run


def parts(widths: list[int], batch: int, x: np.ndarray, y: np.ndarray, epochs: int) -> dict[str, float]:
    """Microseconds of a step in each kernel, the full cost and Adam, and "between kernels": what is left of it."""
    kernels = Timed(kernels_for(CPU))
    with mock.patch.object(network, "kernels_for", return_value=kernels):
        net = network.Network(widths, device="cpu")
    trainer = Trainer(net, Adam(1e-3), batch_size=batch)
    trainer.fit(x, y, epochs=1)  # to warm up
    kernels.seconds.clear()
    whole = sum(record.seconds for record in trainer.fit(x, y, epochs=epochs)[-epochs:])
    steps = epochs * (len(x) // batch)
    found = {name: 1e6 * seconds / steps for name, seconds in kernels.seconds.items()}
    return found | {"between kernels": 1e6 * whole / steps - sum(found.values())}
