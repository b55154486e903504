import numpy as np
import pytest

from gpu_nn import Dense, InputNoise, Network, Standardize

X, Y = np.random.default_rng(0).standard_normal((2000, 5)), np.random.default_rng(1).integers(0, 3, 2000)


def network(deviation, seed=0):
    layers = [Standardize(), InputNoise(deviation), Dense(8, "tanh"), Dense(3)]
    return Network(layers, n_inputs=5, device="cpu", seed=seed, dtype="float64")


def noise_of_a_pass(net):
    return net.plan.bound_layers(len(X), training=True)[1].forward(X, True) - X


def test_it_is_the_identity_outside_training():
    np.testing.assert_array_equal(network(0.7).forward(X), network(0.0).forward(X))


def test_a_training_pass_adds_its_deviation():
    noise = noise_of_a_pass(network(0.25))
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(0.25, abs=0.01)
    assert not noise_of_a_pass(network(0.0)).any()


def test_every_pass_has_new_noise_and_the_same_seed_the_same():
    first, same, other = ([noise_of_a_pass(net) for _ in range(2)] for net in map(lambda s: network(1, s), (1, 1, 2)))
    np.testing.assert_array_equal(first, same)
    assert abs(np.corrcoef(first[0].ravel(), first[1].ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(first[0].ravel(), other[0].ravel())[0, 1]) < 0.05


def test_gradient_of_a_pass_is_that_of_the_noisy_inputs():
    noisy, plain = network(0.5), network(0.0)
    noise = noise_of_a_pass(network(0.5))
    loss = noisy.loss_and_grad(X, Y)
    assert loss == pytest.approx(plain.loss_and_grad(X + noise, Y), rel=1e-12)
    np.testing.assert_allclose(noisy.flat_grads, plain.flat_grads, rtol=1e-9, atol=1e-12)


def test_data_go_through_what_is_before_it_once():
    assert network(0.5).n_preprocessing == 1


@pytest.mark.parametrize("deviation", [-0.1, float("inf"), float("nan")])
def test_a_deviation_below_0_or_not_finite_is_refused(deviation):
    with pytest.raises(ValueError, match=f"deviation={deviation}; expected a finite number ≥ 0"):
        InputNoise(deviation)
