import numpy as np
import pytest

from gpu_nn.device import resolve_device
from gpu_nn.flat_parameters import FlatParameters
from gpu_nn.layers import BatchNorm, Dense, InputNoise, LayerNorm, Standardize
from gpu_nn.precision import precision
from tests.cuda_emulator.device import emulated_device

LAYERS = (Standardize(), InputNoise(0.1), Dense(7), BatchNorm(), Dense(9, bias=False), LayerNorm(), Dense(3))
WIDTHS = (5, 5, 5, 7, 7, 9, 9)


def flat_parameters(device=None, dtype="float32"):
    device = resolve_device("cpu") if device is None else device
    return FlatParameters(LAYERS, WIDTHS, device, precision(dtype, device), np.random.default_rng(0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters_and_gradients_are_aligned_parts_of_one_array_each_that_do_not_meet(dtype):
    found = flat_parameters(dtype=dtype)
    assert found.parameters.keys() == found.grads.keys()
    assert len(found.parameters) == 3 + 2 + 2 + 2
    for flat, parts in ((found.flat_parameters, found.parameters), (found.flat_grads, found.grads)):
        assert flat.dtype == dtype
        flat[...] = 0
        for part in parts.values():
            assert np.shares_memory(part, flat)
            assert (part.ctypes.data - flat.ctypes.data) % (16 * flat.itemsize) == 0
            part += 1
        assert flat.max() == 1
        assert flat.sum() == found.n_parameters == 5 * 7 + 7 + 2 * 7 + 7 * 9 + 2 * 9 + 9 * 3 + 3


def test_what_decays_comes_first_and_is_the_weights_of_dense_layers():
    found = flat_parameters()
    found.flat_parameters[...] = 0
    found.flat_parameters[: found.n_decayed] = 1
    decayed = {name for name, part in found.parameters.items() if part.all()}
    assert decayed == {"2.weight", "4.weight", "6.weight"}
    assert all(not part.any() for name, part in found.parameters.items() if name not in decayed)


def test_a_layer_gets_its_own_arrays_by_their_names_in_it():
    found = flat_parameters()
    assert found.of_layer(1).keys() == {"seed", "counter"}
    assert found.of_layer(2).keys() == found.grads_of_layer(2).keys() == {"weight", "bias"}
    assert found.of_layer(2)["weight"] is found.parameters["2.weight"]
    assert found.of_layer(0)["shift"] is found.state["0.shift"]
    assert found.grads_of_layer(0) == {}


def test_layers_number_10_and_1_are_not_mixed_up():
    layers = [Dense(3)] * 11
    device = resolve_device("cpu")
    found = FlatParameters(layers, [3] * 11, device, precision("float32", device), np.random.default_rng(0))
    assert found.of_layer(1).keys() == {"weight", "bias"}
    assert found.of_layer(1)["weight"] is not found.of_layer(10)["weight"]


def test_a_half_type_has_copies_of_what_layers_take_in_it_and_they_follow_the_parameters():
    with emulated_device(nvmath=True) as device:
        found = flat_parameters(device, "mixed_float16")
        numbers = np.random.default_rng(1).normal(size=found.flat_parameters.shape).astype(np.float32)
        found.flat_parameters[...] = device.asarray(numbers)
        found.update_half_copies()
        for name, part in found.parameters.items():
            i, _, field = name.partition(".")
            given = found.of_layer(int(i))[field]
            if int(i) in (2, 4, 6) and field == "weight":
                np.testing.assert_array_equal(device.to_host(given), device.to_host(part).astype(np.float16))
            else:
                assert given.dtype == np.float16 or given is part
        assert found.nbytes == 6 * len(numbers)
    assert flat_parameters().nbytes == 4 * len(numbers)
