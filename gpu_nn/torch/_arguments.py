"""Checks of arguments with the messages of PyTorch, and its shapes, dtypes and reductions."""

import math
import operator
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from gpu_nn.cost import Cost, weights
from gpu_nn.cost import check_values as check_probabilities
from gpu_nn.errors import unknown_name

_LOGITS_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INDEX_DTYPES = (torch.int64, torch.int32, torch.uint8)
_REDUCTIONS = ("mean", "sum", "none")


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the computation and of the loss for logits of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of autocast on `device`; None where autocast is off or does not support the device."""
    if device.type in ("cpu", "cuda") and torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return None


def check_tensors(function: str, optional: tuple[str, ...] = (), **tensors: torch.Tensor | None) -> None:
    """Raises TypeError for what is not a tensor, RuntimeError for devices that differ or are neither a CPU nor a GPU,
    NotImplementedError for tensors that are not dense or have a tangent of forward-mode differentiation."""
    first = None
    for name, tensor in tensors.items():
        if tensor is None and name in optional:
            continue
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{function}(): argument '{name}' must be Tensor, not {type(tensor).__name__}")
        problem = ""
        if tensor.is_nested:
            problem = f"is a nested tensor; expected a dense one: use torch.cat({name}.unbind())"
        elif tensor.layout != torch.strided:
            problem = f"is of layout {tensor.layout}; expected a dense tensor: use {name}.to_dense()"
        elif forward_ad.unpack_dual(tensor).tangent is not None:
            problem = "has a tangent, and there is no derivative in forward mode: use backward(), or "
            problem += "torch.nn.functional.cross_entropy"
        if problem:
            raise NotImplementedError(f"{function}(): argument '{name}' {problem}")
        if first is None:
            first = tensor.device
            if first.type not in ("cpu", "cuda", "meta"):
                raise RuntimeError(f"{function}(): tensors on {first} are not supported; move them to 'cpu' or 'cuda'")
        elif tensor.device != first:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {first} and "
                f"{tensor.device}! (when checking argument for argument {name} in {function})"
            )


def check_not_differentiated(function: str, **tensors: torch.Tensor | None) -> None:
    """Raises RuntimeError for a tensor that requires a gradient, which is not computed, while gradients are enabled."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                f"The function '{function}' is not differentiable with respect to argument '{name}'. This input "
                f"cannot have requires_grad True: pass {name}.detach()"
            )


def to_int(function: str, name: str, value: Any) -> int:
    """`value` as an int for an operator. Raises TypeError for what is not an integer, ValueError beyond 64 bits."""
    if isinstance(value, torch.Tensor):
        valid = value.numel() == 1 and value.dtype in INDEX_DTYPES
    else:
        valid = isinstance(value, (Integral, torch.SymInt)) and not isinstance(value, bool)
    if not valid:
        raise _type_error(function, name, "int", value)
    value = operator.index(value)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{name}={value}; expected an integer of 64 bits")
    return value


def to_float(function: str, name: str, value: Any) -> float:
    """`value` as a float for an operator. Raises TypeError for what is not a real number."""
    if isinstance(value, torch.Tensor):
        valid = value.numel() == 1 and not value.is_complex()
    else:
        valid = isinstance(value, (Real, torch.SymFloat, torch.SymInt))
    if not valid:
        raise _type_error(function, name, "float", value)
    return float(value)


def _type_error(function: str, name: str, expected: str, value: object) -> TypeError:
    return TypeError(
        f"{function}(): argument '{name}' must be {expected}, not {type(value).__name__}: {name}={value!r}"
    )


def check_options(
    dtype: torch.dtype,
    m: int,
    weight: torch.Tensor | None,
    reduction: str,
    label_smoothing: float,
    complement_weight: float,
) -> None:
    """Raises for options of a cost of m classes, and for logits that are not of a floating `dtype`."""
    if reduction not in _REDUCTIONS:
        raise unknown_name("reduction", reduction, _REDUCTIONS)
    if dtype not in _LOGITS_DTYPES:
        raise NotImplementedError(f"softmax_cross_entropy is not implemented for logits of {dtype}; use .float()")
    if m < 2:
        raise ValueError(f"logits have {m} classes; a softmax needs at least 2")
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    # torch.compile traces the comparison of a dynamic number, not Cost.
    if not 0.0 <= complement_weight < math.inf:
        Cost(complement_weight)  # raises ValueError
    if weight is not None and tuple(weight.shape) != (m,):
        raise RuntimeError(
            f"weight tensor should be defined either for all {m} classes or no classes but got weight tensor of "
            f"shape: {list(weight.shape)}"
        )


def flatten_rows(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]:
    """Logits as (n, m), targets as (n,) or (n, m), and the shape of the unreduced loss.

    logits: (C,), (N, C) or (N, C, d1, …). target: indices without the C, or probabilities of the shape of the logits.
    """
    if logits.dim() == 0:
        raise RuntimeError("logits are a scalar; expected (C,), (N, C) or (N, C, d1, ...)")
    probabilities = target.shape == logits.shape
    if probabilities:
        if not target.is_floating_point():
            raise RuntimeError(f"Expected floating point type for target with class probabilities, got {target.dtype}")
    elif target.dtype not in INDEX_DTYPES:
        raise RuntimeError(
            f"expected target dtype to be Long, Int or Byte, but got {target.dtype}; probabilities have the shape of "
            f"the logits, {list(logits.shape)}, not {list(target.shape)}"
        )
    if logits.dim() == 1:
        if not probabilities and target.numel() != 1:
            raise RuntimeError(f"Expected a target of shape [] or {list(logits.shape)}, got {list(target.shape)}")
        logits, target = logits.unsqueeze(0), target.reshape(1, -1) if probabilities else target.reshape(1)
        return logits, target, ()
    if not probabilities:
        if target.dim() == 0 or target.shape[0] != logits.shape[0]:
            size = target.shape[0] if target.dim() else "none"
            raise ValueError(f"Expected input batch_size ({logits.shape[0]}) to match target batch_size ({size}).")
        expected = [logits.shape[0], *logits.shape[2:]]
        if list(target.shape) != expected:
            raise RuntimeError(f"Expected target size {expected}, got {list(target.shape)}")
    shape = (logits.shape[0], *logits.shape[2:])
    if logits.dim() > 2:
        m = logits.shape[1]
        logits = logits.movedim(1, -1).reshape(-1, m)
        target = target.movedim(1, -1).reshape(-1, m) if probabilities else target.reshape(-1)
    return logits, target, shape


def prepare_target(target: torch.Tensor, ignore_index: int, dtype: torch.dtype) -> torch.Tensor:
    """Targets for the kernel: probabilities of `dtype`, or indices of int32 or int64.

    Raises RuntimeError for an ignore_index with probabilities.
    """
    if target.is_floating_point():
        if ignore_index >= 0:
            raise RuntimeError("ignore_index is not supported for floating point target")
        return target.to(dtype).contiguous()
    return (target.long() if target.dtype == torch.uint8 else target).contiguous()


def reduce_loss(
    total: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, ignore_index: int, reduction: str
) -> torch.Tensor:
    """The loss for `reduction` from its sum: "mean" divides by Σ w of the targets that are not ignored, or by the
    number of rows of probabilities. As in PyTorch, the mean over no rows is NaN; its gradient is 0."""
    if reduction == "sum":
        return total
    if target.dim() == 2:
        return total / target.shape[0] if target.shape[0] else total + torch.nan
    counts = target != ignore_index
    if weight is None:
        denominator = counts.sum()
    else:
        # The loss of an index out of range is NaN; the index must not become an address.
        label = target.long().clamp(0, len(weight) - 1)
        denominator = (weight[label] * counts).sum()
    nothing = denominator == 0
    return (total / denominator.masked_fill(nothing, 1)).masked_fill(nothing, torch.nan)


def check_values(target: torch.Tensor, class_weight: torch.Tensor | None, m: int, ignore_index: int) -> int | None:
    """Checks values on the CPU; returns the ignore_index for the kernel, None where no row has it.

    Raises IndexError for an index out of range, ValueError for a probability outside [0, 1] and for a class weight
    that is negative, NaN or infinite.
    """
    needed = None
    if target.numel():
        low, high = torch.aminmax(target)
        if target.dim() == 2:
            if not (low >= 0 and high <= 1):
                check_probabilities("target", target.detach().numpy(), m)
        elif low < 0 or high >= m or 0 <= ignore_index < m:
            wrong = ((target < 0) | (target >= m)) & (target != ignore_index)
            if wrong.any():
                raise IndexError(f"Target {int(target[wrong][0])} is out of bounds.")
            needed = ignore_index
    if class_weight is not None:
        array = class_weight.detach().numpy()
        weights("weight", array, len(array), "classes", np, array.dtype)
    return needed
