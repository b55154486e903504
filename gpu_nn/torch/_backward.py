"""The backward pass scales gradients that the forward pass has computed, and refuses a second derivative."""

from typing import Any

import torch


class _OnceDifferentiable(torch.autograd.Function):
    """The identity on a gradient; its own derivative by the tensors that it was `computed_from` is an error.

    torch.autograd.function.once_differentiable does not do: without edges to `computed_from` autograd would take the
    derivative for 0.
    """

    @staticmethod
    def forward(ctx: Any, grad: torch.Tensor, *computed_from: torch.Tensor) -> torch.Tensor:
        return grad.detach()  # unlike a view it may be changed in place, as optimizers do

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(
            "gpu_nn.torch computes the gradient in the forward pass and cannot be differentiated twice: use "
            "torch.nn.functional.cross_entropy where a second derivative is needed"
        )


def once_differentiable(grad: torch.Tensor, *computed_from: torch.Tensor) -> torch.Tensor:
    """`grad`, whose derivative under create_graph=True is a RuntimeError instead of 0."""
    return _OnceDifferentiable.apply(grad, *computed_from) if torch.is_grad_enabled() else grad


def scale_grad(grad: torch.Tensor, factor: torch.Tensor, edge: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """grad · factor in `dtype`, once differentiable; the product is rounded once."""
    with torch.no_grad():
        if factor.dtype == grad.dtype == dtype:
            product = grad * factor
        else:
            product = torch.mul(grad, factor, out=torch.empty_like(grad, dtype=dtype))
    return once_differentiable(product, factor, edge)


def new_edge(input: torch.Tensor) -> torch.Tensor:
    """An extra, empty output of an operator: the operator's node in the graph, for `once_differentiable`.

    The loss would do too, but autograd forbids to change a saved tensor in place, as callers may with the loss.
    """
    return input.new_empty(0)
