"""What a backward pass does with gradients that the forward pass has computed: it scales them, once."""

from typing import Any

import torch


class _Last(torch.autograd.Function):
    """The identity, whose derivative is an error: the forward pass computed a gradient and no second one."""

    @staticmethod
    def forward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, of_grad: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(
            "gpu_nn.torch computes the gradient in the forward pass and cannot be differentiated twice: use "
            "torch.nn.functional.cross_entropy where a second derivative is needed"
        )


def scaled(grad: torch.Tensor, factor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """grad · factor in `dtype`, that of grad when None; the product is rounded once."""
    dtype = grad.dtype if dtype is None else dtype
    with torch.no_grad():
        if factor.dtype == grad.dtype == dtype:
            product = grad * factor
        else:
            product = torch.mul(grad, factor, out=torch.empty_like(grad, dtype=dtype))
    return last(product)


def last(grad: torch.Tensor) -> torch.Tensor:
    """`grad`; under create_graph=True a derivative of it is refused, which would else be taken for 0."""
    return _Last.apply(grad.detach().requires_grad_()) if torch.is_grad_enabled() else grad
