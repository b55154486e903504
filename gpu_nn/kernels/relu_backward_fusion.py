"""Fusion of a ReLU layer's backward pass into the matrix product of the dense layer above it."""

from dataclasses import dataclass

from gpu_nn.device import Array


@dataclass
class ReluBackwardFusion:
    """Arrays of a dense layer with ReLU, from which `dense_backward` of the layer above computes this layer's ∂C/∂z.

    a: the layer's output, (n, units).  bias_grad: receives Σ_r ∂C/∂z, or None.  mask: (n, `relu_mask_bytes`) bytes
    whose bits say z > 0, or None where no matrix product writes them.  masked: whether the latest forward pass wrote
    them.
    """

    a: Array
    bias_grad: Array | None
    mask: Array | None
    masked: bool = False
