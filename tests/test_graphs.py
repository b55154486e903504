"""Training steps as CUDA graphs, on the emulated device: the bits of eager launching, and nothing from the host."""

import logging
from importlib import import_module

import numpy as np
import pytest

from gpu_nn import SGD, Adam, AdamW, BatchNorm, Dense, Dropout, InputNoise, LayerNorm, Network, Standardize, Trainer
from gpu_nn.kernels.cuda_kernels import cublaslt
from gpu_nn.schedules import Cosine, WarmUp
from gpu_nn.training import Checkpoints, Trigger
from tests.cuda_emulator import cupy_proxy, nvmath_bindings
from tests.cuda_emulator.cupy_proxy.cuda import Graph
from tests.cuda_emulator.device import emulated_device
from tests.cuda_emulator.work import watched
from tests.training.steps import recorded_steps

# Their functions bear the same names in the package.
cuda_graph, dense = (import_module(f"gpu_nn.kernels.cuda_kernels.{name}") for name in ("cuda_graph", "dense"))

RANDOM = np.random.default_rng(7)
X, Y = RANDOM.standard_normal((70, 12)).astype(np.float32), RANDOM.integers(0, 5, 70)
LAYERS = [Standardize(), Dense(16, "relu"), Dropout(0.25), Dense(8, "gelu"), Dense(5)]


def forget_cublaslt():
    """What was found out about it is asked again."""
    for kept in (cublaslt._plan, dense._keeps_nan, dense._masks_positive):
        kept.cache_clear()


def fitted_step(run, epochs, x=X, y=Y):
    """Fits, and returns the step of the fit, at the start of a window."""
    with recorded_steps() as steps:
        run.fit(x, y, epochs=epochs)
    run._pending_losses.counters.fill(0)
    return steps[0]


@pytest.fixture(autouse=True)
def device():
    with emulated_device(nvmath=True) as found:
        forget_cublaslt()
        yield found
        forget_cublaslt()


@pytest.fixture
def eager(monkeypatch):
    """A switch: steps are launched kernel by kernel from then on."""
    return lambda: monkeypatch.setattr(cuda_graph, "_graphs", lambda step, stream: [])


def trainer(device, optimizer=None, layers=LAYERS, batch_size=16, **options):
    net = Network(layers, n_inputs=12, device=device, seed=3)
    return Trainer(net, optimizer or Adam(1e-2), batch_size=batch_size, seed=5, **options)


def bits(of):
    return [of.net.flat_parameters.get(), *(array.get() for array in of.optimizer.state.values())], [
        record.loss for record in of.history
    ]


def assert_same_bits(one, other):
    for a, b in zip(bits(one)[0], bits(other)[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert bits(one)[1] == bits(other)[1]


OPTIMIZERS = {
    "adam": lambda: Adam(1e-2),
    "a schedule and clipping": lambda: AdamW(WarmUp(3, Cosine(1e-2, 12)), max_norm=0.1),
    "momentum and coupled decay": lambda: SGD(0.1, 0.9, nesterov=True, weight_decay=0.01),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("targets", ["labels", "dense and weighted"])
def test_graphs_train_to_the_bits_of_eager_launching(device, eager, optimizer, targets):
    y, options = (Y, {}) if targets == "labels" else (np.eye(5)[Y] * 0.9, {"sample_weight": np.arange(1, 71) / 70})
    runs = []
    for way in ("graph", "eager"):
        if way == "eager":
            eager()
        before = Graph.launches
        run = trainer(device, OPTIMIZERS[optimizer]())
        run.fit(X, y, epochs=4, **options)
        runs.append(run)
        # Of each of the two shapes the first step is eager, and the second is captured and launched.
        assert Graph.launches - before == (3 + 3 * 5 if way == "graph" else 0)
    assert_same_bits(*runs)
    assert runs[0].history[-1].loss < runs[0].history[0].loss


def test_normalisation_and_noise_are_part_of_a_graph(device, eager):
    layers = [InputNoise(0.1), Dense(16, bias=False), BatchNorm("relu"), Dense(8), LayerNorm("tanh"), Dense(5)]
    runs = []
    for way in ("graph", "eager"):
        if way == "eager":
            eager()
        before = Graph.launches
        run = trainer(device, layers=layers)
        run.fit(X, Y, epochs=3)
        assert (Graph.launches > before) == (way == "graph")
        runs.append(run)
    assert_same_bits(*runs)
    for name, array in runs[0].net.state.items():
        np.testing.assert_array_equal(array.get(), runs[1].net.state[name].get())


def test_a_training_resumed_in_mid_epoch_ends_in_the_same_bits(device, tmp_path):
    whole = trainer(device)
    whole.fit(X, Y, epochs=4)
    broken = trainer(device)
    broken.callbacks = [Checkpoints(tmp_path, Trigger(steps=8))]
    steps = iter(range(1, 99))
    broken.on_batch_end = lambda rows: broken.interrupt() if next(steps) == 8 else None
    broken.fit(X, Y, epochs=4)
    assert broken.optimizer.steps == 8
    resumed = trainer(device)
    before = Graph.launches
    resumed.fit(X, Y, epochs=4, resume=tmp_path)
    assert resumed.optimizer.steps == 20
    assert Graph.launches - before == 12 - 2
    assert_same_bits(whole, resumed)


def test_an_epoch_of_graphs_makes_no_host_copy_and_no_synchronisation(device):
    run = trainer(device, AdamW(Cosine(1e-2, 40), max_norm=1.0))
    step = fitted_step(run, 3)
    with cupy_proxy.synchronisations.record() as waits, cupy_proxy.uploads.record() as copies, watched() as works:
        for size in (16, 16, 16, 16, 6):
            step(size)
    assert waits == []
    assert copies == []
    assert len(works) > 5 * 10


def test_a_long_epoch_waits_for_the_device_and_uploads_to_it_as_often_as_a_short_one(device):
    found = []
    for n in (20, 300):
        run = trainer(device, SGD(1e-3), [Dense(5)], batch_size=1)
        x, y = np.tile(X, (5, 1))[:n], np.tile(Y, 5)[:n]
        step = fitted_step(run, 1, x, y)
        with cupy_proxy.synchronisations.record() as waits, cupy_proxy.uploads.record() as copies:
            run._train_epoch(step)
        assert run.optimizer.steps == 2 * n
        found.append((len(waits), len(copies)))
    assert found[0] == found[1]


def test_a_step_is_this_list_of_launches(device):
    run = trainer(device, Adam(1e-2), [Dense(16, "relu"), Dense(5)])
    step = fitted_step(run, 3)
    with watched() as works:
        step(16)
    assert [work.name.partition("<")[0] for work in works] == [
        "gather",
        "gather",
        "gemm, relu_aux_bias",
        "gemm, bias",
        "softmax_cross_entropy_thread_per_row",
        "gemm, bgrada",
        "gemm, drelu_bgrad",
        "gemm",
        "record_loss",
        "increment",
        "adam",
    ]


def test_a_step_allocates_nothing_while_it_is_captured(device, caplog):
    """The proxy refuses new arrays in a capture; then there would be no graph, and the log would say why."""
    with caplog.at_level(logging.WARNING, "gpu_nn"):
        trainer(device).fit(X, Y, epochs=2)
    assert caplog.text == ""


def test_a_network_bound_anew_is_captured_anew(device, eager):
    runs = []
    for way in ("graph", "eager"):
        if way == "eager":
            eager()
        run = trainer(device)
        run.fit(X, Y, epochs=1)
        steps = iter(range(1, 99))

        def disturb(rows, net=run.net, steps=steps):
            step = next(steps)
            if step == 3:
                net.loss_and_grad(X, Y)  # more rows than a batch has: the batch's memory is made anew
            if step == 7:
                net.state["2.seed"][...] = net.device.asarray(np.array([11], np.uint64))
                net.plan.invalidate()

        run.progress = disturb
        run.fit(X, Y, epochs=3)
        runs.append(run)
    assert_same_bits(*runs)


def test_memory_that_a_graph_uses_is_missed_when_it_was_freed(device):
    run = trainer(device)
    step = fitted_step(run, 2)
    plan = run.net.plan
    plan._workspaces.clear(), plan._bound.clear(), plan._passes.clear()
    with pytest.raises(RuntimeError, match="was freed, and a graph still uses it"):
        step(16)


def test_another_current_stream_gets_a_graph_of_its_own(device):
    run = trainer(device)
    step = fitted_step(run, 2)
    before = Graph.launches
    with cupy_proxy.cuda.Stream(non_blocking=True):
        step(16)
        assert Graph.launches == before
        step(16)
    assert Graph.launches == before + 1


class TestWithoutNvmath:
    def test_steps_are_launched_one_by_one_and_the_log_says_so_once(self, caplog, monkeypatch):
        monkeypatch.setattr(cuda_graph, "_logged", set())
        before = Graph.launches
        with emulated_device() as device, caplog.at_level(logging.WARNING, "gpu_nn"):
            for _ in range(2):
                trainer(device).fit(X, Y, epochs=2)
        assert Graph.launches == before
        (record,) = caplog.records
        assert "nvmath-python is not installed" in record.getMessage()
        assert "pip install 'gpu_nn[nvmath12]'" in record.getMessage()

    def test_a_step_that_cannot_be_captured_is_launched_one_by_one(self, device, caplog, monkeypatch):
        monkeypatch.setattr(cuda_graph, "_logged", set())
        run = trainer(device, layers=[Dense(5)])
        step = run.net.train_step

        def waiting(*arguments, **options):
            run.net.flat_grads.get()
            return step(*arguments, **options)

        run.net.train_step = waiting
        with caplog.at_level(logging.WARNING, "gpu_nn"):
            run.fit(X, Y, epochs=2)
        assert "cudaErrorStreamCapture" in caplog.text
        other = trainer(device, layers=[Dense(5)])
        other.fit(X, Y, epochs=2)
        assert_same_bits(run, other)

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_the_loss_curve_is_that_of_plain_products_and_of_the_cpu(self, device, optimizer):
        curves = []
        with emulated_device() as plain:
            for where in (device, plain, "cpu"):
                if where is device:
                    with nvmath_bindings.installed():
                        run = trainer(where, OPTIMIZERS[optimizer]())
                        run.fit(X, Y, epochs=4)
                else:
                    run = trainer(where, OPTIMIZERS[optimizer]())
                    run.fit(X, Y, epochs=4)
                curves.append([record.loss for record in run.history])
        np.testing.assert_allclose(curves[0], curves[1], rtol=1e-5)
        np.testing.assert_allclose(curves[0], curves[2], rtol=1e-5)


REFUSED = [{name} for name in ("RELU_BIAS", "BIAS", "BGRADA", "RELU_AUX_BIAS", "DRELU", "DRELU_BGRAD")]


@pytest.mark.parametrize("refused", [*REFUSED, set().union(*REFUSED)], ids=lambda names: "-".join(sorted(names)))
def test_where_cublaslt_has_no_way_for_an_epilogue_our_kernels_do_it(device, monkeypatch, refused):
    layers = [Dense(16, "relu"), Dense(8, "relu"), Dense(5)]
    whole = trainer(device, layers=layers)
    whole.fit(X, Y, epochs=2)
    monkeypatch.setattr(nvmath_bindings, "refused", {nvmath_bindings.Epilogue[name] for name in refused})
    forget_cublaslt()
    less = trainer(device, layers=layers)
    before = Graph.launches
    with watched() as works:
        less.fit(X, Y, epochs=2)
    assert Graph.launches > before
    assert not {f"gemm, {name.lower()}" for name in refused} & {work.name for work in works}
    np.testing.assert_allclose(*([record.loss for record in run.history] for run in (whole, less)), rtol=1e-5)


def grads_where_relu_meets_0(device):
    """Rows of zeros come to 0 exactly in each hidden unit, whose biases are 0."""
    x, y = np.concatenate([X[:20], np.zeros((20, 12), np.float32)]), Y[:40]
    net = Network([12, 16, 7, 5], device=device, seed=3)
    net.loss_and_grad(x, y)
    return {name: net.device.to_host(grad) for name, grad in net.grads.items()}


@pytest.mark.parametrize("of_zero", [False, True])
def test_the_derivative_of_relu_at_0_is_0_whatever_cublaslts_mask_says(device, monkeypatch, of_zero):
    monkeypatch.setattr(nvmath_bindings, "mask_of_zero", of_zero)
    with watched() as works:
        found = grads_where_relu_meets_0(device)
    # A mask with a bit for 0 is found out, and not used.
    assert ("gemm, drelu_bgrad" in {work.name for work in works}) == (not of_zero)
    exact = grads_where_relu_meets_0("cpu")
    for name, truth in exact.items():
        np.testing.assert_allclose(found[name], truth, rtol=1e-5, atol=1e-6)


def test_only_a_dense_layer_with_relu_right_below_is_taken_over(device):
    for layers, fused in (
        ([Dense(8, "relu")], True),
        ([Dense(8, "relu"), Dense(6, "tanh")], True),
        ([Dense(8, "relu"), Dropout(0.2)], False),
        ([Dense(8, "relu"), BatchNorm()], False),
        ([Dense(8, "leaky_relu")], False),
    ):
        net = Network([*layers, Dense(5)], n_inputs=12, device=device)
        with watched() as works:
            net.loss_and_grad(X, Y)
        assert any("drelu" in work.name for work in works) == fused


def test_a_relu_that_hides_nan_is_not_used(device, monkeypatch):
    monkeypatch.setattr(nvmath_bindings, "relu_of_nan", 0.0)
    net = Network([12, 16, 5], device=device)
    net.parameters["0.weight"][3, 7] = np.nan
    assert np.isnan(net.forward(X).get()).all()
