"""What a step adds up over the ranks: everything once, when it is ready, in one sum or by buckets of layers."""

import gc
import weakref
from importlib import import_module

import numpy as np
import pytest

from gpu_nn import SGD, Adam, BatchNorm, Dense, Dropout, LayerNorm, Network, Trainer
from gpu_nn.distributed.communicator import Communicator
from gpu_nn.training import Checkpoints, Trigger, gradient_sync
from tests.cuda_emulator import cupy_proxy
from tests.cuda_emulator.cupy_proxy.cuda import Graph, Stream
from tests.cuda_emulator.device import emulated_device
from tests.training.steps import recorded_steps
from tests.training.threads import on_each

RANDOM = np.random.default_rng(3)
X, Y = RANDOM.standard_normal((40, 6)), RANDOM.integers(0, 4, 40)
LAYERS = [Dense(16, "relu"), LayerNorm(), Dropout(0.2), Dense(8, "tanh"), Dense(4)]


class Twins(Communicator):
    """Rank 0 of two, of which the other gives zeros. What is begun must be left alone until the sums end.

    log: what was summed or begun, by the numbers in each array, and the ends.
    """

    def __init__(self, overlapping=True):
        super().__init__(0, 2)
        self.supports_overlap = overlapping
        self.begun, self.log = [], []

    def all_gather_object(self, value):
        return [value, value]

    def all_reduce(self, array):
        self.log.append(("sum", host(array).size))

    def all_reduce_async(self, *arrays):
        self.log.append(("begin", *(array.size for array in arrays)))
        self.begun += [(array, host(array).copy()) for array in arrays]

    def wait(self):
        self.log.append(("end",))
        for array, before in self.begun:
            np.testing.assert_array_equal(host(array), before)
        self.begun.clear()


def host(array):
    return array if isinstance(array, np.ndarray) else array.get()


@pytest.fixture(params=["cpu", "emulated"])
def device(request):
    if request.param == "cpu":
        yield "cpu"
        return
    with emulated_device(nvmath=True) as found:
        yield found


def trained(
    device, communicator, bucket_bytes, monkeypatch, dtype="float64", micro_batches=None, epochs=3, layers=LAYERS
):
    monkeypatch.setattr(gradient_sync, "_BUCKET_BYTES", bucket_bytes)
    net = Network(layers, n_inputs=6, device=device, dtype=dtype, seed=1)
    trainer = Trainer(net, Adam(1e-2), batch_size=12, communicator=communicator, micro_batches=micro_batches)
    trainer.fit(X, Y, epochs=epochs)
    return trainer


@pytest.mark.parametrize(
    ("bucket_bytes", "steps"),
    [
        # Weights of 6 · 16, 16 · 8 and 8 · 4 numbers; the others are 16 each, with gaps for 4 and 8, and 16 beside.
        (1 << 40, [("sum", 96 + 128 + 32 + 16 * 5 + 16)]),
        (1, [("begin", 32), ("begin", 128), ("begin", 96, 16 * 5 + 16), ("end",)]),
        (8 * 33, [("begin", 128 + 32), ("begin", 96, 16 * 5 + 16), ("end",)]),
    ],
    ids=["one sum", "a bucket a layer", "a small layer goes with the next"],
)
def test_all_gradients_are_summed_once_and_when_they_are_ready(device, monkeypatch, bucket_bytes, steps):
    communicator = Twins()
    trainer = trained(device, communicator, bucket_bytes, monkeypatch)
    # But for flags and, at the end, the parameters of rank 0.
    told = [entry for entry in communicator.log if entry[0] != "sum" or entry[1] > len(trainer.net.flat_parameters)]
    assert told == steps * trainer.optimizer.steps


def test_buckets_change_no_bit(device, monkeypatch):
    whole = trained(device, Twins(overlapping=False), 1, monkeypatch)
    buckets = trained(device, Twins(), 1, monkeypatch)
    np.testing.assert_array_equal(host(whole.net.flat_parameters), host(buckets.net.flat_parameters))
    assert [record.loss for record in whole.history] == [record.loss for record in buckets.history]


def test_several_micro_batches_of_a_rank_are_summed_as_one(device, monkeypatch):
    communicator = Twins()
    trained(device, communicator, 1, monkeypatch, micro_batches=4)
    assert not any(entry[0] == "begin" for entry in communicator.log)


def test_ranks_whose_sums_do_not_overlap_sum_once(device, monkeypatch):
    communicator = Twins(overlapping=False)
    trainer = trained(device, communicator, 1, monkeypatch)
    assert [entry for entry in communicator.log if entry[-1] == len(trainer.net.flat.reduce_buffer)] == [
        ("sum", len(trainer.net.flat.reduce_buffer))
    ] * trainer.optimizer.steps
    assert not any(entry[0] == "begin" for entry in communicator.log)


def test_a_rank_without_rows_in_a_short_last_batch_sums_what_the_others_do(device, monkeypatch):
    monkeypatch.setattr(gradient_sync, "_BUCKET_BYTES", 1)
    communicator = Twins()
    net = Network(LAYERS, n_inputs=6, device=device, dtype="float64", seed=1)
    trainer = Trainer(net, SGD(0.1), batch_size=13, communicator=communicator)
    trainer.fit(X[:40], Y[:40], epochs=3)  # 13, 13, 13 and 1, of which the other rank has the row
    begun = [entry for entry in communicator.log if entry[0] == "begin"]
    assert begun == [("begin", 32), ("begin", 128), ("begin", 96, 16 * 5 + 16)] * 12
    assert np.isfinite([record.loss for record in trainer.history]).all()


class TestRunningFigures:
    """Of BatchNorm. Each rank has those that all of them have met."""

    @staticmethod
    def made(communicator, batch_size, device="cpu", **options):
        net = Network([BatchNorm("relu"), Dense(4)], n_inputs=6, device=device, dtype="float64", seed=1)
        return Trainer(net, SGD(0.1), batch_size=batch_size, communicator=communicator, **options)

    def test_they_are_the_mean_of_the_ranks(self):
        def on(communicator):
            trainer = self.made(communicator, 40, shuffle=False)
            trainer.fit(X, Y, epochs=1)
            return trainer.net.state["0.running_mean"], trainer.net.state["0.running_var"]

        (mean, var), other = on_each(2, on)
        np.testing.assert_array_equal(other, (mean, var))
        np.testing.assert_allclose(mean, 0.1 * X.mean(axis=0), rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(var, 0.9 + 0.1 * (X[:20].var(0, ddof=1) + X[20:].var(0, ddof=1)) / 2, rtol=1e-13)

    @pytest.mark.parametrize("by_buckets", [False, True])
    def test_ranks_that_resume_have_them_too(self, tmp_path, monkeypatch, by_buckets):
        """Batches of 13 rows, and one of a single row, which is normalised by them."""
        monkeypatch.setattr(gradient_sync, "_BUCKET_BYTES", 1)

        def on(communicator, folder=None, resume=None):
            communicator.supports_overlap = by_buckets
            trainer = self.made(communicator, 13)
            if folder and communicator.rank == 0:
                trainer.callbacks = [Checkpoints(folder, Trigger(steps=3), keep=9)]
            trainer.fit(X, Y, epochs=3, validation=(X[:9], Y[:9]), resume=resume)
            return [array.copy() for array in trainer.net.inference_state.values()], [
                r.validation_loss for r in trainer.history
            ]

        whole = on_each(2, lambda communicator: on(communicator, tmp_path))
        sixth = sorted(tmp_path.glob("steps-*"))[1]
        for (arrays, losses), again in zip(
            whole, on_each(2, lambda communicator: on(communicator, resume=sixth)), strict=True
        ):
            for array, found in zip(arrays, again[0], strict=True):
                np.testing.assert_array_equal(found, array)
            assert again[1] == losses

    def test_of_ranks_that_begin_with_others_the_first_that_differs_is_named(self):
        def on(communicator):
            trainer = self.made(communicator, 8)
            trainer.net.state["0.running_var"][2] += communicator.rank
            trainer.fit(X, Y, epochs=1)

        with pytest.raises(ValueError, match=r"rank 1 has initial 0\.running_var = "):
            on_each(2, on)


class TestOnTheEmulatedDevice:
    @pytest.fixture
    def device(self):
        with emulated_device(nvmath=True) as found:
            yield found

    @pytest.mark.parametrize(("bucket_bytes", "graphs"), [(1 << 40, 2), (1, 4)])
    def test_a_step_is_graphs_with_the_sums_between_them(self, device, monkeypatch, bucket_bytes, graphs):
        before = Graph.launches
        trainer = trained(device, Twins(), bucket_bytes, monkeypatch, dtype="float32", epochs=4)
        # The first step of each of the two sizes is launched kernel by kernel.
        assert Graph.launches - before == graphs * (trainer.optimizer.steps - 2)

    def test_graphs_train_to_the_bits_of_eager_launching(self, device, monkeypatch):
        layers = [Dense(16, bias=False), BatchNorm("relu"), *LAYERS]
        graphs = trained(device, Twins(), 1, monkeypatch, dtype="float32", layers=layers)
        cuda_graph = import_module("gpu_nn.kernels.cuda_kernels.cuda_graph")
        monkeypatch.setattr(cuda_graph, "_graphs", lambda step, stream: [])
        eager = trained(device, Twins(), 1, monkeypatch, dtype="float32", layers=layers)
        for name, array in graphs.net.inference_state.items():
            np.testing.assert_array_equal(host(array), host(eager.net.inference_state[name]))

    @pytest.mark.parametrize("pieces", [0, 1, 2, 3])
    def test_a_step_that_cannot_be_captured_to_its_end_is_summed_whole(self, device, monkeypatch, pieces):
        begin, begun = Stream.begin_capture, []

        def begin_so_many(stream):
            begun.append(stream)
            if begun.count(stream) > pieces:
                raise RuntimeError(f"no more than {pieces} pieces of a step")
            begin(stream)

        monkeypatch.setattr(Stream, "begin_capture", begin_so_many)
        before, communicator = Graph.launches, Twins()
        trainer = trained(device, communicator, 1, monkeypatch)
        assert Graph.launches == before
        told = [entry for entry in communicator.log if entry[0] != "sum"]
        step = [("begin", 32), ("begin", 128), ("begin", 96, 16 * 5 + 16), ("end",)]
        assert told == step * trainer.optimizer.steps

    def test_what_was_captured_goes_with_the_fit(self, device, monkeypatch):
        with recorded_steps() as steps:
            trainer = trained(device, Twins(), 1, monkeypatch)
        step, data = (weakref.ref(found) for found in (steps[0], steps[0].loader.x))
        assert step() is not None
        steps.clear()
        gc.collect()
        assert (step(), data()) == (None, None)
        assert trainer.latest_loss() > 0

    @pytest.mark.parametrize("micro_batches", [1, 4, 6])
    def test_micro_batches_of_one_process_are_graphs_too(self, device, monkeypatch, micro_batches):
        before = Graph.launches
        trainer = trained(device, Communicator(), 1, monkeypatch, dtype="float32", micro_batches=micro_batches)
        assert Graph.launches - before == trainer.optimizer.steps - 2

    def test_a_step_neither_waits_nor_uploads(self, device, monkeypatch):
        communicator = Twins()
        communicator.all_reduce_async = communicator.all_reduce = lambda *arrays: None
        communicator.wait = lambda: None
        with recorded_steps() as steps:
            trainer = trained(device, communicator, 1, monkeypatch, dtype="float32")
        trainer._pending_losses.counters.fill(0)
        with cupy_proxy.synchronisations.record() as waits, cupy_proxy.uploads.record() as copies:
            for size in (12, 12, 12, 4):
                steps[0](size)
        assert waits == []
        assert copies == []
