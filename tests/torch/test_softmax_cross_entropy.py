"""The operator on logits: PyTorch's conventions, the values of our own mathematics, gradients, and how it composes."""

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from gpu_nn import functional as F
from gpu_nn.torch import SoftmaxCrossEntropy, linear_softmax_cross_entropy, softmax_cross_entropy
from gpu_nn.torch._softmax_cross_entropy import _loss_and_grad

LABELS = torch.tensor([0, 3, 4, 1, 1, 2])
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.0, 3.0], dtype=torch.float64)

full_cost_less_complement = partial(softmax_cross_entropy, complement_weight=0)


def logits(*shape, scale=5.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*(shape or (6, 5)), generator=generator, dtype=torch.float64) * scale).to(dtype)


def probabilities(*shape, seed=1):
    return logits(*shape, scale=1.0, seed=seed).softmax(1)


def value_and_grad(cost, z, upstream=None):
    z = z.detach().requires_grad_()
    loss = cost(z)
    (grad,) = torch.autograd.grad(loss, z, torch.ones_like(loss) if upstream is None else upstream.reshape(loss.shape))
    return loss.detach(), grad


def assert_close(found, expected, rtol=1e-12):
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol, equal_nan=True)


class TestConventions:
    """Without the terms of 1-p it is torch.nn.functional.cross_entropy."""

    @pytest.mark.parametrize("target", ["indices", "ignored", "all ignored", "bytes", "probabilities"])
    @pytest.mark.parametrize("shape", [(6, 5), (5,), (2, 5, 3), (2, 5, 3, 4), (0, 5)])
    def test_it_is_cross_entropy_of_pytorch(self, target, shape):
        z = logits(*shape)
        if target == "probabilities":
            y = probabilities(1, *shape)[0] if len(shape) == 1 else probabilities(*shape)
        else:
            places = (shape[0], *shape[2:]) if len(shape) > 1 else ()
            y = torch.arange(int(np.prod(places))).reshape(places) % 5
        if target == "ignored":
            y[y == 1] = -100
        elif target == "all ignored":
            y[...] = -100
        peer_y = y  # PyTorch's own bytes do not go with smoothing
        if target == "bytes":
            y = y.byte()
        generator = torch.Generator().manual_seed(3)
        for reduction, smoothing, weight in product(("mean", "sum", "none"), (0.0, 0.2, 1.0), (None, WEIGHT)):
            options = {"weight": weight, "reduction": reduction, "label_smoothing": smoothing}
            upstream = torch.rand(z.numel() // 5 if reduction == "none" else 1, dtype=z.dtype, generator=generator)
            peer, peer_grad = value_and_grad(lambda z, o=options: cross_entropy(z, peer_y, **o), z, upstream)
            loss, grad = value_and_grad(lambda z, o=options: full_cost_less_complement(z, y, **o), z, upstream)
            assert loss.shape == peer.shape
            assert_close(loss, peer)
            # Where nothing counts PyTorch's gradient is 0 or NaN, as the case may be; ours is 0.
            if target != "probabilities":
                label = peer_y[peer_y != -100]
                if not len(label) or (weight is not None and not weight[label].any()):
                    peer_grad = torch.zeros_like(z)
            assert_close(grad, peer_grad)

    def test_an_ignored_class(self):
        z = logits()
        found = softmax_cross_entropy(z, LABELS, ignore_index=1, complement_weight=0)
        assert_close(found, cross_entropy(z, LABELS, ignore_index=1))

    def test_the_mean_of_the_full_cost_does_not_change_with_the_scale_of_the_weights(self):
        z = logits()
        rows = softmax_cross_entropy(z, LABELS, weight=WEIGHT, reduction="none")
        mean = softmax_cross_entropy(z, LABELS, weight=WEIGHT)
        assert_close(mean, rows.sum() / WEIGHT[LABELS].sum())
        assert_close(mean, softmax_cross_entropy(z, LABELS, weight=7 * WEIGHT))

    def test_the_mean_of_probabilities_is_over_the_rows(self):
        z, y = logits(), probabilities(6, 5)
        rows = softmax_cross_entropy(z, y, weight=WEIGHT, reduction="none")
        assert_close(softmax_cross_entropy(z, y, weight=WEIGHT), rows.mean())

    def test_labels_of_int32_are_those_of_int64(self):
        assert softmax_cross_entropy(logits(), LABELS.int()) == softmax_cross_entropy(logits(), LABELS)

    def test_the_module_has_the_function_s_value_and_keeps_its_weight(self):
        options = {"ignore_index": 1, "reduction": "sum", "label_smoothing": 0.1, "complement_weight": 0.5}
        module = SoftmaxCrossEntropy(WEIGHT, **options)
        assert module(logits(), LABELS) == softmax_cross_entropy(logits(), LABELS, weight=WEIGHT, **options)
        assert module.state_dict().keys() == {"weight"}
        assert module.float().weight.dtype == torch.float32
        assert repr(module) == (
            "SoftmaxCrossEntropy(ignore_index=1, reduction='sum', label_smoothing=0.1, complement_weight=0.5)"
        )


class TestValues:
    @pytest.mark.parametrize("complement_weight", [0.0, 0.3, 1.0])
    @pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
    @pytest.mark.parametrize("scale", [1, 50, 1000])
    @pytest.mark.parametrize("dense", [False, True])
    def test_the_full_cost_is_that_of_functional(self, complement_weight, label_smoothing, scale, dense):
        z = logits(scale=scale)
        y = probabilities(6, 5) if dense else LABELS
        options = {"complement_weight": complement_weight, "label_smoothing": label_smoothing}
        upstream = torch.tensor([1.0, 0.0, -2.0, 0.5, 3.0, 1e-3], dtype=torch.float64)
        loss, grad = value_and_grad(lambda z: softmax_cross_entropy(z, y, reduction="none", **options), z, upstream)
        exact, exact_grad = F.softmax_cross_entropy_with_grad(z.numpy(), y.numpy(), reduction="none", **options)
        np.testing.assert_array_equal(loss.numpy(), exact)
        np.testing.assert_array_equal(grad.numpy(), exact_grad * upstream[:, None].numpy())

    def test_forbidden_classes_by_weights_and_targets_that_are_all_zero(self):
        """The unlikelihood -Σ_{t∈forbidden} ln(1-p_t) beside the everyday cost, as the documentation shows it."""
        z, forbidden = logits(), torch.tensor([0, 0, 0, 1, 1], dtype=torch.float64)
        likelihood = softmax_cross_entropy(z, LABELS, complement_weight=0)
        unlikelihood = softmax_cross_entropy(z, torch.zeros_like(z), weight=forbidden)
        log1m = torch.from_numpy(F.log1m_softmax(z.numpy()))
        assert_close(unlikelihood, -(log1m * forbidden).sum(1).mean())
        assert_close(likelihood, cross_entropy(z, LABELS))

    def test_logits_that_break_the_compositions(self):
        z = torch.tensor([[0.0, 1000.0, 3.0], [-torch.inf, 5.0, 200.0]])
        loss, grad = value_and_grad(lambda z: softmax_cross_entropy(z, torch.tensor([0, 2]), reduction="none"), z)
        exact, exact_grad = F.softmax_cross_entropy_with_grad(z.numpy(), np.array([0, 2]), reduction="none")
        assert_close(loss, torch.from_numpy(exact))
        assert_close(grad, torch.from_numpy(exact_grad))
        assert grad.isfinite().all()


class TestTypes:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_half_types_are_the_float32_result_rounded_once(self, dtype, reduction):
        z = logits(scale=10, dtype=dtype)
        upstream = torch.linspace(-1, 2, 6) if reduction == "none" else torch.tensor(0.5)
        loss, grad = value_and_grad(lambda z: softmax_cross_entropy(z, LABELS, reduction=reduction), z, upstream)
        rows, rows_grad = value_and_grad(lambda z: softmax_cross_entropy(z, LABELS, reduction="none"), z.float())
        factor = upstream[:, None] if reduction == "none" else upstream / 6
        assert loss.dtype == torch.float32
        assert_close(loss, rows if reduction == "none" else rows.mean(), rtol=1e-6)
        assert grad.dtype == dtype
        torch.testing.assert_close(grad, (rows_grad.to(dtype).float() * factor).to(dtype), rtol=0, atol=0)

    def test_a_weight_of_another_type_is_cast(self):
        found = softmax_cross_entropy(logits(dtype=torch.float32), LABELS, weight=WEIGHT)
        assert found == softmax_cross_entropy(logits(dtype=torch.float32), LABELS, weight=WEIGHT.float())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_autocast_is_that_of_cross_entropy(self, dtype):
        z = logits(dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16):
            loss, grad = value_and_grad(lambda z: softmax_cross_entropy(z, LABELS, complement_weight=0), z)
            peer, peer_grad = value_and_grad(lambda z: cross_entropy(z, LABELS), z)
        assert_close(loss, peer, rtol=1e-6)
        torch.testing.assert_close(grad, peer_grad)

    def test_autocast_keeps_gradients_that_a_half_type_holds_only_when_scaled(self):
        """As a gradient scaler needs it: p = 1.5e-8 is 0 in float16, 65,536 times that is not."""
        z = torch.tensor([[18.0, 0.0]], dtype=torch.float16)
        with torch.autocast("cpu", torch.float16):
            _, grad = value_and_grad(lambda z: softmax_cross_entropy(z, torch.tensor([0])), z, torch.tensor(65536.0))
        assert grad[0, 1].item() == pytest.approx(2 * 65536 / (1 + np.exp(18)), rel=1e-3)

    def test_logits_that_are_not_contiguous(self):
        wide = logits(12, 10)
        found = value_and_grad(lambda z: softmax_cross_entropy(z[::2, 1:6], LABELS), wide)
        expected = value_and_grad(lambda z: softmax_cross_entropy(z, LABELS), wide[::2, 1:6].clone())
        assert_close(found[0], expected[0])
        assert_close(found[1][::2, 1:6], expected[1])
        found[1][::2, 1:6] = 0
        assert not found[1].any()

    def test_the_memory_of_the_tensors_is_used_as_it_is(self, monkeypatch):
        from gpu_nn.kernels import numpy_kernels

        seen = []
        monkeypatch.setattr(numpy_kernels, "softmax_cross_entropy", lambda *a, **_: seen.append(a))
        z = logits(dtype=torch.float32)
        softmax_cross_entropy(z, LABELS)
        assert seen[0][0].ctypes.data == z.data_ptr()
        assert seen[0][1].ctypes.data == LABELS.data_ptr()


class TestGradients:
    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    @pytest.mark.parametrize("shape", [(4, 3), (3,), (2, 3, 2)])
    def test_gradcheck(self, reduction, shape):
        z = logits(*shape, scale=2).requires_grad_()
        y = torch.tensor(1) if len(shape) == 1 else torch.ones(shape[0], *shape[2:], dtype=torch.int64)
        options = {"weight": WEIGHT[:3], "label_smoothing": 0.1, "complement_weight": 0.7, "reduction": reduction}
        assert torch.autograd.gradcheck(lambda z: softmax_cross_entropy(z, y, **options), z)

    @pytest.mark.parametrize("needed", [False, True])
    def test_no_gradient_is_computed_where_none_is_needed(self, needed, monkeypatch):
        from gpu_nn.kernels import numpy_kernels

        outputs = []
        kernel = numpy_kernels.softmax_cross_entropy

        def spy(z, y, loss, dz, **options):
            outputs.append(dz)
            kernel(z, y, loss, dz, **options)

        monkeypatch.setattr(numpy_kernels, "softmax_cross_entropy", spy)
        softmax_cross_entropy(logits().requires_grad_(needed), LABELS)
        with torch.no_grad():
            softmax_cross_entropy(logits().requires_grad_(), LABELS)
        with torch.inference_mode():
            softmax_cross_entropy(logits(), LABELS)
        assert [dz is not None for dz in outputs] == [needed, False, False]

    def test_the_gradient_stays_for_a_second_backward_pass(self):
        z = logits().requires_grad_()
        loss = softmax_cross_entropy(z, LABELS)
        (first,) = torch.autograd.grad(loss, z, retain_graph=True)
        (second,) = torch.autograd.grad(2 * loss, z)
        assert_close(second, 2 * first)

    def test_half_types_keep_their_gradient_in_a_graph_of_gradients(self):
        z = logits(dtype=torch.float16).requires_grad_()
        (first,) = torch.autograd.grad(softmax_cross_entropy(z, LABELS), z, create_graph=True)
        (second,) = torch.autograd.grad(softmax_cross_entropy(z, LABELS), z)
        assert torch.equal(first, second)


class TestOperator:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("dense", [False, True])
    @pytest.mark.parametrize("needs_grad", [False, True])
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # by opcheck, from 2.14 on
    def test_opcheck(self, dtype, dense, needs_grad):
        z = logits(dtype=dtype).requires_grad_(needs_grad)
        y = probabilities(6, 5).float() if dense else LABELS
        torch.library.opcheck(_loss_and_grad, (z, y, WEIGHT.float(), 1.0, 0.1, -100, needs_grad))

    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_a_compiled_function_has_no_break_and_the_same_bits(self, reduction):
        def cost(z, y):
            return softmax_cross_entropy(2 * z, y, weight=WEIGHT, reduction=reduction)

        torch.compiler.reset()
        compiled = torch.compile(cost, backend="aot_eager", fullgraph=True)
        for n in (6, 4, 3):  # the second recompiles with a dynamic number of rows
            upstream = torch.arange(1.0, n + 1) if reduction == "none" else torch.tensor(3.0)
            found, expected = (
                value_and_grad(lambda z, f=f, n=n: f(z, LABELS[:n]), logits()[:n], upstream.double())
                for f in (compiled, cost)
            )
            assert all(map(torch.equal, found, expected))

    def test_options_that_change_from_call_to_call_break_no_compiled_function(self):
        """As where the weight of the complement is annealed: from the second call on a number is a symbol."""
        z = logits()

        def cost(ignore_index, label_smoothing, complement_weight):
            options = {
                "ignore_index": ignore_index,
                "label_smoothing": label_smoothing,
                "complement_weight": complement_weight,
            }
            loss = softmax_cross_entropy(z, LABELS, **options)
            return loss + linear_softmax_cross_entropy(z, z[:5], None, LABELS, chunk_rows=ignore_index + 1, **options)

        torch.compiler.reset()
        compiled = torch.compile(cost, backend="aot_eager", fullgraph=True)
        for options in ((0, 0.1, 1.0), (1, 0.2, 2.0), (3, 0.3, 0.5), (4, 0.25, 3.0)):
            assert torch.equal(compiled(*options), cost(*options))

    def test_an_index_out_of_range_is_found_in_a_compiled_function(self):
        torch.compiler.reset()
        compiled = torch.compile(softmax_cross_entropy, backend="aot_eager", fullgraph=True)
        with pytest.raises(IndexError, match="Target 5 is out of bounds"):
            compiled(logits(), LABELS + 1)

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Skipping serialization")  # PyTorch's own
    def test_inductor_compiles_a_model_with_the_cost(self):
        torch.compiler.reset()
        model = torch.nn.Linear(7, 5, dtype=torch.float64)
        x = logits(6, 7)

        def step(x, y):
            return softmax_cross_entropy(model(x).relu(), y)

        found, expected = (value_and_grad(lambda x, f=f: f(x, LABELS), x) for f in (torch.compile(step), step))
        assert_close(found[0], expected[0])
        assert_close(found[1], expected[1])
