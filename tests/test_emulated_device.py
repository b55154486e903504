"""The whole GPU path on the emulated device: functional, network and training run there as they do on the CPU."""

import numpy as np
import pytest

from gpu_nn import (
    SGD,
    Adam,
    AdamW,
    BatchNorm,
    Dense,
    Dropout,
    InputNoise,
    LayerNorm,
    Network,
    Standardize,
    Trainer,
)
from gpu_nn import functional as F
from gpu_nn.cli import main
from gpu_nn.data import digits
from gpu_nn.errors import DeviceError, OutOfDeviceMemory
from tests.cuda_emulator import cupy_proxy
from tests.cuda_emulator.device import emulated_device
from tests.training.steps import recorded_steps


@pytest.fixture(scope="module", autouse=True)
def device():
    with emulated_device() as found:
        yield found


def digits_trainer(device, optimizer=Adam, layers=None, **options):
    """A trainer whose optimizer keeps the loss of every step in `losses`."""
    layers = layers or [Dense(32, "relu"), Dense(10)]
    net = Network(layers, n_inputs=64, device=device, seed=3)
    return Trainer(net, optimizer(1e-3), batch_size=32, **options)


def losses_of_steps(trainer, steps):
    x, y = digits()
    taken = []
    step = trainer.net.train_step

    def spy(*arguments, **options):
        losses = step(*arguments, **options)
        taken.append(losses.sum())
        return losses

    trainer.net.train_step = spy
    trainer.fit(x[: steps * 32] / 16, y[: steps * 32], epochs=1)
    return np.array([float(loss) for loss in taken])


class TestTraining:
    def test_digits_train_to_the_loss_curve_of_the_cpu(self, device):
        emulated = losses_of_steps(digits_trainer(device), 50)
        cpu = losses_of_steps(digits_trainer("cpu"), 50)
        assert len(emulated) == 50
        np.testing.assert_allclose(emulated, cpu, rtol=1e-4)
        assert emulated[-10:].mean() < emulated[:10].mean() - 0.2  # and it does learn

    @pytest.mark.parametrize("optimizer", [lambda lr: SGD(lr, 0.9, nesterov=True, max_norm=1.0), AdamW])
    def test_dropout_standardization_and_other_optimizers_agree_with_the_cpu(self, device, optimizer):
        layers = [Standardize(), Dense(24, "gelu"), Dropout(0.3), Dense(10)]
        curves = [losses_of_steps(digits_trainer(where, optimizer, layers), 10) for where in (device, "cpu")]
        np.testing.assert_allclose(*curves, rtol=1e-4)

    @pytest.mark.parametrize("norm", [LayerNorm, BatchNorm])
    def test_normalisation_and_input_noise_agree_with_the_cpu(self, device, norm):
        # Without biases that a BatchNorm undoes: their gradient is rounding alone, and Adam makes whole steps of it.
        hidden = [Dense(24, bias=False), norm("relu"), Dropout(0.2), Dense(20, bias=False), norm("gelu")]
        layers = [InputNoise(0.1), *hidden, Dense(10)]
        trainers = [digits_trainer(where, Adam, layers) for where in (device, "cpu")]
        curves = [losses_of_steps(trainer, 50) for trainer in trainers]
        np.testing.assert_allclose(*curves, rtol=1e-3)
        np.testing.assert_allclose(*(curve[:10] for curve in curves), rtol=1e-5)
        assert curves[0][-10:].mean() < curves[0][:10].mean() - 0.4
        emulated, cpu = (trainer.net for trainer in trainers)
        for name, array in cpu.state.items():
            np.testing.assert_allclose(emulated.state[name].get(), array, rtol=1e-2, atol=1e-3)
        x = digits()[0][:50] / 16
        alone = np.concatenate([emulated.predict_proba(x[i : i + 1]).get() for i in range(50)])
        np.testing.assert_allclose(emulated.predict_proba(x).get(), alone, rtol=1e-5, atol=1e-8)

    def test_a_last_batch_of_one_row_agrees_with_the_cpu(self, device):
        x, y = digits()
        ends = []
        for where in (device, "cpu"):
            trainer = digits_trainer(where, SGD, [Dense(12, bias=False), BatchNorm("tanh"), Dense(10)])
            trainer.fit(x[:65] / 16, y[:65], epochs=1)
            ends.append(trainer.net.device.to_host(trainer.net.flat_parameters))
        np.testing.assert_allclose(*ends, rtol=1e-4, atol=1e-6)

    def test_a_training_step_never_waits_for_the_device(self, device):
        layers = [InputNoise(0.1), Dense(24), BatchNorm("silu"), Dropout(0.3), LayerNorm(), Dense(10)]
        trainer = digits_trainer(device, layers=layers)
        x, y = digits()
        with recorded_steps() as steps:
            trainer.fit(x[:64] / 16, y[:64], epochs=1)
        with cupy_proxy.synchronisations.record() as waits, cupy_proxy.uploads.record() as copies:
            for _ in range(3):
                trainer._pending_losses.counters.fill(0)
                steps[0](32)
        assert waits == []
        assert copies == []

    def test_two_runs_leave_the_same_bits(self, device):
        runs = []
        for _ in range(2):
            trainer = digits_trainer(device)
            losses_of_steps(trainer, 10)
            runs.append(trainer.net.flat_parameters.get())
        np.testing.assert_array_equal(*runs)

    def test_initial_parameters_are_those_of_the_cpu(self, device):
        emulated, cpu = (Network([64, 32, 10], device=where, seed=3) for where in (device, "cpu"))
        np.testing.assert_array_equal(emulated.flat_parameters.get(), cpu.flat_parameters)

    def test_validation_and_prediction_agree_with_the_cpu(self, device):
        x, y = digits()
        x = x[:200] / 16
        nets = [Network([64, 16, 10], device=where, seed=3) for where in (device, "cpu")]
        records = [Trainer(net, SGD(0.0)).fit(x, y[:200], epochs=1, validation=(x, y[:200]))[0] for net in nets]
        assert records[0].validation_loss == pytest.approx(records[1].validation_loss, rel=1e-5)
        assert records[0].validation_accuracy == records[1].validation_accuracy
        np.testing.assert_allclose(nets[0].predict_proba(x).get(), nets[1].predict_proba(x), rtol=1e-4, atol=1e-7)
        np.testing.assert_array_equal(nets[0].predict(x).get(), nets[1].predict(x))


class TestFunctional:
    Z = (np.random.default_rng(0).standard_normal((6, 5)) * 20).astype(np.float32)
    Y = np.array([0, 1, 2, 3, 4, 0])

    @pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
    @pytest.mark.parametrize(
        "options",
        [{}, {"label_smoothing": 0.1, "class_weight": np.arange(5.0)}, {"ignore_index": 0, "complement_weight": 0.5}],
    )
    def test_results_are_arrays_of_the_device_with_the_values_of_the_cpu(self, device, reduction, options):
        z, y = device.asarray(self.Z), device.asarray(self.Y)
        loss, dz = F.softmax_cross_entropy_with_grad(z, y, reduction=reduction, **options)
        exact, exact_dz = F.softmax_cross_entropy_with_grad(self.Z, self.Y, reduction=reduction, **options)
        assert isinstance(loss, cupy_proxy.ndarray)
        np.testing.assert_allclose(loss.get(), exact, rtol=4e-6)
        np.testing.assert_allclose(dz.get(), exact_dz, rtol=1e-5, atol=1e-6)

    def test_the_softmax_family(self, device):
        z = device.asarray(self.Z)
        for function in (F.softmax, F.log_softmax, F.log1m_softmax, lambda z: F.all_but_one_softmax(z, 2)):
            np.testing.assert_allclose(function(z).get(), function(self.Z), rtol=1e-5, atol=1e-7)

    def test_linear_in_chunks(self, device):
        random = np.random.default_rng(1)
        a, w, b = (random.standard_normal(shape).astype(np.float32) for shape in ((30, 6), (6, 5), (5,)))
        y = random.integers(0, 5, 30)
        on_device = [device.asarray(array) for array in (a, w, b, y)]
        found = F.linear_softmax_cross_entropy_with_grad(*on_device, chunk_rows=7)
        exact = F.linear_softmax_cross_entropy_with_grad(a, w, b, y)
        for one, other in zip(found, exact, strict=True):
            np.testing.assert_allclose(one.get(), other, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("n", [0, 3])
    def test_linear_without_inputs_is_the_bias(self, device, n):
        a, w, b, y = np.ones((n, 0), np.float32), np.ones((0, 4), np.float32), np.arange(4.0, dtype="f4"), np.arange(n)
        on_device = [device.asarray(array) for array in (a, w, b, y)]
        exact = F.linear_softmax_cross_entropy_with_grad(a, w, b, y)
        for one, other in zip(F.linear_softmax_cross_entropy_with_grad(*on_device), exact, strict=True):
            np.testing.assert_allclose(one.get(), other, rtol=1e-6)

    def test_an_empty_batch(self, device):
        loss, dz = F.softmax_cross_entropy_with_grad(device.asarray(self.Z[:0]), device.asarray(self.Y[:0]))
        assert float(loss) == 0
        assert dz.shape == (0, 5)

    def test_arrays_that_are_not_contiguous_are_copied(self, device):
        z, y = device.asarray(self.Z), device.asarray(self.Y)
        found = F.softmax_cross_entropy_with_grad(z[::2], y[::2])[1]
        np.testing.assert_allclose(
            found.get(), F.softmax_cross_entropy_with_grad(self.Z[::2], self.Y[::2])[1], rtol=1e-5, atol=1e-6
        )

    def test_a_label_out_of_range_makes_its_row_nan(self, device):
        loss = F.softmax_cross_entropy(device.asarray(self.Z), device.asarray(self.Y + 1), reduction="none").get()
        np.testing.assert_array_equal(np.isnan(loss), self.Y == 4)

    @pytest.mark.parametrize("name", ["x", "y", "sample_weight", "class_weight"])
    def test_an_array_of_the_gpu_is_refused_on_the_cpu_and_named(self, device, name):
        given = {"x": self.Z, "y": self.Y, "sample_weight": np.ones(6), "class_weight": np.ones(5)}
        given[name] = device.asarray(given[name])
        x, y = given.pop("x"), given.pop("y")
        expected = rf"^{name} lies on cuda:0, all else on the CPU; expected a NumPy array: pass {name}.get\(\)"
        net = Network([5, 5], device="cpu")
        with pytest.raises(TypeError, match=expected):
            net.loss_and_grad(x, y, **given)
        with pytest.raises(TypeError, match=expected):
            Trainer(net, SGD(), class_weight=given.pop("class_weight")).fit(x, y, **given)
        if name == "y":
            with pytest.raises(TypeError, match=expected):
                F.softmax_cross_entropy(x, y)
            with pytest.raises(TypeError, match=r"^t lies on cuda:0"):
                F.all_but_one_softmax(x, y)

    def test_labels_and_weights_of_the_cpu_go_along_to_the_gpu(self, device):
        options = {"sample_weight": np.arange(6.0), "class_weight": np.arange(5.0)}
        found = F.softmax_cross_entropy(device.asarray(self.Z), self.Y, **options)
        np.testing.assert_allclose(found.get(), F.softmax_cross_entropy(self.Z, self.Y, **options), rtol=4e-6)

    def test_types_that_no_kernel_takes_are_refused(self, device):
        with pytest.raises(TypeError, match=r"z is of int64; expected float16, bfloat16, float32, float64"):
            F.softmax_cross_entropy(device.asarray(self.Y[:, None] * np.ones(3, int)), self.Y)
        with pytest.raises(TypeError, match="y is of float32; class indices must be integers"):
            F.softmax_cross_entropy(device.asarray(self.Z), device.asarray(self.Y.astype(np.float32)))

    def test_out_that_is_not_contiguous_is_refused(self, device):
        out = device.asarray(np.zeros((6, 10), np.float32))[:, ::2]
        with pytest.raises(ValueError, match="out is not C-contiguous"):
            F.softmax_cross_entropy_with_grad(device.asarray(self.Z), self.Y, out=out)

    def test_mixed_libraries_are_refused(self, device):
        a, w, b = np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32), np.zeros(2, np.float32)
        with pytest.raises(TypeError, match=r"w is a .* on another device than a"):
            F.linear_softmax_cross_entropy_with_grad(device.asarray(a), w, b, [0, 1])
        with pytest.raises(TypeError, match="out is on another device"):
            F.softmax_cross_entropy_with_grad(device.asarray(self.Z), self.Y, out=np.empty_like(self.Z))


class TestMemory:
    """No memory left: the error says how much was asked for and what needs less.

    The proxy raises CuPy's own for an array beyond the limit.
    Each limit is just below the array that is named, and well above all others.
    """

    X, Y = np.zeros((3000, 40), np.float32), np.zeros(3000, np.int64)

    @pytest.fixture
    def net(self, device):
        return Network([40, 100, 5], device=device)

    @staticmethod
    def refused(size, advice):
        said = f"^cuda:0 has no memory left: {size:,} bytes were asked for; .*{advice}"
        return pytest.raises(OutOfDeviceMemory, match=said)

    def test_a_networks_parameters(self, device):
        size = 4 * (40_000 + 5_008 + 1_008 + 16)  # each array up to a multiple of 16
        for what in ("parameters", "optimizer"):
            net = None if what == "parameters" else Network([40, 1000, 5], device=device)
            with (
                cupy_proxy.memory_limit(size - 1),
                self.refused(size, "a network with fewer than 46,005 parameters needs less"),
            ):
                net = net or Network([40, 1000, 5], device=device)
                Adam().bind(net)

    def test_what_goes_to_the_device_whole(self, device, net):
        with cupy_proxy.memory_limit(self.X.nbytes - 1):
            with self.refused(self.X.nbytes, r"x of shape \(3000, 40\) is held there whole: a shorter one needs less"):
                Trainer(net, SGD()).fit(self.X, self.Y)
            with self.refused(self.X.nbytes, "a shorter one needs less"):
                net.predict(self.X)

    def test_a_batchs_activations(self, device, net):
        with cupy_proxy.memory_limit(4 * 1500 * 100 - 1):
            with self.refused(4 * 1500 * 100, "a batch of fewer than 1,500 rows needs less"):
                net.loss_and_grad(self.X[:1500], self.Y[:1500])
            with self.refused(4 * 2000 * 100, "a batch_size below 2000 needs less"):
                Trainer(net, SGD(), batch_size=2000).fit(self.X, self.Y, epochs=1)
            # What was allocated for too many rows is in nobody's way.
            Trainer(net, SGD(), batch_size=1000).fit(self.X, self.Y, epochs=1)

    def test_predictions(self, device):
        net = Network([40, 50], device=device)
        with cupy_proxy.memory_limit(600_000 - 1), self.refused(600_000, "fewer rows at a time need less"):
            net.forward(self.X)

    def test_functional(self, device):
        z, w = device.asarray(self.X), device.asarray(np.zeros((40, 60), np.float32))
        with cupy_proxy.memory_limit(self.X.nbytes - 1):
            for function in (F.softmax, lambda z: F.softmax_cross_entropy_with_grad(z, self.Y)):
                with self.refused(self.X.nbytes, "fewer rows at a time need less"):
                    function(z)
        with cupy_proxy.memory_limit(600_000):
            with self.refused(720_000, "chunk_rows below 3000 needs less"):
                F.linear_softmax_cross_entropy_with_grad(z, w, None, self.Y)
            F.linear_softmax_cross_entropy_with_grad(z, w, None, self.Y, chunk_rows=2500)

    def test_the_command_says_it_in_one_line_with_the_devices_code(self, device, tmp_path, capsys):
        np.savez(tmp_path / "data.npz", x=self.X, y=np.arange(3000) % 3)
        with cupy_proxy.memory_limit(100_000):
            code = main(["train", "--data", f"{tmp_path}/data.npz", "--device", "cuda", "--out", f"{tmp_path}/run"])
        said = capsys.readouterr().err.splitlines()[-1]
        assert code == 4
        assert said.startswith("gpu-nn train: cuda:0 has no memory left: ")
        assert "needs less" in said

    def test_is_a_memory_error_and_a_device_error(self, device, net):
        for kind in (MemoryError, DeviceError):
            with cupy_proxy.memory_limit(1), pytest.raises(kind, match="3,200 bytes"):
                net.forward(self.X[:20])


class TestDevice:
    def test_auto_takes_the_gpu_and_says_so(self):
        assert str(Network([4, 2]).device) == "cuda:0 (auto: the first GPU that CuPy finds)"

    def test_a_gpu_that_is_not_there_is_refused(self):
        with pytest.raises(DeviceError, match="device='cuda:7', but the GPUs here are 'cuda:0' to 'cuda:0'"):
            Network([4, 2], device="cuda:7")

    def test_out_of_range_labels_are_found_when_data_enter_a_trainer(self, device):
        with pytest.raises(ValueError, match=r"y\[1\] = 2; expected 0 to 1"):
            Trainer(Network([4, 2], device=device), SGD()).fit(np.zeros((2, 4)), device.asarray(np.array([0, 2])))
