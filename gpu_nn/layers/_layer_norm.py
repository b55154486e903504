from collections.abc import Mapping
from dataclasses import dataclass

from gpu_nn.device import Array
from gpu_nn.layers._layer import BoundLayer, Workspace
from gpu_nn.layers._normalisation import Normalisation


@dataclass(frozen=True)
class LayerNorm(Normalisation):
    """a = act(weight · (x - mean) / √(variance + eps) + bias), mean and variance of each row (Ba et al. 2016).

    A row does not see the others, so training and prediction are the same, whatever the batch.

    Backward, with dz = ∂C/∂a · act'(z) and g = weight · dz, means over the row:
    ∂C/∂bias = Σ_r dz, ∂C/∂weight = Σ_r dz x̂, ∂C/∂x = (g - mean(g) - x̂ mean(g x̂)) / √(variance + eps).
    """

    def state_shapes(self, n_inputs: int) -> dict[str, tuple[tuple[int, ...], str | None]]:
        return {}

    def stage(
        self, name: str, n: int, arrays: Mapping[str, Array], grads: Mapping[str, Array], at: Workspace
    ) -> BoundLayer:
        return _LayerNormStage(self, name, n, arrays, grads, at)


class _LayerNormStage:
    def __init__(
        self,
        layer: LayerNorm,
        name: str,
        n: int,
        arrays: Mapping[str, Array],
        grads: Mapping[str, Array],
        at: Workspace,
    ):
        self.kernels, self.how = at.kernels, (layer.eps, layer.activation)
        self.weight, self.bias = arrays["weight"], arrays["bias"]
        self.out = at.rows(f"{name}.out", n, len(self.weight))
        dtype = self.weight.dtype
        self.mean, self.variance = (at.rows(f"{name}.{what}", n, 1, dtype)[:, 0] for what in ("mean", "variance"))
        if grads:
            self.weight_grad, self.bias_grad = grads["weight"], grads["bias"]

    def forward(self, x: Array, training: bool) -> Array:
        self.x = x
        self.kernels.layer_norm(x, self.weight, self.bias, self.out, self.mean, self.variance, *self.how)
        return self.out

    def backward(self, d: Array, needs_input_grad: bool) -> Array | None:
        of_rows, learned = (self.mean, self.variance), (self.weight, self.bias, self.weight_grad, self.bias_grad)
        self.kernels.layer_norm_backward(d, self.x, *of_rows, *learned, *self.how)
        return d
