"""What is refused, in PyTorch's own kind of error and message."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from gpu_nn.torch import linear_softmax_cross_entropy, softmax_cross_entropy

Z = torch.zeros(3, 4)
Y = torch.tensor([0, 1, 2])
P = torch.full((3, 4), 0.25)
LONG = "expected (target dtype to be|scalar type) Long"  # the latter in PyTorch 2.6


@pytest.mark.parametrize(
    ("logits", "target", "options", "message"),
    [
        (Z, Y[:2], {}, r"Expected input batch_size \(3\) to match target batch_size \(2\)"),
        (torch.zeros(2, 4, 3), torch.zeros(2, 5).long(), {}, r"Expected target size \[2, 3\], got \[2, 5\]"),
        (Z, torch.tensor([0, 4, 1]), {}, "Target 4 is out of bounds"),
        (Z, torch.tensor([0, -1, 1]), {}, "Target -1 is out of bounds"),
        (Z, Y.float(), {}, LONG),
        (Z, Y.bool(), {}, LONG),
        (Z, P.long(), {}, "Expected floating point type for target with class probabilities"),
        (Z, P, {"ignore_index": 2}, "ignore_index is not supported for floating point target"),
        (Z, Y, {"weight": torch.ones(3)}, "weight tensor should be defined either for all 4 classes or no classes"),
        (Z, P, {"weight": torch.ones(5)}, r"but got weight tensor of shape: \[5\]"),
        (Z, Y, {"label_smoothing": 1.5}, r"label_smoothing must be between 0.0 and 1.0. Got: 1.5"),
        (Z, Y, {"reduction": "avg"}, "avg"),
        (Z, Y, {"weight": torch.ones(4).requires_grad_()}, "is not differentiable with respect to argument 'weight'"),
        (Z, Y.numpy(), {}, "argument 'target' .*must be Tensor, not"),
        (np.zeros((3, 4)), Y, {}, "argument '.*' .*must be Tensor, not"),
        (Z.long(), Y, {}, "not implemented for"),
        (Z, Y.to("meta"), {}, "device"),
        (Z, Y, {"weight": torch.ones(4, device="meta")}, "device"),
    ],
)
def test_errors_are_of_the_type_of_pytorch_s_and_say_the_same(logits, target, options, message):
    with pytest.raises(Exception, match=message) as ours:
        softmax_cross_entropy(logits, target, **options)
    with pytest.raises(Exception, match=message) as theirs:
        functional.cross_entropy(logits, target, **options)
    assert issubclass(ours.type, theirs.type)  # who catches theirs catches ours, in any version


@pytest.mark.parametrize(
    ("logits", "target", "options", "error", "message"),
    [
        (Z, P.clone().requires_grad_(), {}, RuntimeError, r"with respect to argument 'target'.*pass target.detach\(\)"),
        (Z, Y.to("meta"), {}, RuntimeError, r"at least two devices, cpu and meta! \(.*for argument target in"),
        (Z, P[:, :3], {}, RuntimeError, r"probabilities have the shape of the logits, \[3, 4\], not \[3, 3\]"),
        (Z, 2 * P + 0.6, {}, ValueError, r"target is out of range at 12 places, the first target\[0, 0\] = 1.1"),
        (Z, P * torch.nan, {}, ValueError, "expected targets from 0 to 1"),
        (Z, P - 0.5, {}, ValueError, "expected targets from 0 to 1"),
        (Z, Y, {"weight": torch.tensor([1.0, -1.0, 1.0, 1.0])}, ValueError, "weight has negative, NaN or infinite"),
        (Z, Y, {"complement_weight": -0.5}, ValueError, "complement_weight=-0.5; expected a finite number"),
        (Z, Y, {"reduction": "meen"}, ValueError, "Did you mean 'mean'"),
        (Z[:, :1], Y * 0, {}, ValueError, "logits have 1 classes; a softmax needs at least 2"),
        (Z[0, 0], Y[0], {}, RuntimeError, "logits are a scalar"),
        (Z[0], Y[:2], {}, RuntimeError, r"Expected a target of shape \[\] or \[4\], got \[2\]"),
    ],
)
def test_other_refusals(logits, target, options, error, message):
    with pytest.raises(error, match=message):
        softmax_cross_entropy(logits, target, **options)


A, W, B = torch.zeros(3, 2), torch.zeros(4, 2), torch.zeros(4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weight": W.T}, RuntimeError, r"cannot be multiplied \(\[3, 2\] and \[2, 4\]\)"),
        ({"bias": torch.zeros(3)}, RuntimeError, r"bias has shape \[3\]; expected \[4\]"),
        ({"target": Y[:2]}, RuntimeError, r"Expected target size \[3\], got \[2\]"),
        ({"target": P[:, :2]}, RuntimeError, r"Expected target size \[3, 4\], got \[3, 2\]"),
        ({"target": Y.bool()}, RuntimeError, "expected target dtype to be Long"),
        ({"target": Y + 2}, IndexError, "Target 4 is out of bounds"),
        ({"target": P, "ignore_index": 0}, RuntimeError, "ignore_index is not supported"),
        ({"target": P.clone().requires_grad_()}, RuntimeError, "argument 'target'"),
        ({"weight": W.double()}, RuntimeError, "same dtype, but got: torch.float32 != torch.float64"),
        ({"bias": B.double()}, RuntimeError, "same dtype, but got: torch.float32 != torch.float64"),
        ({"weight": W.to("meta")}, RuntimeError, "at least two devices, cpu and meta"),
        ({"class_weight": torch.ones(3)}, RuntimeError, "weight tensor should be defined either for all 4 classes"),
        ({"chunk_rows": 0}, ValueError, "chunk_rows=0; expected a number of rows ≥ 1"),
        ({"weight": torch.zeros(1, 2), "bias": None, "target": 0 * Y}, ValueError, "needs at least 2"),
    ],
)
def test_arguments_of_the_linear_cost(change, error, message):
    with pytest.raises(error, match=message):
        linear_softmax_cross_entropy(**{"input": A, "weight": W, "bias": B, "target": Y, **change})
