"""The cost of a linear layer's logits, computed in chunks of rows: the head of a language model."""

import math
from typing import Any, Optional

import torch

import gpu_nn.torch._kernels as _kernels
from gpu_nn.cost import check_chunk_rows
from gpu_nn.torch._arguments import (
    INDEX_DTYPES,
    autocast_dtype,
    check_not_differentiated,
    check_options,
    check_tensors,
    check_values,
    compute_dtype,
    prepare_target,
    reduce_loss,
    to_float,
    to_int,
)
from gpu_nn.torch._backward import new_edge, once_differentiable, scale_grad

# Logits of a chunk: on the CPU few enough for the caches, on a GPU enough for a product that fills it.
_CHUNK_LOGITS = {"cpu": 1 << 22, "cuda": 1 << 26}

_Outputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@torch.library.custom_op("gpu_nn::linear_softmax_cross_entropy", mutates_args=())
def _loss_and_grads(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: Optional[torch.Tensor],  # noqa: UP045  # the schema is read from this form in all versions
    target: torch.Tensor,
    class_weight: Optional[torch.Tensor],  # noqa: UP045  # as bias
    row_scale: Optional[torch.Tensor],  # noqa: UP045  # as bias
    complement_weight: float,
    label_smoothing: float,
    ignore_index: int,
    chunk_rows: int,
    summed: bool,
    of_input: bool,
    of_weight: bool,
    of_bias: bool,
) -> _Outputs:
    """Loss; the gradients of Σ_r row_scale_r C_r by input, weight and bias, empty without of_…; the edge for backward.

    The loss is (n,), or its sum where `summed`. Gradients of weight and bias add up chunks in the compute dtype.
    """
    n, m = len(input), len(weight)
    loss = input.new_empty(n, dtype=compute_dtype(input.dtype))
    _, d_input, d_weight, d_bias, edge = _empty_outputs(input, weight, summed, of_input, of_weight, of_bias)
    skipped: int | None = None if target.dim() == 2 else ignore_index
    # The arguments are cast already: autocast must not cast the products.
    with (
        torch.no_grad(),
        torch.autocast(input.device.type, enabled=False),
        _kernels.active_device(input.device) as device,
    ):
        if device.kind == "cpu":
            skipped = check_values(target, class_weight, m, ignore_index)
        options = {"complement_weight": complement_weight, "label_smoothing": label_smoothing, "ignore_index": skipped}
        needs_grad = of_input or of_weight or of_bias
        d_weight.zero_()
        d_bias.zero_()
        logits = input.new_empty(min(chunk_rows, n), m)
        for start in range(0, n, chunk_rows):
            rows = slice(start, min(start + chunk_rows, n))
            a, z = input[rows], logits[: min(chunk_rows, n - start)]
            if bias is None:
                torch.mm(a, weight.t(), out=z)
            else:
                torch.addmm(bias, a, weight.t(), out=z)
            scale = None if row_scale is None else row_scale[rows]
            _kernels.softmax_cross_entropy(
                device, z, target[rows], loss[rows], z if needs_grad else None, class_weight, scale, **options
            )
            if of_input:
                torch.mm(z, weight, out=d_input[rows])
            if of_weight and d_weight.dtype == z.dtype:
                d_weight.addmm_(z.t(), a)
            elif of_weight:
                d_weight.add_(z.t() @ a)
            if of_bias:
                d_bias.add_(z.sum(0, dtype=d_bias.dtype))
    return loss.sum() if summed else loss, d_input, d_weight, d_bias, edge


def _empty_outputs(
    input: torch.Tensor, weight: torch.Tensor, summed: bool, of_input: bool, of_weight: bool, of_bias: bool
) -> _Outputs:
    n, (m, inputs), computed = len(input), weight.shape, compute_dtype(input.dtype)
    return (
        input.new_empty(() if summed else (n,), dtype=computed),
        input.new_empty((n if of_input else 0, inputs)),
        input.new_empty((m if of_weight else 0, inputs), dtype=computed),
        input.new_empty(m if of_bias else 0, dtype=computed),
        new_edge(input),
    )


@_loss_and_grads.register_fake
def _fake(input: torch.Tensor, weight: torch.Tensor, *others: Any) -> _Outputs:
    *_, summed, of_input, of_weight, of_bias = others
    return _empty_outputs(input, weight, summed, of_input, of_weight, of_bias)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: _Outputs) -> None:
    _, *grads, edge = output
    ctx.mark_non_differentiable(*grads)
    ctx.set_materialize_grads(False)
    ctx.summed = inputs[10]
    if ctx.summed:
        ctx.of = inputs[11:]
        ctx.dtype = inputs[0].dtype
        ctx.save_for_backward(edge, *grads)
    else:
        ctx.save_for_backward(edge, *inputs[:5])
        ctx.options = inputs[6:10]


def _backward(ctx: Any, grad_loss: torch.Tensor | None, *_: None) -> tuple[Any, ...]:
    """Scales the gradients of the summed loss; for the loss of each row computes the logits and gradients again."""
    edge, *saved = ctx.saved_tensors
    grads: list[torch.Tensor | None] = [None, None, None]
    if grad_loss is not None and ctx.summed:
        pairs = zip(saved, ctx.of, strict=True)
        grads = [scale_grad(grad, grad_loss, edge, ctx.dtype) if needed else None for grad, needed in pairs]
    elif grad_loss is not None:
        needed, dtype = ctx.needs_input_grad[:3], saved[0].dtype
        with torch.no_grad():
            _, *computed, _ = _loss_and_grads(*saved, grad_loss.contiguous(), *ctx.options, False, *needed)
        pairs = zip(computed, needed, strict=True)
        grads = [once_differentiable(grad.to(dtype), grad_loss, edge) if needs else None for grad, needs in pairs]
    return (*grads, *(None,) * 11)


_loss_and_grads.register_autograd(_backward, setup_context=_setup_context)


def linear_softmax_cross_entropy(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    target: torch.Tensor,
    *,
    class_weight: torch.Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    complement_weight: float = 1.0,
    chunk_rows: int | None = None,
) -> torch.Tensor:
    """`softmax_cross_entropy` of the logits input·weightᵀ + bias, which are computed chunk_rows rows at a time.

    input: (*, inputs). weight: (classes, inputs) and bias: (classes,) or None, as of torch.nn.Linear. target: (*) class
    indices, or (*, classes) targets in [0, 1]. All of input, weight and bias of one type; under autocast they are cast
    to its type unless they are float64, as for torch.nn.functional.linear. chunk_rows=None chooses. class_weight and
    the other options are those of `softmax_cross_entropy`.

    The forward pass computes the gradients and the backward pass scales them: three matrix products in all. Gradients
    of weight and bias are added up in float32 (float64 for float64) whatever the dtype of the weight. With
    reduction="none" only the backward pass knows the weights of the rows, and computes the logits again.
    """
    name = "linear_softmax_cross_entropy"
    tensors = {"input": input, "weight": weight, "bias": bias, "target": target, "class_weight": class_weight}
    check_tensors(name, ("bias", "class_weight"), **tensors)
    check_not_differentiated(name, target=target, class_weight=class_weight)
    ignore_index = to_int(name, "ignore_index", ignore_index)
    label_smoothing = to_float(name, "label_smoothing", label_smoothing)
    complement_weight = to_float(name, "complement_weight", complement_weight)
    chunk_rows = None if chunk_rows is None else to_int(name, "chunk_rows", chunk_rows)
    _check_shapes(input, weight, bias, target, chunk_rows)
    check_options(input.dtype, len(weight), class_weight, reduction, label_smoothing, complement_weight)
    if (to := autocast_dtype(input.device)) is not None:
        # As autocast does, leave float64, which is then refused beside another dtype instead of rounded.
        input, weight, bias = [t if t is None or t.dtype == torch.float64 else t.to(to) for t in (input, weight, bias)]
    for what, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.dtype != input.dtype:
            raise RuntimeError(
                f"expected input and {what} to have the same dtype, but got: {input.dtype} != {tensor.dtype}"
            )
    computed = compute_dtype(input.dtype)
    rows = input.reshape(math.prod(input.shape[:-1]), input.shape[-1]).contiguous()
    y = target.reshape(-1, len(weight)) if target.is_floating_point() else target.reshape(-1)
    y = prepare_target(y, ignore_index, computed)
    w = None if class_weight is None else class_weight.to(computed).contiguous()
    if chunk_rows is None:
        chunk_rows = max(1, _CHUNK_LOGITS.get(input.device.type, 1) // len(weight))
    summed = reduction != "none"
    wanted = torch.is_grad_enabled() and summed
    of_input, of_weight = wanted and input.requires_grad, wanted and weight.requires_grad
    of_bias = wanted and bias is not None and bias.requires_grad
    options = (complement_weight, label_smoothing, ignore_index, chunk_rows, summed)
    loss, *_ = _loss_and_grads(rows, weight, bias, y, w, None, *options, of_input, of_weight, of_bias)
    return reduce_loss(loss, y, w, ignore_index, reduction) if summed else loss.reshape(input.shape[:-1])


def _check_shapes(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, target: torch.Tensor, chunk_rows: int | None
) -> None:
    if input.dim() == 0 or weight.dim() != 2 or input.shape[-1] != weight.shape[1]:
        raise RuntimeError(
            f"input and weight shapes cannot be multiplied ({list(input.shape)} and {list(weight.shape)}); expected "
            f"(*, inputs) and (classes, inputs)"
        )
    m = len(weight)
    if bias is not None and tuple(bias.shape) != (m,):
        raise RuntimeError(f"bias has shape {list(bias.shape)}; expected [{m}], one for each class")
    expected = [*input.shape[:-1], *([m] if target.is_floating_point() else [])]
    if list(target.shape) != expected:
        raise RuntimeError(f"Expected target size {expected}, got {list(target.shape)}")
    if not target.is_floating_point() and target.dtype not in INDEX_DTYPES:
        raise RuntimeError(f"expected target dtype to be Long, Int or Byte, but got {target.dtype}")
    check_chunk_rows(chunk_rows)
