"""Every equation behind the cost and its gradient (cuda_src/README.md), by its name.

The reference is mpmath with as many digits as the logits need; the derivatives are also compared with directional
finite differences in float64. Rows are (m, scale) with seeded logits, and rows with a tie at the maximum.
"""

import numpy as np
import pytest
from mpmath import mp, mpf, workdps

from gpu_nn import Network
from gpu_nn import functional as F
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.testing.reference import cost_and_grad, digits_for, literal, soft

TIE = [3.0, -1.0, 3.0, 0.5]
CASES = [(m, scale) for m in (2, 3, 7) for scale in (1, 10, 50, 200, 1000)]
ROWS = [np.random.default_rng([m, s]).standard_normal(m) * s for m, s in CASES] + [np.array(TIE)]
IDS = [f"m={m}, logits ×{s}" for m, s in CASES] + ["tie"]
rows = pytest.mark.parametrize("z", ROWS, ids=IDS)

SMOOTH_ROWS = [row for row, (_, scale) in zip(ROWS, CASES, strict=False) if scale <= 10] + [np.array(TIE)]
smooth_rows = pytest.mark.parametrize("z", SMOOTH_ROWS)


TINY = np.finfo(np.float64).tiny


def assert_close(found, exact, z):
    """Each element within 1e-14, and within what the rounding of z_j - M₂ costs its exponential: ε |z_j - M₂|."""
    tolerance = 1e-14 + np.finfo(np.float64).eps * (max(z) - min(z))
    for value, truth in zip(np.ravel(found), exact, strict=True):
        assert abs(mpf(float(value)) - truth) <= tolerance * abs(truth) + TINY, (value, truth)


def derivative_along(function, z, direction, h=1e-6):
    """Central difference; its error is of the order h² f‴ + ε f/h."""
    return (function(z + h * direction) - function(z - h * direction)) / (2 * h)


def targets(m):
    """Labels at the first and the last class, soft, multi-hot and empty targets."""
    random = np.random.default_rng(m)
    yield from (np.eye(m)[0], np.eye(m)[-1], random.dirichlet(np.ones(m)), np.zeros(m), np.ones(m))
    yield (random.random(m) < 0.5).astype(float)


class TestSection1:
    @rows
    def test_soft(self, z):
        with workdps(digits_for(z)):
            assert_close(F.softmax(z[None]), [soft(z, j) for j in range(len(z))], z)

    @rows
    def test_soft_without_t(self, z):
        m = len(z)
        for t in range(m):
            with workdps(digits_for(z)):
                exact = [mpf(0) if j == t else soft(z, j, but=t) for j in range(m)]
            assert_close(F.all_but_one_softmax(z[None], t), exact, z)

    @rows
    def test_ln_soft(self, z):
        with workdps(digits_for(z)):
            exact = [mpf(float(v)) - mp.log(sum(mp.exp(mpf(float(s))) for s in z)) for v in z]
        assert_close(F.log_softmax(z[None]), exact, z)

    @rows
    def test_ln_one_minus_soft(self, z):
        m = len(z)
        with workdps(digits_for(z)):
            power = [mp.exp(mpf(float(v))) for v in z]
            exact = [mp.log(sum(power[s] for s in range(m) if s != j)) - mp.log(sum(power)) for j in range(m)]
        assert_close(F.log1m_softmax(z[None]), exact, z)

    @smooth_rows
    def test_derivative_of_ln_soft_j_is_one_minus_soft_j(self, z):
        self.check_derivative(F.log_softmax, lambda p, rest, j: 1 - p[j], z, same=True)

    @smooth_rows
    def test_derivative_of_ln_one_minus_soft_j_is_minus_soft_j(self, z):
        self.check_derivative(F.log1m_softmax, lambda p, rest, j: -p[j], z, same=True)

    @smooth_rows
    def test_derivative_of_ln_soft_t_is_minus_soft_j(self, z):
        self.check_derivative(F.log_softmax, lambda p, rest, j: -p[j], z, same=False)

    @smooth_rows
    def test_derivative_of_ln_one_minus_soft_t_is_soft_without_t_minus_soft_j(self, z):
        self.check_derivative(F.log1m_softmax, lambda p, rest, j: rest[j] - p[j], z, same=False)

    def check_derivative(self, function, formula, z, same):
        """∂ function(z)[t] / ∂z_j against the formula of the derivation, for t = j or for every t ≠ j."""
        m = len(z)
        p = F.softmax(z[None])[0]
        for j in range(m):
            for t in [j] if same else [t for t in range(m) if t != j]:
                rest = F.all_but_one_softmax(z[None], t)[0]
                found = derivative_along(lambda row, t=t: function(row[None])[0, t], z, np.eye(m)[j])
                assert found == pytest.approx(formula(p, rest, j), rel=1e-6, abs=1e-8)


class TestSection2:
    @rows
    def test_cost(self, z):
        for y in targets(len(z)):
            cost = literal(z, y)[0]
            assert abs(mpf(float(F.softmax_cross_entropy(z[None], y[None]))) - cost) <= 1e-14 * cost + TINY

    @rows
    def test_gradient_of_the_cost(self, z):
        """∂C/∂z_j = m soft(z,j) - y_j - Σ_{t≠j} (1-y_t) soft(z_{≠t}, j), within 1e-14 of the largest, row by row."""
        for y in targets(len(z)):
            _, dz = F.softmax_cross_entropy_with_grad(z[None], y[None])
            exact = cost_and_grad(z, y)._replace(grad=literal(z, y)[1])
            assert exact.grad_error(dz[0], TINY) <= 1e-14

    @rows
    def test_every_line_of_the_gradient_is_the_same(self, z):
        """The five right-hand sides of section 2, from `softmax` and `all_but_one_softmax`."""
        m = len(z)
        p = F.softmax(z[None])[0]
        rest = np.array([F.all_but_one_softmax(z[None], t)[0] for t in range(m)])  # rest[t, j] = soft(z_{≠t}, j)
        others = ~np.eye(m, dtype=bool)
        for y in targets(m):
            _, dz = F.softmax_cross_entropy_with_grad(z[None], y[None])
            for j in range(m):
                t = others[j]
                own = -(y[j] * (1 - p[j]) + (1 - y[j]) * -p[j])
                lines = [
                    own - np.sum(y[t] * -p[j] + (1 - y[t]) * (rest[t, j] - p[j])),
                    -(y[j] - p[j]) - np.sum((1 - y[t]) * rest[t, j] - p[j]),
                    -(y[j] - p[j]) - np.sum((1 - y[t]) * rest[t, j]) + (m - 1) * p[j],
                    p[j] - y[j] + (m - 1) * p[j] - np.sum((1 - y[t]) * rest[t, j]),
                    m * p[j] - y[j] - np.sum((1 - y[t]) * rest[t, j]),
                ]
                np.testing.assert_allclose(lines, dz[0, j], rtol=0, atol=1e-13)

    @smooth_rows
    def test_gradient_is_the_derivative_of_the_cost(self, z):
        direction = np.random.default_rng(0).standard_normal(len(z))
        for y in targets(len(z)):
            _, dz = F.softmax_cross_entropy_with_grad(z[None], y[None])
            found = derivative_along(lambda row, y=y: F.softmax_cross_entropy(row[None], y[None]), z, direction)
            assert dz[0] @ direction == pytest.approx(found, rel=1e-6, abs=1e-7)

    @rows
    def test_the_fast_truth_is_the_literal_one(self, z):
        """`reference.cost_and_grad`, the truth for many classes, against the equations as they stand."""
        for y in targets(len(z)):
            exact, (cost, grad) = cost_and_grad(z, y), literal(z, y)
            with workdps(digits_for(z)):
                assert abs(exact.cost - cost) <= mpf(10) ** -35 * cost
                assert max(abs(a - b) for a, b in zip(exact.grad, grad, strict=True)) <= mpf(10) ** -35 * exact.terms


class TestSection3:
    """∂C/∂b, ∂C/∂w, ∂C/∂a of the output, a hidden and the first layer."""

    WIDTHS = (4, 5, 3, 3)

    @pytest.fixture
    def problem(self):
        random = np.random.default_rng(7)
        net = Network(self.WIDTHS, activation="tanh", dtype="float64", device="cpu", seed=3)
        for name in net.parameters:
            net.parameters[name][...] += 0.1 * random.standard_normal(net.parameters[name].shape)
        return net, random.standard_normal((6, self.WIDTHS[0])), random.random((6, self.WIDTHS[-1]))

    def exact_cost(self, net, x, y):
        """C of the network by mpmath: z = b + Σ_i w_ij a_i, a = tanh z, layer after layer."""
        total = mpf(0)
        for row, target in zip(x, y, strict=True):
            a = [mpf(float(v)) for v in row]
            for layer in range(3):
                w, b = net.parameters[f"{layer}.weight"], net.parameters[f"{layer}.bias"]
                z = [mpf(float(b[j])) + mp.fsum(mpf(w[i, j]) * a[i] for i in range(len(a))) for j in range(w.shape[1])]
                a = z if layer == 2 else [mp.tanh(v) for v in z]
            power = [mp.exp(v) for v in a]
            p = [v / mp.fsum(power) for v in power]
            for t, share in enumerate(p):
                y_t = mpf(float(target[t]))
                total -= y_t * mp.log(share) + (1 - y_t) * mp.log(1 - share)
        return total

    @pytest.mark.parametrize(
        "name", ["2.bias", "2.weight", "1.bias", "1.weight", "0.bias", "0.weight"], ids=lambda name: f"∂C/∂({name})"
    )
    def test_gradient_of_a_parameter(self, problem, name):
        net, x, y = problem
        net.loss_and_grad(x, y, reduction="sum")
        grad, parameter = net.grads[name].copy(), net.parameters[name]
        h = 2.0**-20
        for place in list(np.ndindex(parameter.shape))[:6]:
            value = parameter[place]
            with workdps(50):
                costs = []
                for step in (-2, -1, 1, 2):
                    parameter[place] = value + step * h
                    costs.append(self.exact_cost(net, x, y))
                parameter[place] = value
                exact = (costs[0] - 8 * costs[1] + 8 * costs[2] - costs[3]) / (12 * mpf(h))  # error h⁴ f⁽⁵⁾/30
            assert float(grad[place]) == pytest.approx(float(exact), rel=1e-12, abs=1e-13)

    def test_gradient_of_the_inputs_of_a_layer(self, problem):
        """∂C/∂a_i = Σ_j ∂C/∂z_j w_ij, of the output layer."""
        net, x, y = problem
        w, b = net.parameters["2.weight"].copy(), net.parameters["2.bias"].copy()
        a = x[:, :3].copy()
        _, da, dw, db = F.linear_softmax_cross_entropy_with_grad(a, w, b, y)
        _, dz = F.softmax_cross_entropy_with_grad(a @ w + b, y)
        np.testing.assert_allclose(da, np.einsum("rj,ij->ri", dz, w), rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(dw, np.einsum("rj,ri->ij", dz, a), rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(db, dz.sum(axis=0), rtol=1e-13, atol=1e-13)
        direction = np.random.default_rng(1).standard_normal(a.shape)
        found = derivative_along(lambda at: F.linear_softmax_cross_entropy_with_grad(at, w, b, y)[0], a, direction)
        assert np.sum(da * direction) == pytest.approx(found, rel=1e-7)

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("widths", [(3, 4), (4, 6, 3), (5, 8, 7, 6, 4)], ids=str)
    def test_gradient_along_a_direction_at_any_depth_and_activation(self, activation, widths):
        random = np.random.default_rng(11)
        net = Network(widths, activation=activation, dtype="float64", device="cpu", seed=5)
        x, y = random.standard_normal((9, widths[0])), random.integers(0, widths[-1], 9)
        net.loss_and_grad(x, y)
        grad, start = net.flat_grads.copy(), net.flat_parameters.copy()
        # The gaps between the arrays are not parameters.
        direction = random.standard_normal(start.size) * (grad != 0)

        def cost(flat):
            net.flat_parameters[:] = flat
            return net.loss_and_grad(x, y)

        assert grad @ direction == pytest.approx(derivative_along(cost, start, direction), rel=1e-6, abs=1e-8)
