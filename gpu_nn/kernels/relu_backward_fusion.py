"""What a dense layer with ReLU leaves to the backward pass of the dense layer above it."""

from dataclasses import dataclass

from gpu_nn.device import Array


@dataclass
class ReluBackwardFusion:
    """The product ∂C/∂x = δ wᵀ of the layer above is ∂C/∂a here, and may become ∂C/∂z on its way.

    a: the layer's output, (n, units).  bias_grad: where Σ_r ∂C/∂z goes, or None.  mask: (n, `relu_mask_bytes`) bytes
    whose bits say z > 0, or None where no product writes them.  masked: whether the latest forward pass did.
    """

    a: Array
    bias_grad: Array | None
    mask: Array | None
    masked: bool = False
