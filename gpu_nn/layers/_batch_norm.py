from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gpu_nn.device import Array
from gpu_nn.layers._layer import LayerMemory
from gpu_nn.layers._normalisation import BoundNormalisation, Normalisation
from gpu_nn.validation import Interval, check_number


@dataclass(frozen=True)
class BatchNorm(Normalisation):
    """a = act(weight · (x - mean) / √(variance + eps) + bias), mean and variance of each column (Ioffe & Szegedy 2015).

    Training uses the mean and variance Σ_r (x - mean)² / n of the batch and updates the running statistics,
    running ← running + momentum · (batch - running), here with the unbiased variance Σ_r (x - mean)² / (n - 1).
    Prediction uses the running statistics, `net.state["i.running_mean"]` and `["i.running_var"]`, which start at 0 and
    1, so it does not depend on the other rows of a batch. A training batch of one row, as the last of an epoch may be,
    has no variance: the running statistics normalise it and are not updated.

    Subtracting the mean undoes a bias of the layer before; Dense(units, bias=False) leaves it out.

    Backward, with dz = ∂C/∂a · act'(z): ∂C/∂bias = Σ_r dz, ∂C/∂weight = Σ_r dz x̂,
    ∂C/∂x = weight (dz - ∂C/∂bias / n - x̂ ∂C/∂weight / n) / √(variance + eps).
    """

    momentum: float = 0.1
    start_at_1: ClassVar[tuple[str, ...]] = ("weight", "running_var")

    def __post_init__(self) -> None:
        super().__post_init__()
        hint = ", the weight of the newest batch, such as 0.1"
        check_number("momentum", self.momentum, Interval(0, 1, above=True), hint)

    def state_shapes(self, n_inputs: int) -> Mapping[str, tuple[tuple[int, ...], str | None]]:
        return {"running_mean": ((n_inputs,), None), "running_var": ((n_inputs,), None)}

    def bind(self, memory: LayerMemory) -> "_BoundBatchNorm":
        return _BoundBatchNorm(self, memory)


class _BoundBatchNorm(BoundNormalisation):
    def __init__(self, layer: BatchNorm, memory: LayerMemory):
        super().__init__(layer, memory)
        self.momentum = layer.momentum
        self.running = self.statistics = memory.arrays["running_mean"], memory.arrays["running_var"]
        self.uses_batch = bool(memory.grads) and memory.n > 1
        if self.uses_batch:
            width, dtype = len(self.weight), self.weight.dtype
            self.statistics = memory.vector("mean", width, dtype), memory.vector("variance", width, dtype)

    def forward(self, x: Array, training: bool) -> Array:
        self.x = x
        if self.uses_batch:
            self.kernels.batch_statistics(x, *self.statistics, *self.running, self.momentum)
        self.kernels.batch_norm(x, *self.statistics, self.weight, self.bias, self.out, *self.options)
        return self.out

    def backward(self, d: Array, needs_input_grad: bool) -> Array | None:
        self.kernels.batch_norm_backward(d, self.x, *self.statistics, *self.affine, *self.options, self.uses_batch)
        return d
