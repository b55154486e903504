import numpy as np
import pytest

from gpu_nn import Dense, Dropout, Network
from gpu_nn.layers import LAYERS


def network(rate, seed=0, dtype="float64"):
    return Network([Dense(400, "sigmoid"), Dropout(rate), Dense(3)], n_inputs=5, device="cpu", seed=seed, dtype=dtype)


X, Y = np.random.default_rng(0).standard_normal((50, 5)), np.random.default_rng(1).integers(0, 3, 50)


def test_it_is_the_identity_outside_training():
    net, plain = network(0.7), network(0.0)
    np.testing.assert_array_equal(net.forward(X), plain.forward(X))


def test_a_training_pass_drops_the_rate_and_keeps_the_mean():
    net = network(0.25)
    net.loss_and_grad(X, Y)
    mask = net.plan.bound_layers(50, training=True)[1].mask
    assert (~mask).mean() == pytest.approx(0.25, abs=0.01)
    dropped = net.plan.bound_layers(50, training=True)[1].forward(np.ones((50, 400)), True)
    assert dropped.mean() == pytest.approx(1, abs=0.01)
    assert set(np.unique(dropped)) == {0, 1 / 0.75}


def test_every_pass_has_a_new_mask_and_the_same_seed_the_same_masks():
    def masks(seed):
        net = network(0.5, seed)
        found = []
        for _ in range(3):
            net.loss_and_grad(X, Y)
            found.append(net.plan.bound_layers(50, training=True)[1].mask.copy())
        return np.array(found)

    first, same, other = masks(1), masks(1), masks(2)
    np.testing.assert_array_equal(first, same)
    assert (first[0] != first[1]).mean() == pytest.approx(0.5, abs=0.02)
    assert (first != other).mean() == pytest.approx(0.5, abs=0.02)


def test_gradient_of_a_pass_is_that_of_the_network_without_the_dropped_units():
    """Finite differences with the counter put back, so that every evaluation draws the same mask."""
    net = network(0.4)
    counter = net.state["1.counter"]

    def cost(flat):
        net.flat_parameters[:] = flat
        counter[0] = 5
        return net.loss_and_grad(X, Y)

    start = net.flat_parameters.copy()
    cost(start)
    grad = net.flat_grads.copy()
    direction = np.random.default_rng(2).standard_normal(start.size) * (grad != 0)
    h = 1e-6
    assert grad @ direction == pytest.approx((cost(start + h * direction) - cost(start - h * direction)) / (2 * h))


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_outside_0_to_1_is_refused(rate):
    with pytest.raises(ValueError, match="rate="):
        Dropout(rate)


def test_every_layer_that_is_public_can_be_saved():
    assert {"Dense", "Dropout", "Standardize"} <= LAYERS.keys()
