from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gpu_nn.device import Array
from gpu_nn.layers._layer import BoundLayer, Workspace
from gpu_nn.layers._normalisation import Normalisation
from gpu_nn.validation import Interval, check_number


@dataclass(frozen=True)
class BatchNorm(Normalisation):
    """a = act(weight · (x - mean) / √(variance + eps) + bias), mean and variance of each column (Ioffe & Szegedy 2015).

    In training they are those of the batch, with the variance Σ_r (x - mean)² / n, and the running ones follow:
    running ← running + momentum · (batch - running), there with the unbiased variance, Σ_r (x - mean)² / (n - 1).
    Elsewhere they are the running ones, `net.state["i.running_mean"]` and `["i.running_var"]`, which begin at 0 and 1:
    a prediction does not depend on the rows beside it. A training batch of one row, as the last of an epoch may be, has
    no variance: it is normalised by the running ones and leaves them as they are.

    A bias of the layer before is undone by the mean; Dense(units, bias=False) leaves it out.

    Backward, with dz = ∂C/∂a · act'(z): ∂C/∂bias = Σ_r dz, ∂C/∂weight = Σ_r dz x̂,
    ∂C/∂x = weight (dz - ∂C/∂bias / n - x̂ ∂C/∂weight / n) / √(variance + eps).
    """

    momentum: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        hint = ", the weight of the newest batch, such as 0.1"
        check_number("momentum", self.momentum, Interval(0, 1, above=True), hint)

    def state_shapes(self, n_inputs: int) -> dict[str, tuple[tuple[int, ...], str | None]]:
        return {"running_mean": ((n_inputs,), None), "running_var": ((n_inputs,), None)}

    def initialise(self, arrays: Mapping[str, np.ndarray], random: np.random.Generator) -> None:
        super().initialise(arrays, random)
        arrays["running_mean"][:] = 0
        arrays["running_var"][:] = 1

    def stage(
        self, name: str, n: int, arrays: Mapping[str, Array], grads: Mapping[str, Array], at: Workspace
    ) -> BoundLayer:
        return _BatchNormStage(self, name, n, arrays, grads, at)


class _BatchNormStage:
    def __init__(
        self,
        layer: BatchNorm,
        name: str,
        n: int,
        arrays: Mapping[str, Array],
        grads: Mapping[str, Array],
        at: Workspace,
    ):
        self.kernels, self.how, self.momentum = at.kernels, (layer.eps, layer.activation), layer.momentum
        self.weight, self.bias = arrays["weight"], arrays["bias"]
        self.running = self.statistics = arrays["running_mean"], arrays["running_var"]
        width = len(self.weight)
        self.out = at.rows(f"{name}.out", n, width)
        self.of_batch = bool(grads) and n > 1
        if self.of_batch:
            dtype = self.weight.dtype
            self.statistics = at.vector(f"{name}.mean", width, dtype), at.vector(f"{name}.variance", width, dtype)
        if grads:
            self.weight_grad, self.bias_grad = grads["weight"], grads["bias"]

    def forward(self, x: Array, training: bool) -> Array:
        self.x = x
        if self.of_batch:
            self.kernels.batch_statistics(x, *self.statistics, *self.running, self.momentum)
        self.kernels.batch_norm(x, *self.statistics, self.weight, self.bias, self.out, *self.how)
        return self.out

    def backward(self, d: Array, needs_input_grad: bool) -> Array | None:
        learned = self.weight, self.bias, self.weight_grad, self.bias_grad
        self.kernels.batch_norm_backward(d, self.x, *self.statistics, *learned, *self.how, self.of_batch)
        return d
