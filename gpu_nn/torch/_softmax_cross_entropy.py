"""The cost of logits: a custom operator for loss and gradient of each row, the function and the module."""

from typing import Any, Optional

import torch

import gpu_nn.torch._kernels as _kernels
from gpu_nn.torch._arguments import (
    autocast_dtype,
    check_not_differentiated,
    check_options,
    check_tensors,
    check_values,
    compute_dtype,
    flatten_rows,
    prepare_target,
    reduce_loss,
    to_float,
    to_int,
)
from gpu_nn.torch._backward import new_edge, scale_grad

_Outputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@torch.library.custom_op("gpu_nn::softmax_cross_entropy", mutates_args=())
def _loss_and_grad(
    logits: torch.Tensor,
    target: torch.Tensor,
    class_weight: Optional[torch.Tensor],  # noqa: UP045  # the schema is read from this form in all versions
    complement_weight: float,
    label_smoothing: float,
    ignore_index: int,
    needs_grad: bool,
) -> _Outputs:
    """Loss (n,); the gradient (n, m) of each row's own loss, empty where none is needed; the edge for the backward."""
    loss, grad, edge = _empty_outputs(logits, needs_grad)
    skipped: int | None = None if target.dim() == 2 else ignore_index
    with _kernels.active_device(logits.device) as device:
        if device.kind == "cpu":
            skipped = check_values(target, class_weight, logits.shape[1], ignore_index)
        options = {"complement_weight": complement_weight, "label_smoothing": label_smoothing, "ignore_index": skipped}
        z, y, dz = logits.contiguous(), target.contiguous(), grad if needs_grad else None
        _kernels.softmax_cross_entropy(device, z, y, loss, dz, class_weight, None, **options)
    return loss, grad, edge


def _empty_outputs(logits: torch.Tensor, needs_grad: bool) -> _Outputs:
    n, m = logits.shape
    loss = logits.new_empty(n, dtype=compute_dtype(logits.dtype))
    return loss, logits.new_empty((n if needs_grad else 0, m)), new_edge(loss)


@_loss_and_grad.register_fake
def _fake(logits: torch.Tensor, *others: Any) -> _Outputs:
    return _empty_outputs(logits, needs_grad=others[-1])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: _Outputs) -> None:
    _, grad, edge = output
    ctx.mark_non_differentiable(grad)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(grad, edge)


def _backward(ctx: Any, grad_loss: torch.Tensor | None, *_: None) -> tuple[Any, ...]:
    grad, edge = ctx.saved_tensors
    grad_logits = None if grad_loss is None else scale_grad(grad, grad_loss.unsqueeze(1), edge, grad.dtype)
    return grad_logits, None, None, None, None, None, None


_loss_and_grad.register_autograd(_backward, setup_context=_setup_context)


def softmax_cross_entropy(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    complement_weight: float = 1.0,
) -> torch.Tensor:
    """-Σ_r Σ_t w_t [y_t ln p_t + λ (1-y_t) ln(1-p_t)] with p = softmax(input), as `gpu_nn.functional` computes it.

    The arguments are those of torch.nn.functional.cross_entropy, the first three in its order and the others by
    keyword; with complement_weight=0 the result is its result, to rounding.

    input: the logits, (C,), (N, C) or (N, C, d1, …), C ≥ 2, float16, bfloat16, float32 or float64.
    target: class indices (int64, int32 or uint8) of the shape of the logits without C; or a floating target in [0, 1]
        for each class, of the shape of the logits: soft, multi-hot or all zero.
    weight: w, (C,), each ≥ 0; multiplies both terms of its class, whatever the row's label.
    ignore_index: rows with this index count nothing and have no gradient; for class indices.
    reduction: "none", "sum" or "mean". The mean of class indices divides by Σ w of the labels that are not ignored
        (by their number without weights), the mean of probabilities by the number of rows. Both terms are divided by
        the same number, so that multiplying all weights by a constant changes nothing. The mean over no row is NaN,
        with gradient 0.
    label_smoothing: ε, y becomes (1-ε) y + ε/C before all else.
    complement_weight: λ ≥ 0.

    The loss is float64 for float64 logits, else float32; half types are computed in float32 and their gradient is
    rounded once. (NumPy has no bfloat16: on the CPU such logits are copied to float32.) Under autocast half logits are
    cast to float32, as for cross_entropy. The gradient is computed in the forward pass where input.requires_grad, and
    scaled in the backward pass; it cannot be differentiated again, nor is there a derivative in forward mode.

    Raises, in PyTorch's words, RuntimeError for devices, shapes or types that do not fit and for a target or weight
    that requires grad where gradients are computed, TypeError for an option of another type, NotImplementedError for
    tensors that are sparse or have a tangent, IndexError for an index out of range, ValueError for values out of range.
    Values on a GPU are not read back to be checked: a row with an index out of range is NaN there.
    """
    name = "softmax_cross_entropy"
    check_tensors(name, ("weight",), input=input, target=target, weight=weight)
    check_not_differentiated(name, target=target, weight=weight)
    ignore_index = to_int(name, "ignore_index", ignore_index)
    label_smoothing = to_float(name, "label_smoothing", label_smoothing)
    complement_weight = to_float(name, "complement_weight", complement_weight)
    z, y, shape = flatten_rows(input, target)
    check_options(z.dtype, z.shape[1], weight, reduction, label_smoothing, complement_weight)
    if autocast_dtype(z.device) is not None and z.dtype != torch.float64:
        z = z.float()
    computed = compute_dtype(z.dtype)
    y = prepare_target(y, ignore_index, computed)
    w = None if weight is None else weight.to(computed).contiguous()
    needs_grad = torch.is_grad_enabled() and z.requires_grad
    loss, *_ = _loss_and_grad(z, y, w, complement_weight, label_smoothing, ignore_index, needs_grad)
    if reduction == "none":
        return loss.reshape(shape)
    return reduce_loss(loss.sum(), y, w, ignore_index, reduction)


class SoftmaxCrossEntropy(torch.nn.Module):
    """`softmax_cross_entropy` as a module, with the arguments of torch.nn.CrossEntropyLoss and complement_weight.

    weight is a buffer: it moves with the module and is saved with it.
    """

    def __init__(
        self,
        weight: torch.Tensor | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        complement_weight: float = 1.0,
    ):
        super().__init__()
        self.register_buffer("weight", weight)
        self.weight: torch.Tensor | None
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing
        self.complement_weight = complement_weight

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return softmax_cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            complement_weight=self.complement_weight,
        )

    def extra_repr(self) -> str:
        return (
            f"ignore_index={self.ignore_index}, reduction={self.reduction!r}, "
            f"label_smoothing={self.label_smoothing}, complement_weight={self.complement_weight}"
        )
