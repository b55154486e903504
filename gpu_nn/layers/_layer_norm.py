from dataclasses import dataclass

from gpu_nn.device import Array
from gpu_nn.layers._layer import LayerMemory
from gpu_nn.layers._normalisation import BoundNormalisation, Normalisation


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
