"""The cost of a linear layer: values and gradients are those of the logits, which are never all in memory."""

from contextlib import nullcontext

import pytest
import torch

from gpu_nn.torch import linear_softmax_cross_entropy, softmax_cross_entropy
from gpu_nn.torch._linear_softmax_cross_entropy import _loss_and_grads

ROWS, INPUTS, CLASSES = 11, 6, 5
LABELS = torch.tensor([0, 3, 4, -100, 1, 2, 0, -100, 4, 4, 1])
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.25, 3.0], dtype=torch.float64)


def tensors(dtype=torch.float64, rows=ROWS):
    generator = torch.Generator().manual_seed(0)
    shapes = (rows, INPUTS), (CLASSES, INPUTS), (CLASSES,)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def of_logits(a, w, b, y, *, class_weight=None, chunk_rows=None, **options):
    return softmax_cross_entropy(torch.nn.functional.linear(a, w, b), y, weight=class_weight, **options)


def loss_and_grads(cost, arguments, y, **options):
    loss = cost(*arguments, y, **options)
    upstream = torch.linspace(-1, 2, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
    return [loss, *torch.autograd.grad(loss, [t for t in arguments if t is not None], upstream)]


class TestValues:
    @pytest.mark.parametrize("chunk_rows", [1, 4, 11, None])
    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    @pytest.mark.parametrize("bias", [True, False])
    def test_chunks_give_loss_and_gradients_of_the_whole(self, chunk_rows, reduction, bias):
        a, w, b = tensors()
        options = {"class_weight": WEIGHT, "label_smoothing": 0.1, "complement_weight": 0.7, "reduction": reduction}
        arguments = [a, w, b if bias else None]
        found = loss_and_grads(linear_softmax_cross_entropy, arguments, LABELS, chunk_rows=chunk_rows, **options)
        torch.testing.assert_close(found, loss_and_grads(of_logits, arguments, LABELS, **options), rtol=1e-12, atol=0)

    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_batches_of_sequences_with_targets_of_each_class(self, reduction):
        a, w, b = tensors(rows=6)
        y = torch.rand(2, 3, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        found = linear_softmax_cross_entropy(a.reshape(2, 3, INPUTS), w, b, y, chunk_rows=4, reduction=reduction)
        expected = of_logits(a, w, b, y.reshape(6, CLASSES), reduction=reduction)
        torch.testing.assert_close(found.flatten(), expected.reshape(found.shape).flatten(), rtol=1e-13, atol=0)
        assert found.shape == ((2, 3) if reduction == "none" else ())

    @pytest.mark.parametrize("rows", [(6,), (2, 3), (), (0,)])
    @pytest.mark.parametrize("inputs", [0, INPUTS])
    @pytest.mark.parametrize("reduction", ["sum", "none"])
    def test_any_number_of_rows_and_inputs(self, rows, inputs, reduction):
        """Without inputs the logits are the bias alone."""
        _, w, b = tensors()
        a = torch.ones(*rows, inputs, dtype=torch.float64, requires_grad=True)
        w = w[:, :inputs].detach().requires_grad_()
        y = torch.arange(torch.Size(rows).numel()).reshape(rows) % CLASSES
        found = loss_and_grads(linear_softmax_cross_entropy, (a, w, b), y, reduction=reduction, chunk_rows=4)

        def of_rows(a, w, b, y, **options):
            return of_logits(a.reshape(y.numel(), inputs), w, b, y.flatten(), **options).reshape(found[0].shape)

        expected = loss_and_grads(of_rows, (a, w, b), y, reduction=reduction)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_half_types_are_near_the_float64_result(self, dtype, reduction):
        halves = tensors(dtype)
        exact = [t.detach().double().requires_grad_() for t in halves]
        found = loss_and_grads(linear_softmax_cross_entropy, halves, LABELS, chunk_rows=4, reduction=reduction)
        expected = loss_and_grads(of_logits, exact, LABELS, reduction=reduction)
        assert [t.dtype for t in found] == [torch.float32, dtype, dtype, dtype]
        for one, other in zip(found, expected, strict=True):
            error = (one.double() - other).abs().max() / other.abs().max()
            assert error < 4 * torch.finfo(dtype).eps

    def test_gradients_of_a_weight_of_half_type_add_up_in_float32(self):
        """600 chunks of one row, each with the same gradient: bfloat16 would stop at 256 of them."""
        a = torch.ones(600, 2, dtype=torch.bfloat16)
        w = torch.zeros(2, 2, dtype=torch.bfloat16, requires_grad=True)
        y = torch.zeros(600, dtype=torch.int64)
        linear_softmax_cross_entropy(a, w, None, y, chunk_rows=1, reduction="mean").backward()
        assert w.grad.tolist() == [[-1.0, -1.0], [1.0, 1.0]]

    def test_autocast_computes_the_products_in_its_type_and_the_cost_in_float32(self):
        arguments = tensors(torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            found = loss_and_grads(linear_softmax_cross_entropy, arguments, LABELS)
            expected = loss_and_grads(of_logits, arguments, LABELS)
        assert [t.dtype for t in found] == [torch.float32] * 4
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.005)
        assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-6)

    def test_a_backward_pass_under_autocast_stays_in_the_type_of_the_forward_pass(self):
        def grads(context):
            arguments = tensors(torch.float16)
            loss = linear_softmax_cross_entropy(*arguments, LABELS, reduction="none").sum()
            with context:
                return torch.autograd.grad(loss, arguments)

        found, expected = grads(torch.autocast("cpu", torch.bfloat16)), grads(nullcontext())
        assert all(map(torch.equal, found, expected))


class TestWork:
    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_no_tensor_of_all_logits_exists(self, reduction):
        rows, inputs, classes = 512, 8, 4000
        a = torch.zeros(rows, inputs, requires_grad=True)
        w = torch.zeros(classes, inputs, requires_grad=True)
        y = torch.zeros(rows, dtype=torch.int64)
        with torch.profiler.profile(profile_memory=True) as profile:
            linear_softmax_cross_entropy(a, w, None, y, chunk_rows=16, reduction=reduction).sum().backward()
        largest = max(event.cpu_memory_usage for event in profile.events())
        assert largest >= 16 * classes * 4
        assert largest < rows * classes * 4 / 5

    @pytest.mark.parametrize("asked", [(True, False, False), (False, True, False), (False, False, True)])
    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_only_the_gradients_asked_for_are_computed(self, asked, reduction):
        arguments = tensors()
        expected = loss_and_grads(of_logits, arguments, LABELS, reduction=reduction)[1:]
        fewer = [t.detach().requires_grad_(needed) for t, needed in zip(arguments, asked, strict=True)]
        loss = linear_softmax_cross_entropy(*fewer, LABELS, reduction=reduction)
        loss.backward(torch.linspace(-1, 2, max(1, loss.numel()), dtype=loss.dtype).reshape(loss.shape))
        for tensor, needed, grad in zip(fewer, asked, expected, strict=True):
            if needed:
                torch.testing.assert_close(tensor.grad, grad, rtol=1e-12, atol=0)
            else:
                assert tensor.grad is None
        sizes = [t.numel() for t in _loss_and_grads(*fewer, LABELS, None, None, 1.0, 0.0, -100, 4, True, *asked)[1:4]]
        assert [size > 0 for size in sizes] == list(asked)

    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_gradcheck(self, reduction):
        def cost(a, w, b):
            return linear_softmax_cross_entropy(a, w, b, LABELS, chunk_rows=4, reduction=reduction)

        assert torch.autograd.gradcheck(cost, tensors())


class TestOperator:
    @pytest.mark.parametrize("summed", [False, True])
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # by opcheck, from 2.14 on
    def test_opcheck(self, summed, bias):
        a, w, b = tensors()
        arguments = (a, w, b if bias else None, LABELS, WEIGHT, None, 1.0, 0.1, -100, 4)
        torch.library.opcheck(_loss_and_grads, (*arguments, summed, summed, summed, summed and bias))

    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_a_compiled_function_has_no_break_and_the_same_values(self, reduction):
        torch.compiler.reset()
        compiled = torch.compile(linear_softmax_cross_entropy, backend="aot_eager", fullgraph=True)
        options = {"reduction": reduction, "chunk_rows": 4}
        found = loss_and_grads(compiled, tensors(), LABELS, **options)
        expected = loss_and_grads(linear_softmax_cross_entropy, tensors(), LABELS, **options)
        assert all(map(torch.equal, found, expected))
