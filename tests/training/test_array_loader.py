import numpy as np
import pytest

from gpu_nn import Network, Standardize
from gpu_nn.layers import Dense
from gpu_nn.training.array_loader import ArrayLoader
from tests.cuda_emulator.device import emulated_device
from tests.training.blobs import blobs

X, Y = blobs(60)


def network(device="cpu", dtype="float32"):
    net = Network([Standardize(), Dense(3)], n_inputs=5, device=device, dtype=dtype)
    net.state["0.shift"][...], net.state["0.scale"][...] = 1, 2
    return net


def test_an_epoch_is_one_stretch_of_all_rows_in_the_order_that_is_drawn():
    data, order = ArrayLoader(network(), X, Y), np.empty(60, np.int64)
    assert list(data.epoch(None, 0, order)) == [(0, 60)]
    np.testing.assert_array_equal(order, np.arange(60))
    assert list(data.epoch(np.random.default_rng(3), 0, order)) == [(0, 60)]
    np.testing.assert_array_equal(order, np.random.default_rng(3).permutation(60))


def test_rows_are_as_they_came_until_they_are_prepared():
    data = ArrayLoader(network(), X, Y)
    np.testing.assert_array_equal(data.x, X.astype(np.float32))
    data.prepare()
    np.testing.assert_array_equal(data.x, (X.astype(np.float32) - 1) * 2)


@pytest.mark.parametrize("factor", [1.0, 1e-300, 1e300])
def test_only_the_ratios_of_weights_matter(factor):
    weight = np.random.default_rng(0).random(60)
    data = ArrayLoader(network(dtype="float64"), X, Y, weight * factor)
    np.testing.assert_allclose(data.weight, weight / weight.mean(), rtol=1e-14)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_weights_that_are_none_are_refused(bad):
    weight = np.ones(60)
    weight[7] = bad
    with pytest.raises(ValueError, match="sample_weight"):
        ArrayLoader(network(), X, Y, weight)


def test_data_are_told_apart_by_what_is_in_them():
    net = network()
    other = X.copy()
    other[59, 4] += 1
    sets = [(X, Y), (other, Y), (X, (Y + 1) % 3), (X, np.eye(3)[Y]), (X[:59], Y[:59]), (X, Y, np.arange(60.0))]
    told = [str(ArrayLoader(net, *given).fingerprint()) for given in sets]
    assert len(set(told)) == len(told)


def test_equal_data_are_told_alike_whatever_holds_them():
    expected = ArrayLoader(network(), X, Y).fingerprint()
    assert ArrayLoader(network(), X.tolist(), Y.astype(np.int8)).fingerprint() == expected
    assert ArrayLoader(network(), np.asfortranarray(X), Y.astype(np.uint64)).fingerprint() == expected
    with emulated_device() as device:
        assert ArrayLoader(network(device), X, Y).fingerprint() == expected


def test_weights_are_told_alike_up_to_the_rounding_of_their_mean():
    weight, net = np.random.default_rng(0).random(60), network(dtype="float64")
    some, alike = ArrayLoader(net, X, Y, weight), ArrayLoader(net, X, Y, weight * 3)
    assert (some.weight != alike.weight).any()
    assert some.fingerprint() == alike.fingerprint()
    weight[59] *= 1 + 1e-6
    assert ArrayLoader(net, X, Y, weight).fingerprint() != some.fingerprint()
