"""There is only a first derivative: second derivatives and forward mode raise errors, never a wrong number."""

import pytest
import torch
from torch.autograd import functional, grad, gradgradcheck
from torch.nn.functional import cross_entropy

from gpu_nn.torch import linear_softmax_cross_entropy, softmax_cross_entropy

LABELS = torch.tensor([0, 3, 4, -100, 1, 2])
REFUSED = pytest.raises(RuntimeError, match="cannot be differentiated twice")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def logits_cost(cost=softmax_cross_entropy, **options):
    return lambda z: cost(z, LABELS, **options)


def linear_cost(**options):
    """Of the layer's input; its weight and bias need their gradients too."""
    weight, bias = normal(5, 5, seed=1), normal(5, seed=2)
    return lambda a: linear_softmax_cross_entropy(a, weight, bias, LABELS, chunk_rows=4, **options)


def hidden_layer(cost):
    """Two parameters of a network before the cost, and the cost as a function of them."""
    x, first, second = normal(6, 7, seed=3).detach(), normal(7, 4, seed=4), normal(4, 5, seed=5)
    return first, second, lambda first, second: cost((x @ first).tanh() @ second)


def gradient(cost, z):
    return grad(cost(z), z, create_graph=True)[0]


def hessian(cost):
    functional.hessian(cost, normal(6, 5))


def hessian_vector_product(cost):
    functional.hvp(cost, normal(6, 5), normal(6, 5, seed=1).detach())


def hessian_vector_product_of_a_network(cost):
    first, second, loss = hidden_layer(cost)
    grads = grad(loss(first, second), (first, second), create_graph=True)
    grad(sum((g * g.detach()).sum() for g in grads), (first, second))


def backward_to_one_parameter(cost):
    first, second, loss = hidden_layer(cost)
    (g,) = grad(loss(first, second), first, create_graph=True)
    g.square().sum().backward(inputs=[second])


def gradient_penalty(cost):
    z = normal(6, 5)
    (gradient(cost, z).square().sum() + z.square().sum()).backward()


def grad_of_the_gradient_s_norm(cost):
    z = normal(6, 5)
    grad(gradient(cost, z).square().sum(), z)


def grad_that_allows_unused(cost):
    z = normal(6, 5)
    grad(gradient(cost, z).square().sum(), z, allow_unused=True)


def derivative_by_the_upstream_gradient(cost):
    z, upstream = normal(6, 5), normal(1, seed=1)
    (g,) = grad((cost(z) * upstream).sum(), z, create_graph=True)
    grad(g.sum(), upstream, allow_unused=True)


def jvp_by_two_backward_passes(cost):
    functional.jvp(cost, normal(6, 5), torch.ones(6, 5, dtype=torch.float64))


def pytorch_s_own_check(cost):
    gradgradcheck(cost, normal(6, 5))


WAYS = [
    hessian,
    hessian_vector_product,
    hessian_vector_product_of_a_network,
    backward_to_one_parameter,
    gradient_penalty,
    grad_of_the_gradient_s_norm,
    grad_that_allows_unused,
    derivative_by_the_upstream_gradient,
    jvp_by_two_backward_passes,
    pytorch_s_own_check,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
class TestSecondDerivatives:
    def test_of_cross_entropy_exist(self, way):
        """Each way is a right one."""
        way(logits_cost(cross_entropy))

    @pytest.mark.parametrize("reduction", ["mean", "none"])
    @pytest.mark.parametrize("complement_weight", [0.0, 1.0])
    def test_of_the_cost_of_logits_are_refused(self, way, reduction, complement_weight):
        rows = logits_cost(reduction=reduction, complement_weight=complement_weight)
        with REFUSED:
            way(rows if reduction == "mean" else lambda z: rows(z).sum())

    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_of_the_linear_cost_are_refused(self, way, reduction):
        rows = linear_cost(reduction=reduction)
        with REFUSED:
            way(rows if reduction == "mean" else lambda a: rows(a).sum())


COSTS = {"logits": logits_cost, "linear": linear_cost}


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
class TestFirstDerivatives:
    def test_a_loss_may_be_changed_in_place(self, cost, reduction):
        """As a script does that masks its rows or adds up over several batches."""
        z = normal(6, 5)
        (expected,) = grad(COSTS[cost](reduction=reduction)(z).sum() / 4, z)
        loss = COSTS[cost](reduction=reduction)(z)
        loss /= 4
        torch.testing.assert_close(grad(loss.sum(), z)[0], expected, rtol=1e-14, atol=0)

    def test_a_gradient_in_a_graph_is_the_same_and_may_be_changed_in_place(self, cost, reduction):
        z = normal(6, 5)
        (expected,) = grad(COSTS[cost](reduction=reduction)(z).sum(), z)
        found = gradient(lambda z: COSTS[cost](reduction=reduction)(z).sum(), z)
        assert torch.equal(found, expected)
        found *= 2  # as a clip of the gradient does
        assert torch.equal(found, 2 * expected)

    def test_a_jacobian_comes_by_backward_passes(self, cost, reduction):
        z = normal(6, 5)
        rows = COSTS[cost](reduction=reduction)
        jacobian = functional.jacobian(rows, z)
        torch.testing.assert_close(jacobian.reshape(-1, 6, 5).sum(0), grad(rows(z).sum(), z)[0], rtol=1e-14, atol=0)

    @pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by forward mode itself
    @pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev, torch.func.hessian])
    def test_pytorch_refuses_its_transforms_of_functions(self, cost, reduction, transform):
        rows = COSTS[cost](reduction=reduction)
        with pytest.raises((RuntimeError, NotImplementedError), match=r"setup_context|has a tangent"):
            transform(lambda z: rows(z).sum())(normal(6, 5).detach())
