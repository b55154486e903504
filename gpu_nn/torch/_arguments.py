"""PyTorch's conventions: what a call's tensors may be, the words in which PyTorch refuses them, and its mean."""

import math
import operator
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from gpu_nn.cost import Cost, check_values, weights
from gpu_nn.errors import unknown_name

_LOGITS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INDICES = (torch.int64, torch.int32, torch.uint8)
_REDUCTIONS = ("mean", "sum", "none")


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which the cost of logits of `dtype` is computed, and that of the loss."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The type of autocast's matrix products on `device`; None where autocast is off, or is not for such devices."""
    kind = device.type
    if kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return None


def check_tensors(function: str, optional: tuple[str, ...] = (), **tensors: torch.Tensor | None) -> None:
    """Raises TypeError for what is no tensor, RuntimeError for devices that differ or are neither a CPU nor a GPU.

    NotImplementedError for tensors that are not dense, or come with a tangent of forward-mode differentiation.
    """
    first = None
    for name, tensor in tensors.items():
        if tensor is None and name in optional:
            continue
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{function}(): argument '{name}' must be Tensor, not {type(tensor).__name__}")
        if tensor.is_nested:
            raise NotImplementedError(
                f"{function}(): argument '{name}' is a nested tensor; expected a dense one: use "
                f"torch.cat({name}.unbind())"
            )
        if tensor.layout != torch.strided:
            raise NotImplementedError(
                f"{function}(): argument '{name}' is of layout {tensor.layout}; expected a dense tensor: use "
                f"{name}.to_dense()"
            )
        if forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(
                f"{function}(): argument '{name}' has a tangent, and there is no derivative in forward mode: use "
                f"backward(), or torch.nn.functional.cross_entropy"
            )
        if first is None:
            first = tensor.device
            if first.type not in ("cpu", "cuda", "meta"):
                raise RuntimeError(f"{function}(): tensors on {first} are not supported; move them to 'cpu' or 'cuda'")
        elif tensor.device != first:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {first} and "
                f"{tensor.device}! (when checking argument for argument {name} in {function})"
            )


def check_constant(function: str, **tensors: torch.Tensor | None) -> None:
    """Raises RuntimeError for a tensor that wants a gradient and gets none; where none is computed it may want one."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                f"The function '{function}' is not differentiable with respect to argument '{name}'. This input "
                f"cannot have requires_grad True: pass {name}.detach()"
            )


def integer(function: str, name: str, value: Any) -> int:
    """`value` as an integer that an operator can take. Raises TypeError for what is none, ValueError past 64 bits."""
    if isinstance(value, torch.Tensor):
        right = value.numel() == 1 and value.dtype in INDICES
    else:
        right = isinstance(value, (Integral, torch.SymInt)) and not isinstance(value, bool)
    if not right:
        raise _type_error(function, name, "int", value)
    value = operator.index(value)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{name}={value}; expected an integer of 64 bits")
    return value


def number(function: str, name: str, value: Any) -> float:
    """`value` as a float. Raises TypeError for what is no real number."""
    if isinstance(value, torch.Tensor):
        right = value.numel() == 1 and not value.is_complex()
    else:
        right = isinstance(value, (Real, torch.SymFloat, torch.SymInt))
    if not right:
        raise _type_error(function, name, "float", value)
    return float(value)


def _type_error(function: str, name: str, expected: str, came: object) -> TypeError:
    return TypeError(f"{function}(): argument '{name}' must be {expected}, not {type(came).__name__}: {name}={came!r}")


def check_options(
    dtype: torch.dtype, m: int, weight: torch.Tensor | None, reduction: str, label_smoothing: float, weighing: float
) -> None:
    """Of logits of that type with m classes. weighing: the complement_weight."""
    if reduction not in _REDUCTIONS:
        raise unknown_name("reduction", reduction, _REDUCTIONS)
    if dtype not in _LOGITS:
        raise NotImplementedError(f"softmax_cross_entropy is not implemented for logits of {dtype}; use .float()")
    if m < 2:
        raise ValueError(f"logits have {m} classes; a softmax needs at least 2")
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    if not 0.0 <= weighing < math.inf:  # a comparison is what torch.compile takes of a number that changes
        Cost(weighing)  # raises
    if weight is not None and tuple(weight.shape) != (m,):
        raise RuntimeError(
            f"weight tensor should be defined either for all {m} classes or no classes but got weight tensor of "
            f"shape: {list(weight.shape)}"
        )


def rows_of(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]:
    """Logits as (n, m), targets as (n,) or (n, m), and the shape of the unreduced loss.

    logits: (C,), (N, C) or (N, C, d1, …). target: indices without the C, or probabilities of the shape of the logits.
    """
    if logits.dim() == 0:
        raise RuntimeError("logits are a scalar; expected (C,), (N, C) or (N, C, d1, ...)")
    probabilities = target.shape == logits.shape
    if probabilities:
        if not target.is_floating_point():
            raise RuntimeError(f"Expected floating point type for target with class probabilities, got {target.dtype}")
    elif target.dtype not in INDICES:
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
            came = target.shape[0] if target.dim() else "none"
            raise ValueError(f"Expected input batch_size ({logits.shape[0]}) to match target batch_size ({came}).")
        expected = [logits.shape[0], *logits.shape[2:]]
        if list(target.shape) != expected:
            raise RuntimeError(f"Expected target size {expected}, got {list(target.shape)}")
    shape = (logits.shape[0], *logits.shape[2:])
    if logits.dim() > 2:
        m = logits.shape[1]
        logits = logits.movedim(1, -1).reshape(-1, m)
        target = target.movedim(1, -1).reshape(-1, m) if probabilities else target.reshape(-1)
    return logits, target, shape


def reduced(
    total: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, ignore_index: int, reduction: str
) -> torch.Tensor:
    """The loss from its sum: for "mean" over Σ w of the targets that count, or over the rows of probabilities.

    The mean over nothing is NaN, as PyTorch's is; its gradient is 0.
    """
    if reduction == "sum":
        return total
    if target.dim() == 2:
        return total / target.shape[0] if target.shape[0] else total + torch.nan
    counts = target != ignore_index
    if weight is None:
        denominator = counts.sum()
    else:
        # An index out of range is NaN in the loss; here it must not become an address.
        label = target.long().clamp(0, len(weight) - 1)
        denominator = (weight[label] * counts).sum()
    nothing = denominator == 0
    return (total / denominator.masked_fill(nothing, 1)).masked_fill(nothing, torch.nan)


def check_target_values(target: torch.Tensor, m: int, ignore_index: int | None) -> int | None:
    """Checks the values of a target on the CPU; the ignore_index that the kernel needs, None where no row has it.

    Raises IndexError for an index out of range, ValueError for a probability outside [0, 1].
    """
    if target.numel() == 0:
        return None
    low, high = torch.aminmax(target)
    if target.dim() == 2:
        if not (low >= 0 and high <= 1):
            check_values("target", target.detach().numpy(), m)
        return None
    if low >= 0 and high < m and not (ignore_index is not None and 0 <= ignore_index < m):
        return None
    wrong = (target < 0) | (target >= m)
    if ignore_index is not None:
        wrong &= target != ignore_index
    if wrong.any():
        raise IndexError(f"Target {int(target[wrong][0])} is out of bounds.")
    return ignore_index


def check_weight_values(weight: torch.Tensor | None) -> None:
    """Raises ValueError for a class weight on the CPU that is negative, NaN or infinite."""
    if weight is not None:
        array = weight.detach().numpy()
        weights("weight", array, len(array), "classes", np, array.dtype)
