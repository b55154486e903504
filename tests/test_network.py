"""The network: construction, flat memory, determinism, allocation. Gradients: test_derivation."""

import tracemalloc

import numpy as np
import pytest

from gpu_nn import SGD, Adam, Dense, Dropout, Network, Standardize
from gpu_nn.errors import DeviceError


def batch(n=16, inputs=6, classes=4, seed=0):
    random = np.random.default_rng(seed)
    return random.standard_normal((n, inputs)).astype(np.float32), random.integers(0, classes, n)


class TestConstruction:
    def test_widths_stand_for_dense_layers(self):
        short = Network([6, 5, 4], activation="tanh", device="cpu")
        long = Network([Dense(5, "tanh"), Dense(4)], n_inputs=6, device="cpu")
        assert short.layers == long.layers
        np.testing.assert_array_equal(short.flat_parameters, long.flat_parameters)

    def test_parameters_and_grads_are_views_into_one_flat_array_each(self):
        net = Network([6, 5, 4], device="cpu")
        assert list(net.parameters) == ["0.weight", "0.bias", "1.weight", "1.bias"]
        assert [p.shape for p in net.parameters.values()] == [(6, 5), (5,), (5, 4), (4,)]
        net.flat_parameters[:] = 7
        net.flat_grads[:] = 8
        assert all((p == 7).all() for p in net.parameters.values())
        assert all((g == 8).all() for g in net.grads.values())
        assert net.flat.n_parameters == 6 * 5 + 5 + 5 * 4 + 4

    def test_weights_come_first_and_every_array_is_aligned(self):
        net = Network([6, 5, 4], device="cpu")
        start = net.flat_parameters.ctypes.data
        places = {name: (p.ctypes.data - start) // 4 for name, p in net.parameters.items()}
        assert all(place % 16 == 0 for place in places.values())
        assert all((places[name] < net.flat.n_decayed) == name.endswith("weight") for name in places)

    def test_the_same_seed_gives_the_same_bits_and_another_does_not(self):
        one, same, other = (Network([6, 5, 4], seed=seed, device="cpu") for seed in (1, 1, 2))
        np.testing.assert_array_equal(one.flat_parameters, same.flat_parameters)
        assert (one.flat_parameters != other.flat_parameters).any()

    @pytest.mark.parametrize(("activation", "variance"), [("relu", 2 / 400), ("tanh", 2 / 700)])
    def test_initial_weights_have_the_variance_that_fits_the_activation(self, activation, variance):
        net = Network([400, 300, 2], activation=activation, device="cpu")
        weight = net.parameters["0.weight"]
        assert weight.var() == pytest.approx(variance, rel=0.02)
        assert abs(weight.mean()) < 0.01 * variance**0.5
        assert not net.parameters["0.bias"].any()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"layers": []}, "expected widths"),
            ({"layers": [4]}, "at least inputs and classes"),
            ({"layers": [4, 0, 2]}, "whole number ≥ 1"),
            ({"layers": [4, Dense(2)]}, "not both"),
            ({"layers": [Dense(2)]}, "n_inputs=None; expected the number of input columns"),
            ({"layers": [4, 2], "n_inputs": 5}, "layers begins with 4"),
            ({"layers": [4, 1]}, "at least 2 classes"),
            ({"layers": [4, 2], "activation": "rely"}, "activation='rely' is not one of .* Did you mean 'relu'?"),
            ({"layers": [4, 2], "dtype": "float16"}, "dtype='float16' is not one of float32, float64"),
            ({"layers": [4, 2], "device": "gpu"}, "device='gpu' is not one of"),
        ],
    )
    def test_refusals(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            Network(**arguments)

    def test_cuda_without_a_gpu_is_an_error_never_a_fallback(self, monkeypatch):
        monkeypatch.setattr("gpu_nn.device.cuda_unavailable_reason", lambda: "no GPU here")
        with pytest.raises(DeviceError, match="device='cuda', but no GPU here"):
            Network([4, 2], device="cuda")
        assert Network([4, 2], device="auto").device.reason == "auto: no GPU here"


class TestForward:
    def test_logits_are_the_layers_one_after_another(self):
        net = Network([6, 5, 4], activation="sigmoid", dtype="float64", device="cpu")
        x, _ = batch()
        p = net.parameters
        hidden = 1 / (1 + np.exp(-(x @ p["0.weight"] + p["0.bias"])))
        np.testing.assert_allclose(net.forward(x), hidden @ p["1.weight"] + p["1.bias"], rtol=1e-12)

    def test_probabilities_add_up_to_one_and_predict_takes_the_largest(self):
        net = Network([6, 5, 4], device="cpu")
        x, _ = batch(5000)
        probabilities = net.predict_proba(x)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_array_equal(net.predict(x), probabilities.argmax(axis=1))

    def test_results_do_not_change_under_later_calls(self):
        net = Network([6, 5, 4], device="cpu")
        first = net.forward(batch()[0])
        before = first.copy()
        net.forward(batch(seed=1)[0])
        net.loss_and_grad(*batch(seed=2))
        np.testing.assert_array_equal(first, before)

    def test_no_rows_give_no_logits(self):
        assert Network([6, 4], device="cpu").forward(np.empty((0, 6))).shape == (0, 4)

    def test_standardize_is_part_of_the_model(self):
        plain = Network([6, 4], device="cpu", seed=1)
        scaled = Network([Standardize(), Dense(4)], n_inputs=6, device="cpu")
        scaled.parameters["1.weight"][...] = plain.parameters["0.weight"]
        scaled.state["0.shift"][...] = 2
        scaled.state["0.scale"][...] = 0.5
        x, _ = batch()
        np.testing.assert_allclose(scaled.forward(x), plain.forward((x - 2) / 2), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("x", [np.zeros((3, 5)), np.zeros(6), np.zeros((2, 3, 6))])
    def test_a_wrong_width_is_refused(self, x):
        with pytest.raises(ValueError, match=r"expected \(n, 6\), one column for each input"):
            Network([6, 4], device="cpu").forward(x)


class TestLossAndGrad:
    @pytest.mark.parametrize("reduction", ["sum", "mean"])
    def test_a_short_batch_after_a_long_one_is_computed_as_alone(self, reduction):
        net, fresh = (Network([6, 5, 4], device="cpu") for _ in range(2))
        net.loss_and_grad(*batch(64))
        x, y = batch(7, seed=1)
        assert net.loss_and_grad(x, y, reduction=reduction) == fresh.loss_and_grad(x, y, reduction=reduction)
        np.testing.assert_array_equal(net.flat_grads, fresh.flat_grads)

    def test_options_reach_the_cost(self):
        net = Network([6, 4], dtype="float64", device="cpu")
        x, y = batch()
        v, w = np.arange(16.0), np.arange(4.0)
        options = {"sample_weight": v, "class_weight": w, "label_smoothing": 0.1, "complement_weight": 0.5}
        from gpu_nn import functional as F

        loss = net.loss_and_grad(x, y, reduction="sum", **options)
        exact, dz = F.softmax_cross_entropy_with_grad(net.forward(x), y, **options)
        assert loss == pytest.approx(exact, rel=1e-13)
        np.testing.assert_allclose(net.grads["0.bias"], dz.sum(axis=0), rtol=1e-12)

    def test_an_empty_batch_has_no_gradient(self):
        net = Network([6, 4], device="cpu")
        net.flat_grads[:] = 1
        assert net.loss_and_grad(np.empty((0, 6)), np.empty(0, int)) == 0
        assert not net.flat_grads.any()

    def test_labels_out_of_range_are_named(self):
        with pytest.raises(ValueError, match=r"y\[1\] = 4; expected 0 to 3"):
            Network([6, 4], device="cpu").loss_and_grad(np.zeros((2, 6)), [0, 4])

    def test_reduction_none_is_refused(self):
        with pytest.raises(ValueError, match="no single gradient"):
            Network([6, 4], device="cpu").loss_and_grad(*batch(), reduction="none")

    @pytest.mark.parametrize("optimizer", [SGD(0.1, 0.9, nesterov=True), Adam(1e-3, max_norm=1.0)])
    def test_a_step_after_the_first_allocates_nothing_that_grows_with_the_batch(self, optimizer):
        """Peak allocation of a step, the same for 500 and for 4,000 rows, far under one activation array."""
        peaks = {}
        for n in (500, 4000):
            net = Network([Dense(64, "gelu"), Dropout(0.5), Dense(64, "relu"), Dense(4)], n_inputs=6, device="cpu")
            stepper = type(optimizer)(0.1)
            x, y = batch(n)
            for _ in range(2):
                net.train_step(x, y, 0, scale=1 / n)
                stepper.step(net)
            tracemalloc.start()
            net.train_step(x, y, 0, scale=1 / n)
            stepper.step(net)
            peaks[n] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        block = 1 << 16  # elements
        assert peaks[4000] < 4 * block * 8
        assert peaks[4000] - peaks[500] < 4 * block * 8 / 2

    def test_no_gradient_goes_back_beyond_the_first_layer_that_learns(self):
        net = Network([Standardize(), Dropout(0.5), Dense(5), Dense(4)], n_inputs=6, device="cpu")
        net.loss_and_grad(*batch())
        held = net.plan.workspace(training=True)._memory
        assert "3.input_grad" in held
        assert "2.input_grad" not in held

    def test_a_network_without_parameters_has_a_cost(self):
        net = Network([Standardize()], n_inputs=6, device="cpu")
        assert net.loss_and_grad(*batch()) > 0
