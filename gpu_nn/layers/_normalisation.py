"""Layer and batch normalisation: an affine map with an activation behind x̂, which they define."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gpu_nn.device import Array
from gpu_nn.errors import unknown_name
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.layers._layer import BoundLayer, Layer, LayerMemory
from gpu_nn.validation import POSITIVE, Interval, check_number


@dataclass(frozen=True)
class Normalisation(Layer):
    """a = act(weight · x̂ + bias), where a subclass defines x̂. weight starts at 1, bias at 0; neither decays.

    In mixed precision only x and a are of the half type: mean, variance, weight and bias are always float32.
    """

    activation: str = "identity"
    eps: float = 1e-5
    start_at_1: ClassVar[tuple[str, ...]] = ("weight",)

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise unknown_name("activation", self.activation, ACTIVATIONS)
        check_number("eps", self.eps, POSITIVE, ", such as 1e-5")

    def parameter_shapes(self, n_inputs: int) -> Mapping[str, tuple[int, ...]]:
        return {"weight": (n_inputs,), "bias": (n_inputs,)}


class BoundNormalisation(BoundLayer[Normalisation]):
    """options: eps and activation, as the kernels take them.  affine: weight and bias, in training their gradients,
    too.  out: the output, (n, columns)."""

    def __init__(self, layer: Normalisation, memory: LayerMemory):
        super().__init__(layer, memory)
        self.options = layer.eps, layer.activation
        self.weight, self.bias = memory.arrays["weight"], memory.arrays["bias"]
        self.out = memory.rows("out", len(self.weight))
        if memory.grads:
            self.affine: tuple[Array, ...] = self.weight, self.bias, memory.grads["weight"], memory.grads["bias"]


@dataclass(frozen=True)
class LayerNorm(Normalisation):
    """a = act(weight · (x - mean) / √(variance + eps) + bias), mean and variance of each row (Ba et al. 2016).

    Each row is normalised by itself, so training and prediction are the same, whatever the batch.

    Backward, with dz = ∂C/∂a · act'(z) and g = weight · dz, means over the row:
    ∂C/∂bias = Σ_r dz, ∂C/∂weight = Σ_r dz x̂, ∂C/∂x = (g - mean(g) - x̂ mean(g x̂)) / √(variance + eps).
    """

    def bind(self, memory: LayerMemory) -> "_BoundLayerNorm":
        return _BoundLayerNorm(self, memory)


class _BoundLayerNorm(BoundNormalisation):
    def __init__(self, layer: LayerNorm, memory: LayerMemory):
        super().__init__(layer, memory)
        dtype = self.weight.dtype
        self.mean, self.variance = (memory.rows(name, 1, dtype)[:, 0] for name in ("mean", "variance"))

    def forward(self, x: Array, training: bool) -> Array:
        self.x = x
        self.kernels.layer_norm(x, self.weight, self.bias, self.out, self.mean, self.variance, *self.options)
        return self.out

    def backward(self, d: Array, needs_input_grad: bool) -> Array | None:
        self.kernels.layer_norm_backward(d, self.x, self.mean, self.variance, *self.affine, *self.options)
        return d


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
