"""What a backward pass does with gradients that the forward pass has computed: it scales them, once."""

from typing import Any

import torch


class _Last(torch.autograd.Function):
    """The identity on a gradient, whose derivative by what it was computed `from` is an error.

    The edges to `from` must be real ones: autograd leaves out what does not lead to the tensors that it is asked about,
    and takes its derivative for 0.
    """

    @staticmethod
    def forward(ctx: Any, grad: torch.Tensor, *computed_from: torch.Tensor) -> torch.Tensor:
        return grad.detach()  # unlike a view it may be changed in place, as optimizers do

    @staticmethod
    def backward(ctx: Any, of_grad: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(
            "gpu_nn.torch computes the gradient in the forward pass and cannot be differentiated twice: use "
            "torch.nn.functional.cross_entropy where a second derivative is needed"
        )


def scaled(grad: torch.Tensor, factor: torch.Tensor, link: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """grad · factor in `dtype`; the product is rounded once."""
    with torch.no_grad():
        if factor.dtype == grad.dtype == dtype:
            product = grad * factor
        else:
            product = torch.mul(grad, factor, out=torch.empty_like(grad, dtype=dtype))
    return last(product, factor, link)


def link_of(input: torch.Tensor) -> torch.Tensor:
    """An output more for an operator, empty and seen by nobody: its place in the graph, for `last`.

    The loss itself would do but for those who change it in place, which autograd forbids for what it has saved.
    """
    return input.new_empty(0)


def last(grad: torch.Tensor, *computed_from: torch.Tensor) -> torch.Tensor:
    """`grad`; under create_graph=True a derivative of it is refused, which would else be taken for 0."""
    return _Last.apply(grad, *computed_from) if torch.is_grad_enabled() else grad
