"""Training on streams: each row once an epoch, the same bits twice, resumed or not, and nothing left behind."""

import subprocess
import sys
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpu_nn import SGD, Adam, DataError, Dense, Dropout, Network, Standardize, Trainer
from gpu_nn.data import stream
from gpu_nn.data.parquet import ParquetTable
from gpu_nn.distributed.communicator import SINGLE_PROCESS, Communicator
from gpu_nn.training import Callback, Checkpoints, Trigger, checkpoint, stream_loader
from gpu_nn.training.checkpoint import Checkpoint
from gpu_nn.training.sampler import SHUFFLE_SHARDS, own_places
from gpu_nn.training.stream_loader import StreamLoader
from tests.cuda_emulator.device import emulated_device
from tests.training.blobs import blobs
from tests.training.steps import recorded_steps
from tests.training.threads import on_each

DATA, HELD_OUT = blobs(), blobs(seed=3)  # 230 rows
EPOCHS = 4


def streamed(data=DATA, **sizes):
    return stream(*data, **{"block_rows": 10, "window_rows": 70, **sizes})


def made(callbacks=(), layers=None, device="cpu", dtype="float32", **options):
    layers = layers or [Standardize(), Dense(16, "relu"), Dropout(0.3), Dense(3)]
    net = Network(layers, n_inputs=5, device=device, dtype=dtype, seed=1)
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
    every = Trigger(steps=1)

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
    assert not [thread for thread in threading.enumerate() if thread.name == "gpu_nn prefetcher"]


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
        broken = fitted(made([Checkpoints(tmp_path, Trigger(steps=10**6)), Stop(steps)]))
        assert broken.interrupted
        assert broken.optimizer.steps == steps
        assert bits(fitted(made(), resume=tmp_path)) == bits(whole)

    def test_a_training_that_goes_on_reads_no_window_of_before(self):
        some = streamed(block_rows=1)
        some = replace(some, reader=OnRanks(some.reader))
        broken = made([Stop(5)])
        broken.fit(some, epochs=1)
        some.reader.read.clear()
        made().fit(some, epochs=1, resume=Checkpoint(Path("of a test"), *broken.state_dict()))
        # Of windows of two batches the first two are over.
        assert len(some.reader.read) == 230 - 2 * 64

    @pytest.mark.parametrize("other", [{"block_rows": 9}, {"window_rows": 64}])
    def test_other_sizes_are_other_data(self, tmp_path, other):
        fitted(made([Checkpoints(tmp_path), Stop(9)]))
        with pytest.raises(DataError, match=f"training.{next(iter(other))} is"):
            fitted(made(), x=streamed(**other), resume=tmp_path)

    def test_a_stream_that_was_shuffled_by_an_older_version_is_refused_and_one_that_was_not_goes_on(self, tmp_path):
        for shuffle in (True, False):
            whole = fitted(made(shuffle=shuffle))
            broken = fitted(made([Stop(3)], shuffle=shuffle))
            training, arrays = broken.state_dict()
            assert training.pop("lanes") == (64 if shuffle else None)
            checkpoint.write(tmp_path / "old.safetensors", training, arrays)
            if shuffle:
                with pytest.raises(DataError, match=r"old.* of a stream whose rows another version of gpu_nn shuffled"):
                    fitted(made(), resume=tmp_path / "old.safetensors")
            else:
                assert bits(fitted(made(shuffle=False), resume=tmp_path / "old.safetensors")) == bits(whole)

    @pytest.mark.parametrize("kind", ["npy", "parquet"])
    def test_files_give_the_bits_of_their_arrays(self, tmp_path, kind):
        files = files_of(tmp_path, kind, group=10)
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


class Unheard(Communicator):
    """A rank of which the others never fail."""

    raise_on_all_ranks = nullcontext


OPENING = threading.Lock()


class OnRanks:
    """A source of rows that knows which of them are read ahead."""

    def __init__(self, source):
        self._source, self.read = source, []

    def __getattr__(self, name):
        return getattr(self._source, name)

    def reopen(self):
        # NumPy reads a header by `ast`, which does not bear two threads in Python 3.11.
        with OPENING:
            again = OnRanks(self._source.reopen())
        again.read = self.read
        return again

    def load(self, start, stop):
        if threading.current_thread().name == "gpu_nn prefetcher":
            self.read.extend(range(start, stop))
        return self._source.load(start, stop)


def files_of(folder, kind, group=20):
    x, y = DATA
    if kind == "npy":
        np.save(folder / "x.npy", x)
        np.save(folder / "y.npy", y)
        return folder / "x.npy", str(folder / "y.npy")
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    table = arrow.table({f"c{i}": x[:, i] for i in range(5)} | {"y": y})
    parquet.write_table(table, folder / "t.parquet", row_group_size=group)
    return folder / "t.parquet", "y"


class TestRanks:
    # Batches of which the last has fewer rows than there are ranks, of an odd number, of fewer and of more than 64.
    SIZES = pytest.mark.parametrize(("batch_size", "window"), [(57, 120), (27, 120), (8, 120), (113, 120), (11, 1)])
    CLOSE = pytest.mark.parametrize(("shuffle", "close"), [(True, 0), (False, 0), (False, 1 << 16)])

    def fitted_on(self, size, fit=None, parts=4, **options):
        """The trainer of each rank."""
        layers = [Standardize(), Dense(8, "tanh"), Dense(3)]

        def on(communicator):
            trainer = made(layers=layers, micro_batches=parts, communicator=communicator, dtype="float64", **options)
            return fitted(trainer, **{"epochs": 2, "x": streamed(window_rows=120), **(fit or {})})

        return on_each(size, on)

    @SIZES
    @CLOSE
    def test_any_number_of_ranks_learns_the_bits_that_one_process_learns(
        self, monkeypatch, shuffle, close, batch_size, window
    ):
        monkeypatch.setattr(stream_loader, "_MAX_GAP_BYTES", close)
        found = []
        for size in (1, 2, 4):
            trainers = self.fitted_on(size, {"x": streamed(window_rows=window)}, shuffle=shuffle, batch_size=batch_size)
            parameters = {trainer.net.flat_parameters.tobytes() for trainer in trainers}
            assert len(parameters) == 1
            found.append((parameters, trainers[0].history.column("loss")))
        assert found[1][0] == found[0][0] == found[2][0]
        for _, losses in found[1:]:
            np.testing.assert_allclose(losses, found[0][1], rtol=1e-13)

    @pytest.mark.parametrize("shuffle", [True, False])
    def test_of_a_last_window_a_rank_may_have_more_rows_than_of_the_others(self, shuffle):
        """StreamLoader of one batch: of 11 rows the fourth rank of eight has one, and of the last 10 it has two."""
        options = {"fit": {"x": streamed(window_rows=11)}, "parts": 8, "batch_size": 11, "shuffle": shuffle}
        (alone,), eight = (self.fitted_on(size, **options) for size in (1, 8))
        assert eight[3].net.flat_parameters.tobytes() == alone.net.flat_parameters.tobytes()

    @pytest.mark.parametrize("on_gpu", [False, True])
    @pytest.mark.parametrize("fixed", [True, False])
    @pytest.mark.parametrize("shuffle", [True, False])
    @SIZES
    def test_what_is_brought_to_the_device_is_the_ranks_part_of_what_one_process_brings(
        self, on_gpu, fixed, shuffle, batch_size, window
    ):
        def brought(communicator, device):
            """By place, x and y; zeros where the place is another rank's."""
            net = made(layers=None if fixed else [Dense(3)], device=device).net
            some = StreamLoader(streamed(window_rows=window), net, batch_size, communicator)
            x, y, order = np.zeros((230, 5), np.float32), np.zeros(230, int), net.device.empty((some.rows,), np.int64)
            random = np.random.default_rng(2) if shuffle else None
            for start, end in some.epoch(random, 0, order):
                own = own_places(end - start, batch_size, communicator)
                rows = net.device.to_host(order)[: end - start][own]
                x[start:end][own] = net.device.to_host(some.x)[rows]
                y[start:end][own] = net.device.to_host(some.y)[rows]
            return x, y

        with emulated_device() if on_gpu else nullcontext("cpu") as device:
            parts = [brought(Unheard(rank, 3), device) for rank in range(3)]
        for found, expected in zip(map(sum, zip(*parts, strict=True)), brought(SINGLE_PROCESS, "cpu"), strict=True):
            np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("kind", ["npy", "parquet"])
    @pytest.mark.parametrize("size", [2, 4, 3])
    @CLOSE
    @SIZES
    def test_each_reads_its_own_rows_and_keeps_no_others(
        self, monkeypatch, tmp_path, kind, shuffle, close, size, batch_size, window
    ):
        monkeypatch.setattr(stream_loader, "_MAX_GAP_BYTES", close)
        files, read = files_of(tmp_path, kind), {}

        def on(communicator):
            some = streamed(files, window_rows=window)
            some = replace(some, reader=OnRanks(some.reader))
            trainer = made(batch_size=batch_size, shuffle=shuffle, micro_batches=size, communicator=communicator)
            trainer.fit(some, epochs=1)
            read[communicator.rank] = some.reader.read

        with recorded_steps() as steps:
            on_each(size, on)
        kept = {step.sync._communicator.rank: len(step.loader.x) for step in steps}
        every = np.concatenate(list(read.values()))
        assert set(every) == set(range(230))
        rows = max(window // batch_size, 1) * batch_size
        shared = 0
        if not shuffle and close:
            # Of a window all is read, by all of them, but for its ends.
            assert (230 if rows == batch_size else size * (230 - 3 * batch_size)) <= len(every) <= 230 * size
        elif shuffle and size == 3:
            # Two lanes are read by two ranks each; a batch has few columns of one.
            shared = 2 * -(-batch_size // SHUFFLE_SHARDS) * -(-230 // batch_size)
            assert len(every) <= 230 + shared
        else:
            assert len(every) == 230
        for rank in range(size):
            assert len(set(read[rank])) == len(read[rank])
            assert kept[rank] <= rows / size + rows // batch_size + shared

    @pytest.mark.parametrize("sizes", [(1, 4), (4, 2), (2, 1)])
    @pytest.mark.parametrize("steps", [1, 5, 7, 9])
    @pytest.mark.parametrize("shuffle", [True, False])
    def test_a_training_goes_on_in_mid_epoch_on_another_number_of_ranks(self, tmp_path, sizes, steps, shuffle):
        options = {"batch_size": 27, "shuffle": shuffle}
        (whole,) = self.fitted_on(1, **options)
        callbacks = [Checkpoints(tmp_path, Trigger(steps=10**6)), Stop(steps)]
        broken = self.fitted_on(sizes[0], callbacks=callbacks, **options)
        # Ranks learn with the sum of the next step that one is interrupted.
        assert steps <= broken[0].optimizer.steps <= steps + (sizes[0] > 1)
        for trainer in self.fitted_on(sizes[1], fit={"resume": tmp_path}, **options):
            assert trainer.net.flat_parameters.tobytes() == whole.net.flat_parameters.tobytes()

    @pytest.mark.parametrize("size", [2, 3])
    def test_a_row_that_one_rank_refuses_is_refused_by_all(self, size):
        x = DATA[0].copy()
        x[225, 3] = np.nan

        def on(communicator):
            trainer = made(batch_size=32, micro_batches=size, communicator=communicator)
            with pytest.raises(DataError) as error:
                trainer.fit(streamed((x, DATA[1])), epochs=1)
            return str(error.value)

        told = on_each(size, on)
        (own,) = [text for text in told if text.startswith("x: x[225, 3] is nan")]
        rank = told.index(own)
        assert [text for text in told if text != own] == [f"rank {rank}: {own}"] * (size - 1)

    def test_ranks_share_the_decoding_of_row_groups_that_are_smaller_than_their_shares(self, tmp_path, monkeypatch):
        decoded = []
        read_group = ParquetTable.read_group

        def spy(table, i, out):
            if threading.current_thread().name == "gpu_nn prefetcher":
                decoded.append(i)
            return read_group(table, i, out)

        monkeypatch.setattr(ParquetTable, "read_group", spy)
        counts = []
        for group in (5, 230):
            files = files_of(tmp_path, "parquet", group)
            decoded.clear()
            fit = {"x": streamed(files, window_rows=230), "epochs": 1, "validation": None}
            self.fitted_on(2, batch_size=46, fit=fit)
            counts.append(len(decoded))
        # One group is read by both ranks, at most; and one for all is decoded whole by each.
        assert counts[0] in (46, 47)
        assert counts[1] == 2


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
trainer.on_batch_end = look
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
        with pytest.raises(ValueError, match="x is a StreamDataset, which has its own y and no sample_weight"):
            fitted(made(), **beside)

    def test_other_numbers_of_inputs_and_targets(self):
        with pytest.raises(ValueError, match=r"x is a stream of shape \(230, 4\); expected \(n, 5\)"):
            fitted(made(), x=streamed((DATA[0][:, :4], DATA[1])))
        with pytest.raises(ValueError, match=r"rows of \(4,\); expected labels or 3 targets"):
            fitted(made(), x=streamed((DATA[0], np.eye(4)[DATA[1]])))

    def test_streams_without_rows(self):
        with pytest.raises(ValueError, match="x is a stream without rows; expected at least 1"):
            fitted(made(), x=streamed().row_slice(0, 0))

    @pytest.mark.parametrize(
        ("held_out", "message"),
        [
            (streamed(HELD_OUT).row_slice(7, 7), "validation is a stream without rows; expected at least 1"),
            (streamed((DATA[0][:, :4], DATA[1])), r"validation is a stream of shape \(230, 4\); expected \(n, 5\)"),
            (streamed((DATA[0], np.eye(4)[DATA[1]])), r"y of the stream validation has rows of \(4,\); expected"),
        ],
        ids=["rows", "inputs", "targets"],
    )
    def test_what_is_wrong_with_the_validation_is_said_before_the_first_step(self, held_out, message):
        trainer = made()
        with pytest.raises(ValueError, match=message):
            fitted(trainer, validation=held_out)
        assert trainer.optimizer.steps == 0
