"""Mixed precision and TF32 on the emulated device: what is computed in which type, and that training heeds it."""

from importlib import import_module

import ml_dtypes
import numpy as np
import pytest

import gpu_nn
from gpu_nn import (
    SGD,
    Adam,
    AdamW,
    BatchNorm,
    Dense,
    DeviceError,
    Dropout,
    InputNoise,
    LayerNorm,
    Network,
    Standardize,
    Trainer,
    optimizers,
)
from gpu_nn.kernels.cuda_kernels import cublaslt
from gpu_nn.training import Checkpoints, Trigger
from tests.cuda_emulator import cupy_proxy, nvmath_bindings
from tests.cuda_emulator.cupy_proxy.cuda import Graph
from tests.cuda_emulator.device import emulated_device
from tests.cuda_emulator.work import watched
from tests.training.steps import recorded_steps

HALVES = {"mixed_float16": np.dtype(np.float16), "mixed_bfloat16": np.dtype(ml_dtypes.bfloat16)}
EPSILON = {"mixed_float16": 2.0**-11, "mixed_bfloat16": 2.0**-8}  # of rounding to the nearest
BOTH = pytest.mark.parametrize("dtype", HALVES)
RANDOM = np.random.default_rng(7)
X, Y = RANDOM.standard_normal((70, 12)).astype(np.float32), RANDOM.integers(0, 5, 70)
LAYERS = [Standardize(), Dense(16, "relu"), Dropout(0.25), Dense(8, "gelu"), Dense(5)]
NORMALISED = [InputNoise(0.1), Dense(16, bias=False), BatchNorm("tanh"), Dense(8), LayerNorm("gelu"), Dense(5)]
EVERY_LAYER = pytest.mark.parametrize("layers", [LAYERS, [Standardize(), *NORMALISED]], ids=["plain", "normalised"])


@pytest.fixture(autouse=True)
def device():
    with emulated_device(nvmath=True) as found:
        yield found


def trainer(device, dtype, optimizer=None, layers=LAYERS, **options):
    net = Network(layers, n_inputs=12, device=device, dtype=dtype, seed=3)
    return Trainer(net, optimizer or AdamW(1e-2, max_norm=1.0), batch_size=16, seed=5, **options)


def bits(run):
    return [run.net.flat_parameters.get(), *(array.get() for array in run.optimizer.state.values())]


def assert_same_bits(one, other):
    for a, b in zip(bits(one), bits(other), strict=True):
        np.testing.assert_array_equal(a, b)


class TestNames:
    @pytest.mark.parametrize("dtype", [*HALVES, "tf32"])
    def test_the_cpu_refuses_half_types_and_tf32_and_says_what_to_do(self, dtype):
        with pytest.raises(DeviceError, match=f"dtype='{dtype}' on cpu, but the CPU computes in float32 and float64"):
            Network([4, 2], device="cpu", dtype=dtype)

    def test_without_nvmath_the_extra_is_named(self):
        with emulated_device() as plain, pytest.raises(DeviceError, match=r"pip install 'gpu_nn\[nvmath12\]'"):
            Network([4, 2], device=plain, dtype="mixed_bfloat16")

    def test_other_names_are_refused_with_the_known_ones(self, device):
        for dtype in ("float16", np.float16):
            with pytest.raises(ValueError, match=r"dtype='float16' is not one of .* Did you mean 'mixed_float16'"):
                Network([4, 2], device=device, dtype=dtype)
        for dtype, said in (
            ("tf23", "'tf23' .* Did you mean 'tf32'"),
            ("bf16", "'bf16' .* mean 'mixed_bfloat16'"),
            (None, "'None'"),
            (7, "7"),
        ):
            with pytest.raises(ValueError, match=f"dtype={said}"):
                Network([4, 2], device=device, dtype=dtype)

    def test_a_layer_that_works_in_float32_alone_is_named(self, device):
        with pytest.raises(ValueError, match=r"dtype='mixed_float16', but Standardize\(\) needs float32"):
            Network([Dense(3), Standardize(), Dense(2)], n_inputs=4, device=device, dtype="mixed_float16")


@BOTH
@EVERY_LAYER
def test_layers_work_in_the_half_type_and_all_that_stays_is_float32(device, layers, dtype):
    run = trainer(device, dtype, layers=layers)
    run.fit(X, Y, epochs=1)
    with watched() as works:
        run.fit(X, Y, epochs=1)
    net, half = run.net, HALVES[dtype]
    for array in (net.flat_parameters, net.flat_grads, *net.parameters.values(), net.forward(X), net.predict_proba(X)):
        assert array.dtype == np.float32
    assert {array.dtype.name for name, array in run.optimizer.state.items() if array.size > 1} == {"float32"}
    products = [work for work in works if work.name.startswith("gemm")]
    assert all(array.dtype == half for work in products for array in work.arguments[:2])
    # Sums over the batch, the weights' gradients, leave the product in float32; all else stays in the half type.
    assert {work.arguments[3].dtype.name for work in products} == {half.name, "float32"}
    losses = [work for work in works if work.name.startswith("softmax_cross_entropy")]
    assert {work.arguments[0].dtype for work in losses} == {half}
    assert {work.arguments[2].dtype for work in losses} == {np.dtype(np.float32)}
    # Of what normalises, the batch alone is of the half type.
    norms = [work for work in works if work.name.startswith(("batch_", "layer_norm"))]
    assert bool(norms) == (layers is not LAYERS)
    for work in norms:
        kinds = [array.dtype for array in work.arguments if not isinstance(array, np.generic)]
        of_batch = 1 if "moments" in work.name or "statistics" in work.name else 2
        assert (kinds.count(half), kinds.count(np.float32)) == (of_batch, len(kinds) - of_batch)
    assert all(array.dtype == np.float32 for name, array in net.state.items() if "running" in name)


@BOTH
@pytest.mark.parametrize(
    "layers",
    [[Dense(16, "softplus"), Dense(8, "tanh"), Dense(5)], NORMALISED[1:]],
    ids=["plain", "normalised"],
)
def test_gradients_differ_from_those_of_float64_by_the_rounding_of_the_half_type(device, layers, dtype):
    mixed = Network(layers, n_inputs=12, device=device, dtype=dtype, seed=3)
    exact = Network(layers, n_inputs=12, device="cpu", dtype="float64", seed=3)
    loss, exact_loss = mixed.loss_and_grad(X, Y), exact.loss_and_grad(X, Y)
    scale = 1 if mixed.loss_scale is None else float(mixed.loss_scale.get()[0])
    assert float(loss) == pytest.approx(float(exact_loss), rel=4 * EPSILON[dtype])
    for name, truth in exact.grads.items():
        error = np.abs(mixed.grads[name].get() / scale - truth).max() / np.abs(truth).max()
        assert error < 8 * EPSILON[dtype]
        assert error > EPSILON[dtype] / 100  # and it was the half type


@BOTH
def test_a_bias_gradient_below_a_relu_is_summed_in_float32_beside_the_product(device, dtype):
    """cublasLt would leave it in the half type."""
    net = Network([Dense(16, "relu"), Dense(5)], n_inputs=12, device=device, dtype=dtype, seed=3)
    net.loss_and_grad(X, Y)  # the first time asks the device what its masks mean
    with watched() as works:
        net.loss_and_grad(X, Y)
    names = [work.name.partition("<")[0] for work in works]
    assert names[names.index("gemm, drelu") :][:3] == ["gemm, drelu", "chunk_sums", "column_sum"]
    relu, above = net.plan.bound_layers(len(X), training=True)
    delta, a = above.input_grad.get().astype(np.float64), relu.a.get()
    assert (a == 0).any()
    assert not delta[a == 0].any()
    np.testing.assert_allclose(net.grads["0.bias"].get(), delta.sum(axis=0), rtol=1e-5, atol=1e-6 * np.abs(delta).max())


@BOTH
@EVERY_LAYER
def test_graphs_train_to_the_bits_of_eager_launching(device, layers, dtype, monkeypatch):
    run = trainer(device, dtype, layers=layers)
    before = Graph.launches
    run.fit(X, Y, epochs=4)
    assert Graph.launches - before == 3 + 3 * 5
    monkeypatch.setattr(import_module("gpu_nn.kernels.cuda_kernels.cuda_graph"), "_graphs", lambda step, stream: [])
    eager = trainer(device, dtype, layers=layers)
    before = Graph.launches
    eager.fit(X, Y, epochs=4)
    assert Graph.launches == before
    assert_same_bits(run, eager)


@BOTH
@pytest.mark.parametrize("layers", [[Dense(16, "relu"), Dense(5)], NORMALISED], ids=["plain", "normalised"])
def test_training_learns_as_in_float32(device, layers, dtype):
    curves = []
    for kind in (dtype, "float32"):
        run = trainer(device, kind, Adam(1e-2), layers)
        run.fit(X, Y, epochs=9)
        curves.append([record.loss for record in run.history])
    np.testing.assert_allclose(*curves, rtol=30 * EPSILON[dtype])
    assert curves[0][-1] < 0.8 * curves[0][0]


@BOTH
@EVERY_LAYER
def test_a_step_never_waits_for_the_device(device, layers, dtype):
    run = trainer(device, dtype, layers=layers)
    with recorded_steps() as steps:
        run.fit(X, Y, epochs=3)
    run._pending_losses.counters.fill(0)
    with cupy_proxy.synchronisations.record() as waits, cupy_proxy.uploads.record() as copies:
        for size in (16, 16, 16, 16, 6):
            steps[0](size)
    assert waits == []
    assert copies == []


@BOTH
@EVERY_LAYER
def test_a_training_resumed_in_mid_epoch_ends_in_the_same_bits(device, layers, dtype, tmp_path):
    """The scale moves on the way: it is too large at the start, and so some steps are left out."""

    def begun():
        run = trainer(device, dtype, layers=layers)
        if run.net.loss_scale is not None:
            run.net.loss_scale.fill(2.0**24)
        return run

    whole = begun()
    whole.fit(X, Y, epochs=4)
    broken = begun()
    broken.callbacks = [Checkpoints(tmp_path, Trigger(steps=8))]
    steps = iter(range(1, 99))
    broken.progress = lambda rows: broken.interrupt() if next(steps) == 8 else None
    broken.fit(X, Y, epochs=4)
    resumed = trainer(device, dtype, layers=layers)
    resumed.fit(X, Y, epochs=4, resume=tmp_path)
    assert_same_bits(whole, resumed)
    if whole.net.loss_scale is not None:
        assert float(whole.net.loss_scale.get()[0]) < 2.0**24
        assert int(whole.optimizer.state["step"].get()[0]) < whole.optimizer.steps == 20


def test_a_checkpoint_of_another_precision_is_refused(device, tmp_path):
    first = trainer(device, "mixed_bfloat16", callbacks=[Checkpoints(tmp_path, Trigger(epochs=1))])
    first.fit(X, Y, epochs=1)
    with pytest.raises(gpu_nn.DataError, match=r"network.dtype is 'mixed_bfloat16' there and 'float32' here"):
        trainer(device, "float32").fit(X, Y, epochs=2, resume=tmp_path)


@BOTH
@EVERY_LAYER
def test_files_hold_the_float32_parameters_and_load_anywhere(device, layers, dtype, tmp_path):
    run = trainer(device, dtype, layers=layers)
    run.fit(X, Y, epochs=2)
    gpu_nn.save(run.net, tmp_path / "model.safetensors")
    loaded = gpu_nn.load(tmp_path / "model.safetensors", device="cpu")
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded.flat_parameters, run.net.flat_parameters.get())
    np.testing.assert_allclose(run.net.predict_proba(X).get(), loaded.predict_proba(X), atol=8 * EPSILON[dtype])
    again = gpu_nn.load(tmp_path / "model.safetensors", device, dtype)
    np.testing.assert_array_equal(again.predict_proba(X).get(), run.net.predict_proba(X).get())
    with pytest.raises(gpu_nn.DataError, match="holds parameters of float32; dtype='float64' has them of float64"):
        gpu_nn.load(tmp_path / "model.safetensors", device, "float64")
    with pytest.raises(DeviceError, match=f"dtype='{dtype}' on cpu"):
        gpu_nn.load(tmp_path / "model.safetensors", "cpu", dtype)


class TestLossScaling:
    LAYERS = (Dense(8, "tanh"), Dense(5))

    def stepped(self, device, scale, optimizer, x=X):
        net = Network(self.LAYERS, n_inputs=12, device=device, dtype="mixed_float16", seed=3)
        net.loss_scale.fill(scale)
        loss = net.loss_and_grad(x, Y)
        before = net.flat_parameters.get()
        optimizer.step(net)
        return net, before, float(loss)

    def test_only_float16_has_one(self, device):
        scales = {dtype: Network([4, 2], device=device, dtype=dtype).loss_scale for dtype in ("float32", *HALVES)}
        assert {dtype for dtype, scale in scales.items() if scale is not None} == {"mixed_float16"}

    def test_the_scale_changes_neither_loss_nor_step_but_for_rounding(self, device):
        found = [self.stepped(device, scale, SGD(0.1, 0.9)) for scale in (1.0, 256.0)]
        assert found[0][2] == found[1][2]
        np.testing.assert_allclose(*(net.flat_parameters.get() for net, _, _ in found), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("optimizer", [lambda: Adam(0.1), lambda: SGD(0.1, 0.9, max_norm=1.0)])
    def test_a_step_whose_gradient_overflowed_is_left_out_and_the_scale_halved(self, device, optimizer):
        made = optimizer()
        net, before, loss = self.stepped(device, 2.0**24, made)
        assert np.isfinite(loss)
        assert not np.isfinite(net.flat_grads.get()).all()
        np.testing.assert_array_equal(net.flat_parameters.get(), before)
        assert float(net.loss_scale.get()[0]) == 2.0**23
        assert (made.steps, int(made.state["step"].get()[0])) == (1, 0)
        assert all((made.state[name].get() == 0).all() for name in made._state_names)

    def test_a_scale_that_is_too_large_comes_down_until_training_goes_on(self, device):
        run = trainer(device, "mixed_float16", Adam(1e-2), self.LAYERS)
        run.net.loss_scale.fill(2.0**24)
        run.fit(X, Y, epochs=8)
        assert np.isfinite([record.loss for record in run.history]).all()
        assert run.history[-1].loss < run.history[0].loss
        assert 1 < float(run.net.loss_scale.get()[0]) < 2.0**24
        assert np.isfinite(run.net.flat_parameters.get()).all()

    def test_the_scale_grows_after_so_many_good_steps(self, device, monkeypatch):
        monkeypatch.setattr(optimizers, "LOSS_SCALE_INTERVAL", 4)
        run = trainer(device, "mixed_float16", SGD(1e-3), self.LAYERS)
        run.net.loss_scale.fill(8.0)
        run.fit(X, Y, epochs=2)  # ten steps
        assert float(run.net.loss_scale.get()[0]) == 32
        assert int(run.optimizer.state["good_steps"].get()[0]) == 2

    def test_gradients_too_small_for_float16_survive_by_it(self, device):
        weight = np.full(len(X), 1e-6)
        norms = []
        for scale in (1.0, 2.0**16):
            net = Network(self.LAYERS, n_inputs=12, device=device, dtype="mixed_float16", seed=3)
            net.loss_scale.fill(scale)
            net.loss_and_grad(X, Y, sample_weight=weight, reduction="sum")
            norms.append(net.grads["0.weight"].get() / scale)
        exact = Network(self.LAYERS, n_inputs=12, device="cpu", dtype="float64", seed=3)
        exact.loss_and_grad(X, Y, sample_weight=weight, reduction="sum")
        errors = [
            np.abs(found - exact.grads["0.weight"]).max() / np.abs(exact.grads["0.weight"]).max() for found in norms
        ]
        assert errors[1] < 0.01 < errors[0]

    def test_a_loss_that_is_not_finite_still_ends_the_training(self, device):
        run = trainer(device, "mixed_float16", SGD(1e-3), self.LAYERS)
        run.net.flat_parameters.fill(np.nan)
        with pytest.raises(gpu_nn.TrainingDiverged):
            run.fit(X, Y, epochs=1)


class TestTF32:
    def test_products_round_their_factors_and_nothing_else_changes(self, device):
        nets = [Network([12, 16, 5], device=device, seed=3, dtype=dtype) for dtype in ("tf32", "float32")]
        exact = Network([12, 16, 5], device="cpu", dtype="float64", seed=3).forward(X)
        errors = [np.abs(net.forward(X).get() - exact).max() / np.abs(exact).max() for net in nets]
        assert 2.0**-16 < errors[0] < 2.0**-9
        assert errors[1] < 2.0**-20
        assert nets[0].flat_parameters.dtype == np.float32

    def test_the_backward_pass_takes_it_too(self, device, monkeypatch):
        used = []
        create = nvmath_bindings.matmul_desc_create

        def spy(compute_type, scale_type):
            used.append(compute_type)
            return create(compute_type, scale_type)

        net = Network([12, 16, 5], device=device, seed=3, dtype="tf32")
        net.loss_and_grad(X, Y)  # cublasLt is asked what it can do, once a process
        monkeypatch.setattr(nvmath_bindings, "matmul_desc_create", spy)
        cublaslt._plan.cache_clear()
        net.loss_and_grad(X, Y)
        # Two forward, two of weights, one of inputs.
        assert used == [nvmath_bindings.ComputeType.COMPUTE_32F_FAST_TF32] * 5
