"""Training on streams: each row once an epoch, the same bits twice, resumed or not, and nothing left behind."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from gpu_nn import SGD, Adam, DataError, Dense, Dropout, Network, Standardize, Trainer
from gpu_nn.data import stream
from gpu_nn.training import Callback, Checkpoints, Every
from tests.cuda_emulator.device import emulated_device
from tests.training.blobs import blobs

DATA, HELD_OUT = blobs(), blobs(seed=3)  # 230 rows
EPOCHS = 4


def streamed(data=DATA, **sizes):
    return stream(*data, **{"block_rows": 10, "window_rows": 70, **sizes})


def made(callbacks=(), layers=None, device="cpu", **options):
    layers = layers or [Standardize(), Dense(16, "relu"), Dropout(0.3), Dense(3)]
    net = Network(layers, n_inputs=5, device=device, seed=1)
    if "0.shift" in net.state:
        net.state["0.shift"][...] = 0.5
    return Trainer(net, Adam(0.05), **{"batch_size": 32, "callbacks": callbacks, **options})


def fitted(trainer, **options):
    options = {"x": streamed(), "epochs": EPOCHS, "validation": streamed(HELD_OUT), **options}
    trainer.fit(options.pop("x"), **options)
    return trainer


def bits(trainer):
    records = [[value for name, value in vars(one).items() if name != "seconds"] for one in trainer.history.epochs]
    return trainer.net.device.to_host(trainer.net.flat_parameters).tobytes(), records


def batches_of(monkeypatch, epochs=2, rows=230, **options):
    """Of each step of a training, the numbers of its rows."""
    net, seen = Network([1, 2], device="cpu"), []
    step = net.train_step

    def spy(x, *arguments, **named):
        seen.append(x[:, 0].astype(int))
        return step(x, *arguments, **named)

    monkeypatch.setattr(net, "train_step", spy)
    data = np.arange(rows, dtype=np.float32)[:, None], np.zeros(rows, int)
    sizes = {name: options.pop(name) for name in ("block_rows", "window_rows") if name in options}
    Trainer(net, SGD(0.0), **{"batch_size": 32, **options}).fit(streamed(data, **sizes), epochs=epochs)
    return seen


class Stop(Callback):
    every = Every(steps=1)

    def __init__(self, steps, error=None):
        self.steps, self.error = steps, error

    def __call__(self, trainer, record):
        if record.steps == self.steps:
            if self.error is not None:
                raise self.error
            trainer.interrupt()


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "gpu_nn read ahead"]


class TestOrder:
    @pytest.mark.parametrize("sizes", [(10, 70), (1, 32), (7, 1), (230, 230), (1000, 1000), (64, 200)])
    def test_each_epoch_visits_every_row_once_the_last_short_batch_included(self, monkeypatch, sizes):
        seen = batches_of(monkeypatch, block_rows=sizes[0], window_rows=sizes[1])
        assert [len(rows) for rows in seen] == [*[32] * 7, 6] * 2
        first, second = np.concatenate(seen[:8]), np.concatenate(seen[8:])
        for epoch in (first, second):
            np.testing.assert_array_equal(np.sort(epoch), np.arange(230))
            assert (epoch != np.arange(230)).any()
        assert (first != second).any()

    def test_a_batch_takes_rows_of_several_blocks(self, monkeypatch):
        seen = batches_of(monkeypatch, epochs=1, rows=6400, window_rows=1600, batch_size=32)
        assert min(len(np.unique(rows // 10)) for rows in seen) > 16
        # And a window those of blocks from all over the data.
        window = np.concatenate(seen[:50])
        assert window.max() - window.min() > 0.8 * 6400

    def test_without_shuffle_rows_keep_their_order(self, monkeypatch):
        seen = batches_of(monkeypatch, shuffle=False)
        np.testing.assert_array_equal(np.concatenate(seen), np.tile(np.arange(230), 2))

    def test_a_window_of_all_rows_costs_what_arrays_cost(self):
        one, other = (made(layers=[Dense(3)], shuffle=False) for _ in range(2))
        one.fit(*DATA, epochs=2, validation=HELD_OUT)
        fitted(other, epochs=2)
        np.testing.assert_array_equal(one.net.flat_parameters, other.net.flat_parameters)
        assert other.history.column("loss") == one.history.column("loss")
        for name in ("validation_loss", "validation_accuracy"):
            np.testing.assert_allclose(other.history.column(name), one.history.column(name), rtol=1e-6)


class TestBits:
    def test_the_same_seed_gives_the_same_bits_and_another_does_not(self):
        one, same, other = (bits(fitted(made(seed=seed)))[0] for seed in (0, 0, 1))
        assert one == same != other

    @pytest.mark.parametrize("steps", [1, 2, 3, 7, 8, 9, 21])
    def test_a_training_that_was_broken_off_ends_in_the_bits_of_one_that_was_not(self, tmp_path, steps):
        whole = fitted(made())
        broken = fitted(made([Checkpoints(tmp_path, Every(steps=10**6)), Stop(steps)]))
        assert broken.interrupted
        assert broken.optimizer.steps == steps
        assert bits(fitted(made(), resume=tmp_path)) == bits(whole)

    @pytest.mark.parametrize("other", [{"block_rows": 9}, {"window_rows": 64}])
    def test_other_sizes_are_other_data(self, tmp_path, other):
        fitted(made([Checkpoints(tmp_path), Stop(9)]))
        with pytest.raises(DataError, match=f"training.{next(iter(other))} is"):
            fitted(made(), x=streamed(**other), resume=tmp_path)

    @pytest.mark.parametrize("kind", ["npy", "parquet"])
    def test_files_give_the_bits_of_their_arrays(self, tmp_path, kind):
        x, y = DATA
        if kind == "npy":
            np.save(tmp_path / "x.npy", x)
            np.save(tmp_path / "y.npy", y)
            files = tmp_path / "x.npy", str(tmp_path / "y.npy")
        else:
            parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
            table = arrow.table({f"c{i}": x[:, i] for i in range(5)} | {"y": y})
            parquet.write_table(table, tmp_path / "t.parquet", row_group_size=10)
            files = tmp_path / "t.parquet", "y"
        assert bits(fitted(made(), x=streamed(files))) == bits(fitted(made()))

    def test_dense_targets_train_as_their_labels_do(self):
        dense = streamed((DATA[0], np.eye(3)[DATA[1]]))
        one, other = fitted(made()), fitted(made(), x=dense)
        np.testing.assert_allclose(one.net.flat_parameters, other.net.flat_parameters, rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize("nvmath", [False, True])
    def test_a_gpu_trains_on_the_rows_that_a_cpu_trains_on(self, nvmath):
        layers = [Standardize(), Dense(8, "relu"), Dense(3)]
        with emulated_device(nvmath) as device:
            emulated = fitted(made(layers=layers, device=device), epochs=2)
            found = device.to_host(emulated.net.flat_parameters)
        expected = fitted(made(layers=layers), epochs=2)
        np.testing.assert_allclose(found, expected.net.flat_parameters, rtol=2e-4, atol=2e-6)
        np.testing.assert_allclose(emulated.history.column("loss"), expected.history.column("loss"), rtol=1e-5)


class TestEnd:
    def test_a_value_in_a_later_window_is_refused_when_it_comes(self):
        x = DATA[0].copy()
        x[200, 3] = np.nan
        trainer = made(shuffle=False)
        with pytest.raises(DataError, match=r"x\[200, 3\] is nan"):
            fitted(trainer, x=streamed((x, DATA[1])))
        assert 0 < trainer.optimizer.steps <= 6

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no")])
    def test_an_error_in_the_training_ends_the_thread(self, error):
        with pytest.raises(type(error)):
            fitted(made([Stop(3, error)]))

    def test_the_trainer_trains_on_afterwards(self):
        trainer = fitted(made([Stop(3)]))
        assert trainer.interrupted
        assert np.isfinite(fitted(trainer).history.column("loss")).all()
        trainer.fit(*DATA, epochs=1)
        assert len(trainer.history) == EPOCHS + 1


# Trains on 200 MB in windows of 4 MB; prints the bytes by which memory grew beyond that of a training on one window.
MEASURED = """
import sys
from pathlib import Path
import numpy as np
from gpu_nn import Network, SGD, Trainer
from gpu_nn.data import stream

def memory():
    lines = Path("/proc/self/status").read_text().splitlines()
    return np.array([int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssFile"))])

def look(_):
    global most
    most = np.maximum(most, memory())

x, y = sys.argv[1:]
trainer = Trainer(Network([100, 2], device="cpu"), SGD(0.1), batch_size=500)
small = dict(block_rows=500, window_rows=10_000)
trainer.fit(stream(np.zeros((10_000, 100), np.float32), np.zeros(10_000, int), **small), epochs=1)
before = most = memory()
trainer.progress = look
trainer.fit(stream(x, y, **small), epochs=2)
print(*((most - before) * 1024).tolist())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc/self/status")
def test_memory_is_bounded_by_the_windows(tmp_path):
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (500_000, 100)).flush()
    np.save(tmp_path / "y.npy", np.zeros(500_000, int))
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    anonymous, mapped = map(int, subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())
    assert anonymous < 16e6
    assert mapped < 2e6


class TestRefusals:
    @pytest.mark.parametrize("beside", [{"y": DATA[1]}, {"sample_weight": np.ones(230)}])
    def test_what_a_stream_has_itself_is_not_given_beside_it(self, beside):
        with pytest.raises(ValueError, match="x is a Stream, which has its own y and no sample_weight"):
            fitted(made(), **beside)

    def test_other_numbers_of_inputs_and_targets(self):
        with pytest.raises(ValueError, match=r"x is a stream of shape \(230, 4\); expected \(n, 5\)"):
            fitted(made(), x=streamed((DATA[0][:, :4], DATA[1])))
        with pytest.raises(ValueError, match=r"rows of \(4,\); expected labels or 3 targets"):
            fitted(made(), x=streamed((DATA[0], np.eye(4)[DATA[1]])))
