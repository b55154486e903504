"""What raises an error, of the type and with the message of PyTorch."""

from itertools import product

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad
from torch.nn import functional

from gpu_nn.torch import SoftmaxCrossEntropy, linear_softmax_cross_entropy, softmax_cross_entropy

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
        (Z, Y, {"ignore_index": None}, "argument 'ignore_index' .*must be int, not NoneType"),
        (Z, Y, {"ignore_index": 1.5}, "argument 'ignore_index' .*must be int, not float"),
        (Z, Y, {"ignore_index": True}, "argument 'ignore_index' .*must be int, not bool"),
        (Z, Y, {"label_smoothing": "a"}, "argument 'label_smoothing' .*must be float, not str"),
        (Z, Y, {"label_smoothing": None}, "argument 'label_smoothing' .*must be float, not NoneType"),
        (Z, Y, {"label_smoothing": 1j}, "argument 'label_smoothing' .*must be float, not complex"),
        (Z.to_sparse(), Y, {}, "."),
        (Z, Y, {"weight": torch.ones(4).to_sparse()}, "."),
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
        (
            Z,
            Y,
            {"complement_weight": "x"},
            TypeError,
            "must be float, not str: complement_weight='x'",
        ),
        (Z, Y, {"complement_weight": None}, TypeError, "'complement_weight' must be float, not NoneType"),
        (Z, Y, {"complement_weight": torch.ones(2)}, TypeError, "'complement_weight' must be float, not Tensor"),
        (Z, Y, {"ignore_index": torch.tensor(1.5)}, TypeError, "'ignore_index' must be int, not Tensor"),
        (Z, Y, {"ignore_index": 2**63}, ValueError, "ignore_index=9223372036854775808; expected an integer of 64 bits"),
        (Z, Y, {"ignore_index": -(2**63) - 1}, ValueError, "ignore_index=-9223372036854775809; expected an integer of"),
        (Z.to_sparse(), Y, {}, NotImplementedError, r"'input' is of layout torch.sparse_coo; .* input.to_dense\(\)"),
        (Z, P.to_sparse(), {}, NotImplementedError, r"'target' is of layout torch.sparse_coo; .* target.to_dense\(\)"),
        (Z, Y, {"weight": Z[0].to_sparse()}, NotImplementedError, "'weight' is of layout torch.sparse_coo; expected a"),
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
        ({"chunk_rows": 0}, ValueError, "chunk_rows=0; expected a whole number of rows ≥ 1"),
        ({"chunk_rows": 1.5}, TypeError, "'chunk_rows' must be int, not float: chunk_rows=1.5"),
        ({"ignore_index": None}, TypeError, "'ignore_index' must be int, not NoneType"),
        ({"label_smoothing": "a"}, TypeError, "'label_smoothing' must be float, not str"),
        ({"complement_weight": None}, TypeError, "'complement_weight' must be float, not NoneType"),
        ({"weight": W.to_sparse()}, NotImplementedError, "'weight' is of layout torch.sparse_coo"),
        ({"weight": torch.zeros(1, 2), "bias": None, "target": 0 * Y}, ValueError, "needs at least 2"),
    ],
)
def test_arguments_of_the_linear_cost(change, error, message):
    with pytest.raises(error, match=message):
        linear_softmax_cross_entropy(**{"input": A, "weight": W, "bias": B, "target": Y, **change})


def test_nested_tensors_are_refused():
    nested = torch.nested.nested_tensor([Z, Z[:2]], layout=torch.jagged)
    with pytest.raises(NotImplementedError, match=r"argument 'input' is a nested tensor; .* torch.cat\(input.unbind"):
        softmax_cross_entropy(nested, Y)


def test_options_may_be_numbers_of_other_kinds():
    plain = softmax_cross_entropy(Z, Y, ignore_index=1, label_smoothing=0.5, complement_weight=2)
    for index, real in ((np.int32(1), np.float32), (torch.tensor(1), torch.tensor)):
        options = {"ignore_index": index, "label_smoothing": real(0.5), "complement_weight": real(2)}
        assert torch.equal(softmax_cross_entropy(Z, Y, **options), plain)
        assert torch.equal(linear_softmax_cross_entropy(A, W, B, Y, chunk_rows=index, **options), plain)


def test_arguments_come_as_those_of_cross_entropy():
    z, weight = torch.arange(12.0).reshape(3, 4), torch.tensor([1.0, 2.0, 3.0, 4.0])
    for cost in (functional.cross_entropy, softmax_cross_entropy):
        expected = cost(z, Y, weight=weight)
        assert torch.equal(cost(z, Y, weight), expected)
        assert torch.equal(cost(input=z, target=Y, weight=weight), expected)
    assert torch.equal(SoftmaxCrossEntropy(weight)(input=z, target=Y), expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_target_that_requires_a_gradient_is_used_where_none_is_computed(mode):
    """As an evaluation does with a teacher's probabilities."""
    p, weight = P.clone().requires_grad_(), torch.ones(4, requires_grad=True)
    with mode():
        for cost in (functional.cross_entropy, softmax_cross_entropy):
            assert torch.equal(cost(Z, p, weight=weight), cost(Z, P, weight=torch.ones(4)))
        expected = linear_softmax_cross_entropy(A, W, B, P, class_weight=torch.ones(4))
        assert torch.equal(linear_softmax_cross_entropy(A, W, B, p, class_weight=weight), expected)


def with_dual_tensors(cost, tensor):
    with forward_ad.dual_level():
        forward_ad.unpack_dual(cost(forward_ad.make_dual(tensor, torch.ones_like(tensor))))


FORWARD = {
    "dual tensors": with_dual_tensors,
    "jvp": lambda cost, tensor: torch.func.jvp(cost, (tensor,), (torch.ones_like(tensor),)),
    "jacfwd": lambda cost, tensor: torch.func.jacfwd(cost)(tensor),
    "compiled jvp": lambda cost, tensor: torch.compile(
        lambda tensor: torch.func.jvp(cost, (tensor,), (torch.ones_like(tensor),)), backend="aot_eager"
    )(tensor),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by forward_ad itself
@pytest.mark.parametrize("way", FORWARD)
@pytest.mark.parametrize("argument", ["input", "target", "weight"])
def test_forward_mode_of_the_cost_of_logits_is_refused(way, argument):
    arguments = {"input": Z, "target": P, "weight": torch.ones(4)}
    torch.compiler.reset()
    with pytest.raises(NotImplementedError, match=f"argument '{argument}' has a tangent, and there is no derivative"):
        FORWARD[way](lambda t: softmax_cross_entropy(**{**arguments, argument: t}), arguments[argument])


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by forward_ad itself
@pytest.mark.parametrize("way", FORWARD)
@pytest.mark.parametrize("argument", ["input", "weight", "bias", "target", "class_weight"])
def test_forward_mode_of_the_linear_cost_is_refused(way, argument):
    arguments = {"input": A, "weight": W, "bias": B, "target": P, "class_weight": torch.ones(4)}
    torch.compiler.reset()
    with pytest.raises(NotImplementedError, match=f"argument '{argument}' has a tangent, and there is no derivative"):
        FORWARD[way](lambda t: linear_softmax_cross_entropy(**{**arguments, argument: t}), arguments[argument])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("target", [Y, P])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_meta_tensors_have_the_shapes_and_types_of_a_real_call(reduction, target, dtype):
    def logits_cost(z, y):
        return softmax_cross_entropy(z, y, weight=torch.ones(4, device=y.device), reduction=reduction)

    def linear_cost(a, w, b, y):
        return linear_softmax_cross_entropy(a, w, b, y, reduction=reduction)

    for cost, tensors in ((logits_cost, (Z,)), (linear_cost, (A, W, B))):
        calls = []
        for device in ("cpu", "meta"):
            needed = [t.to(device, dtype).requires_grad_() for t in tensors]
            loss = cost(*needed, target.to(device))
            calls.append([loss, *torch.autograd.grad(loss.sum(), needed)])
        for real, meta in zip(*calls, strict=True):
            assert (meta.device.type, meta.shape, meta.dtype) == ("meta", real.shape, real.dtype)


TYPES = [torch.float16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtypes", list(product(TYPES, repeat=3)), ids=lambda t: "-".join(str(d)[6:] for d in t))
@pytest.mark.parametrize("autocast", [False, True])
def test_types_of_the_linear_cost_go_together_where_those_of_linear_do(dtypes, autocast):
    a, w, b = (t.to(dtype) for t, dtype in zip((A, W, B), dtypes, strict=True))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        try:
            computed = functional.linear(a, w, b).dtype
        except RuntimeError:
            with pytest.raises(RuntimeError, match="to have the same dtype, but got"):
                linear_softmax_cross_entropy(a, w, b, Y)
        else:
            loss = linear_softmax_cross_entropy(a, w, b, Y)
            assert loss.dtype == (torch.float64 if computed == torch.float64 else torch.float32)
