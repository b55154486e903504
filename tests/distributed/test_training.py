"""Ranks that mpiexec starts on this machine train as one process does."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent
MPIEXEC = Path(sys.executable).parent / "mpiexec"

PROGRAM = """
import sys
import numpy as np
import gpu_nn
from gpu_nn.distributed import connect, together
from gpu_nn.training.ranks import ALONE

dtype, batch, parts, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
ranks, device = (ALONE, "cpu") if out.endswith("alone.npz") else connect()
with together(ranks):
    random = np.random.default_rng(0)
    x, y = random.standard_normal((203, 7)), random.integers(0, 5, 203)
    net = gpu_nn.Network([7, 16, 5], activation="tanh", device=device, dtype=dtype)
    trainer = gpu_nn.Trainer(net, gpu_nn.Adam(1e-2, max_norm=1.0), batch_size=batch, parts=parts, ranks=ranks)
    history = trainer.fit(x, y, epochs=6, validation=(x[:51], y[:51]))
    losses = [(record.loss, record.validation_loss, record.validation_accuracy) for record in history.epochs]
    if ranks.rank == 0:
        np.savez(out, parameters=net.flat_parameters, losses=losses)
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}


def mpi(size: int, *arguments: object) -> list[str]:
    return [str(MPIEXEC), "-n", str(size), sys.executable, *map(str, arguments)]


def unlike(first: Iterable[object], second: Iterable[object]) -> list[str]:
    """Two ranks with arguments of their own."""
    one, other = ([sys.executable, *map(str, arguments)] for arguments in (first, second))
    return [str(MPIEXEC), "-n", "1", *one, ":", "-n", "1", *other]


def ran(folder: Path, start: list[str], timeout: int = 300, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {**environment(), **variables}
    return subprocess.run(start, capture_output=True, text=True, check=False, cwd=folder, env=environ, timeout=timeout)


# Sums by layer, each as soon as its gradient is there, as between GPUs for wide layers.
BY_BUCKETS = """
from gpu_nn.distributed.mpi import MpiRanks
from gpu_nn.training import together as parts_of_a_step

MpiRanks.overlapping, parts_of_a_step._BUCKET_BYTES = True, 1
"""


def trained(folder: Path, size: int, dtype: str, batch: int, parts: int, before: str = "") -> dict[str, np.ndarray]:
    out = folder / ("alone.npz" if size == 0 else f"{size}.npz")
    arguments = ["-c", before + PROGRAM, dtype, batch, parts, out]
    command = [sys.executable, *map(str, arguments)] if size == 0 else mpi(size, *arguments)
    subprocess.run(command, check=True, cwd=folder, env=environment(), timeout=300)
    return dict(np.load(out))


def test_two_and_four_ranks_learn_the_bits_that_one_process_learns(tmp_path):
    alone = trained(tmp_path, 0, "float64", 203, parts=4)
    for size in (2, 4):
        found = trained(tmp_path, size, "float64", 203, parts=4)
        assert found["parameters"].tobytes() == alone["parameters"].tobytes()
        np.testing.assert_allclose(found["losses"], alone["losses"], rtol=1e-13)


def test_sums_by_buckets_give_the_bits_of_one_sum(tmp_path):
    """Batches of 67 rows leave 2 for the last, of which two of four ranks have none."""
    one_sum = trained(tmp_path, 4, "float64", 67, parts=4)
    by_buckets = trained(tmp_path, 4, "float64", 67, parts=4, before=BY_BUCKETS)
    for name, array in one_sum.items():
        assert by_buckets[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("size", [2, 3])
def test_small_batches_and_a_short_last_one_train_to_rounding(tmp_path, size):
    """203 rows in batches of 32 leave 11, which no number of ranks here divides."""
    alone = trained(tmp_path, 0, "float64", 32, parts=1)
    found = trained(tmp_path, size, "float64", 32, parts=size)
    np.testing.assert_allclose(found["parameters"], alone["parameters"], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found["losses"], alone["losses"], rtol=1e-9)
    single = trained(tmp_path, size, "float32", 32, parts=size)
    np.testing.assert_allclose(single["losses"], alone["losses"], rtol=1e-4)


RESUMED = """
import sys
import numpy as np
import gpu_nn
from gpu_nn.distributed import connect, together
from gpu_nn.training import Checkpoints, Every
from gpu_nn.training.ranks import ALONE

size, begins_with, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
ranks, device = (ALONE, "cpu") if size == 0 else connect()
with together(ranks):
    random = np.random.default_rng(0)
    x, y = random.standard_normal((203, 7)), random.integers(0, 5, 203)
    net = gpu_nn.Network([7, 16, 5], activation="tanh", device=device, dtype="float64")
    trainer = gpu_nn.Trainer(net, gpu_nn.Adam(1e-2), batch_size=32, parts=4, ranks=ranks)
    if not begins_with:
        trainer.callbacks.append(Checkpoints("all", Every(steps=5), keep=100))
    trainer.fit(x, y, epochs=4, resume=begins_with or None)
    steps = trainer.optimizer.steps
    if ranks.rank == 0:
        np.savez(out, parameters=net.flat_parameters, steps=steps)
"""


def resumed(folder: Path, size: int, begins_with: str, program: str = RESUMED) -> dict[str, np.ndarray]:
    out = folder / f"{size}.npz"
    arguments = ["-c", program, size, begins_with, out]
    start = mpi(size, *arguments) if size else [sys.executable, *map(str, arguments)]
    subprocess.run(start, check=True, cwd=folder, env=environment(), timeout=300)
    return dict(np.load(out))


def keep_tenth(folder: Path) -> None:
    """Of the checkpoints in "all" that after ten steps, in "tenth"."""
    (folder / "tenth").mkdir()
    (tenth,) = [path for path in (folder / "all").iterdir() if int(re.findall(r"\d+", path.name)[0]) == 10]
    tenth.rename(folder / "tenth" / tenth.name)


def test_a_checkpoint_of_one_process_resumes_in_mid_epoch_on_two_and_four_ranks_to_the_same_bits(tmp_path):
    whole = resumed(tmp_path, 0, "")
    assert whole["steps"] == 4 * 7
    keep_tenth(tmp_path)
    for size in (2, 4):
        found = resumed(tmp_path, size, "tenth")
        assert found["steps"] == whole["steps"]
        assert found["parameters"].tobytes() == whole["parameters"].tobytes()


def test_ranks_resume_with_the_dropout_that_was_due_though_some_had_no_rows_of_a_last_batch(tmp_path):
    """Batches of 101 rows leave 1 of 203, and so none for three parts of four. A checkpoint has rank 0's counter."""
    layers = '[gpu_nn.Dense(16, "tanh"), gpu_nn.Dropout(0.3), gpu_nn.Dense(5)], n_inputs=7'
    program = RESUMED.replace('[7, 16, 5], activation="tanh"', layers).replace("batch_size=32", "batch_size=101")
    whole = resumed(tmp_path, 2, "", program)
    assert whole["steps"] == 4 * 3
    keep_tenth(tmp_path)
    assert resumed(tmp_path, 2, "tenth", program)["parameters"].tobytes() == whole["parameters"].tobytes()


STREAMED = """
import sys
import numpy as np
import gpu_nn
from gpu_nn.data import stream
from gpu_nn.distributed import connect, together
from gpu_nn.training.ranks import ALONE

out = sys.argv[1]
ranks, device = (ALONE, "cpu") if out.endswith("alone.npz") else connect()
with together(ranks):
    random = np.random.default_rng(0)
    x, y = random.standard_normal((203, 7)), random.integers(0, 5, 203)
    training, held_out = stream(x, y, block_rows=10, window_rows=70).split("validation", 0.25, seed=1)
    validation = stream(x[:151], y[:151], block_rows=10, window_rows=40)
    loaded, load = [], validation.source.load

    def spy(start, stop):
        loaded.append(stop - start)
        return load(start, stop)

    validation.source.load = spy
    net = gpu_nn.Network([7, 16, 5], activation="tanh", device=device, dtype="float64")
    trainer = gpu_nn.Trainer(net, gpu_nn.Adam(1e-2), batch_size=32, parts=2, ranks=ranks)
    history = trainer.fit(training, epochs=4, validation=validation)
    last = trainer.evaluation.of_stream(held_out.between(0, 1))  # no row for the second rank
    losses = [(record.loss, record.validation_loss, record.validation_accuracy) for record in history.epochs]
    rows = ranks.gathered(sum(loaded) - len(validation))  # all are looked at once, for their checksum
    if ranks.rank == 0:
        np.savez(out, parameters=net.flat_parameters, losses=losses, last=last, rows=rows)
"""


def test_ranks_learn_of_a_stream_the_bits_that_one_process_learns_and_share_its_validation(tmp_path):
    found = {}
    for size in (0, 2):
        out = tmp_path / ("alone.npz" if size == 0 else "2.npz")
        start = [sys.executable, "-c", STREAMED, str(out)] if size == 0 else mpi(size, "-c", STREAMED, out)
        subprocess.run(start, check=True, cwd=tmp_path, env=environment(), timeout=300)
        found[size] = dict(np.load(out))
    assert found[2]["parameters"].tobytes() == found[0]["parameters"].tobytes()
    for name in ("losses", "last"):
        np.testing.assert_allclose(found[2][name], found[0][name], rtol=1e-13)
    assert found[0]["rows"].tolist() == [4 * 151]
    assert found[2]["rows"].tolist() == [4 * 75, 4 * 76]


SUM_OF_EXTREMES = """
import numpy as np
from gpu_nn.distributed import connect, together

ranks, _ = connect("cpu")
with together(ranks):
    most, sign = np.finfo(np.float32).max, 1 if ranks.rank == 0 else -1
    found = np.array([sign * np.inf, most, np.inf, np.nan, sign * most], np.float32)
    ranks.sum(found)
    last = {2: 0, 3: -most, 4: -np.inf}[ranks.size]
    np.testing.assert_array_equal(found, [np.nan, np.inf, np.inf, np.nan, last])
"""


@pytest.mark.parametrize("size", [2, 3, 4])
def test_sums_of_infinities_and_past_the_largest_number_warn_nobody(tmp_path, size):
    done = ran(tmp_path, mpi(size, "-W", "error", "-c", SUM_OF_EXTREMES), timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


STREAM_WITH_A_BAD_ROW = """
import json
import numpy as np
import gpu_nn
from gpu_nn.data import stream
from gpu_nn.distributed import connect, together

ranks, device = connect()
with together(ranks):
    x, y = np.zeros((40, 3)), np.arange(40) % 2
    net = gpu_nn.Network([3, 2], device=device)
    trainer = gpu_nn.Trainer(net, gpu_nn.SGD(), batch_size=10, ranks=ranks)
    bad = np.where(np.arange(40)[:, None] == 35, np.nan, x)
    said = None
    try:
        trainer.fit(stream(x, y), epochs=1, validation=stream(bad, y))
    except gpu_nn.DataError as error:
        said = str(error)
    told = ranks.gathered(said)
    if ranks.rank == 0:
        print(json.dumps(told))
"""


def test_a_row_that_one_rank_refuses_is_refused_by_all(tmp_path):
    done = ran(tmp_path, mpi(2, "-c", STREAM_WITH_A_BAD_ROW), timeout=60)
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first.startswith("rank 1: x: x[35, 0] is nan")
    assert second.startswith("x: x[35, 0] is nan")


def command(*flags: object) -> list[str]:
    return ["-m", "gpu_nn", "train", "--distributed", *map(str, flags)]


def test_the_command_reports_once_and_finds_what_one_process_finds(tmp_path):
    accuracy = re.compile(r"test accuracy [\d.]+ %")
    flags = ["--epochs", 3, "--seed", 1]
    done = ran(tmp_path, mpi(2, *command("--out", tmp_path / "run", *flags)))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1
    assert done.stderr.count("epoch 3") == 1
    alone = ran(tmp_path, [sys.executable, "-m", "gpu_nn", "train", *map(str, flags)])
    assert accuracy.findall(done.stdout) == accuracy.findall(alone.stdout)
    assert (tmp_path / "run" / "model.safetensors").exists()
    again = ran(tmp_path, mpi(2, *command("--resume", tmp_path / "run")))
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("is finished") == 1
    assert accuracy.findall(again.stdout) == accuracy.findall(done.stdout)


def test_a_killed_rank_ends_all_and_its_run_goes_on_in_one_process(tmp_path):
    run = tmp_path / "run"
    flags = ["--out", run, "--epochs", 100_000, "--checkpoint-every", "20steps", "--early-stopping", 100_000]
    process = subprocess.Popen(
        mpi(2, *command(*flags)),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path, env=environment(),
    )  # fmt: skip
    try:
        until = time.monotonic() + 240
        while len(list((run / "checkpoints").glob("steps-*"))) < 2:
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.05)
        ranks = ranks_of(process.pid)
        assert len(ranks) == 2
        os.kill(ranks[-1], signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    named = re.search(rf"^rank (\d): process {ranks[-1]} on (\S+), cpu$", output, re.MULTILINE)
    assert named, output
    assert f"PID {ranks[-1]} RUNNING AT" in output
    assert "signal 9" in output
    assert not [pid for pid in ranks if Path(f"/proc/{pid}").exists()]
    # A run of so many epochs is not waited for: it goes on, and is interrupted.
    resumed = subprocess.Popen(
        [sys.executable, "-m", "gpu_nn", "train", "--resume", str(run)],
        stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment(),
    )  # fmt: skip
    lines = [resumed.stderr.readline() for _ in range(8)]
    resumed.send_signal(signal.SIGINT)
    _, rest = resumed.communicate(timeout=30)
    assert resumed.returncode == 130, rest
    assert any(re.match(r"epoch \d+, loss", line) for line in lines), lines


def ranks_of(launcher: int) -> list[int]:
    """The processes below the launcher that run the command, as `python -m gpu_nn`."""
    found, above = [], [launcher]
    while above:
        pid = above.pop()
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            above += map(int, task.read_text().split())
        if pid != launcher and "gpu_nn" in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
            found.append(pid)
    return sorted(found)


def test_an_interrupt_saves_and_ends_all_ranks(tmp_path):
    run = tmp_path / "run"
    flags = ["--out", run, "--epochs", 100_000, "--checkpoint-every", "50steps"]
    process = subprocess.Popen(
        mpi(2, *command(*flags)),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path, env=environment(),
    )  # fmt: skip
    until = time.monotonic() + 240
    while not list((run / "checkpoints").glob("steps-*")):
        assert time.monotonic() < until
        time.sleep(0.05)
    for rank in ranks_of(process.pid):
        os.kill(rank, signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert f"gpu-nn train --resume {run} goes on" in output
    assert list((run / "checkpoints").glob("steps-*"))
    assert output.count("goes on") == 1


INTERRUPTED_BETWEEN_EPOCHS = """
import numpy as np
import gpu_nn
from gpu_nn.distributed import connect, together

ranks, device = connect()
with together(ranks):
    x, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 2
    between = [lambda trainer, record: trainer.interrupt() if record.epoch == 2 else None]
    net = gpu_nn.Network([3, 2], device=device)
    trainer = gpu_nn.Trainer(net, gpu_nn.SGD(), batch_size=10, ranks=ranks, callbacks=between)
    history = trainer.fit(x, y, epochs=5)
    found = ranks.gathered([len(history), trainer.interrupted])
    if ranks.rank == 0:
        print(found)
"""


def test_an_interrupt_of_one_rank_between_epochs_ends_all(tmp_path):
    """Callbacks are rank 0's alone, so nobody else knows of it but through rank 0."""
    done = ran(tmp_path, mpi(2, "-c", INTERRUPTED_BETWEEN_EPOCHS), timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[[2, True], [2, True]]"


STOPPED = """
import sys
import numpy as np
import gpu_nn
from gpu_nn.distributed import connect, together
from gpu_nn.training import Callback, Every

class Stops(Callback):
    every = Every(steps=1)

    def begin(self, trainer):
        trainer.stopping = when == "begin"

    def __call__(self, trainer, record):
        if record.steps == 6:
            trainer.stopping = "stop" in when
            if "interrupt" in when:
                trainer.interrupt()

when = sys.argv[1]
ranks, device = connect()
with together(ranks):
    x, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 2
    net = gpu_nn.Network([3, 2], device=device)
    trainer = gpu_nn.Trainer(net, gpu_nn.SGD(), batch_size=10, ranks=ranks, callbacks=[Stops()])
    history = trainer.fit(x, y, epochs=5)
    found = ranks.gathered([len(history), trainer.optimizer.steps, trainer.stopping, trainer.interrupted])
    if ranks.rank == 0:
        print(found)
"""


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("begin", [0, 0, True, False]),
        ("stop", [2, 8, True, False]),
        ("interrupt", [1, 7, False, True]),
        ("stop and interrupt", [1, 7, True, True]),
    ],
)
def test_what_a_callback_of_rank_0_ends_between_two_steps_ends_on_all_ranks(tmp_path, when, expected):
    """Of an interruption the others hear with the next step's sum."""
    done = ran(tmp_path, mpi(2, "-c", STOPPED, when), timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.replace("True", "true").replace("False", "false")) == [expected, expected]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((40, 4), "rank 1 has network n_inputs = 4, rank 0 has 3"),
        ((45, 3), "rank 1 has training rows = 36, rank 0 has 32"),
    ],
)
def test_data_of_another_shape_are_told_apart_by_the_first_that_differs(tmp_path, shape, message):
    for name, (rows, columns) in (("first", (40, 3)), ("second", shape)):
        x = np.random.default_rng(0).random((rows, columns))
        np.savez(tmp_path / f"{name}.npz", x=x, y=np.arange(rows) % 2)
    done = ran(tmp_path, unlike(*(command("--data", tmp_path / name) for name in ("first.npz", "second.npz"))))
    assert_told_once(done, message)


def test_fewer_rows_than_ranks_are_refused(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.eye(3), y=[0, 1, 0])
    done = ran(tmp_path, mpi(3, *command("--data", tmp_path / "data.npz")))
    assert_told_once(done, "x has 2 rows, but 3 ranks; expected at least a row for each")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (["--batch-size", 32], ["--batch-size", 64], "rank 1 has trainer batch_size = 64, rank 0 has 32"),
        (["--seed", 0], ["--seed", 1], "rank 1 has training checksum = "),
        (["--hidden", 8], ["--hidden", 9], "rank 1 has network layers = "),
        (["--epochs", 3], ["--epochs", 2], "rank 1 has last epoch = 2, rank 0 has 3"),
    ],
)
def test_ranks_that_were_started_unlike_are_told_apart(tmp_path, first, second, message):
    python = ["-m", "gpu_nn", "train", "--distributed"]
    done = ran(tmp_path, unlike([*python, *first], [*python, *second]))
    assert_told_once(done, message)


def test_ranks_that_would_draw_unlike_orders_of_rows_are_told_apart(tmp_path):
    program = """
import numpy as np
import gpu_nn
from gpu_nn.distributed import connect, together

ranks, device = connect()
with together(ranks):
    for shuffle in (False, True):
        net = gpu_nn.Network([3, 2], device=device)
        random = np.random.default_rng(ranks.rank)
        trainer = gpu_nn.Trainer(net, gpu_nn.SGD(), batch_size=10, shuffle=shuffle, seed=random, ranks=ranks)
        trainer.fit(np.ones((40, 3)), np.arange(40) % 2, epochs=1)
        if ranks.rank == 0:
            print("shuffle:", shuffle)
"""
    done = ran(tmp_path, mpi(2, "-c", program), timeout=60)
    assert done.returncode != 0
    assert done.stdout == "shuffle: False\n"
    assert "rank 1 has state of the random numbers = " in done.stderr


def test_a_batch_smaller_than_the_ranks_is_refused(tmp_path):
    done = ran(tmp_path, mpi(3, *command("--batch-size", 2)))
    assert_told_once(done, "batch_size=2, but 3 parts; expected at least a row for each")


@pytest.mark.parametrize(
    "flags",
    [(), ("--out", "run", "--checkpoint-every", "1steps"), ("--epochs", 1, "--batch-size", 1437)],
    ids=["in an epoch", "for a checkpoint, by rank 0 alone", "after the last step"],
)
def test_a_loss_that_is_no_longer_finite_is_told_once(tmp_path, flags):
    done = ran(tmp_path, mpi(2, *command("--lr", "1e30", "--optimizer", "sgd", *flags)), timeout=60)
    assert_told_once(done, "the loss became ")
    assert not list(tmp_path.glob("run/checkpoints/steps-*[2-9].*"))


@pytest.mark.parametrize("moment", ["end", "__call__"])
def test_a_divergence_that_no_other_rank_finds_ends_all_ranks(tmp_path, moment):
    program = f"""
import numpy as np
import gpu_nn
from gpu_nn.distributed import connect, together
from gpu_nn.training import Callback, Every

class Limit(Callback):
    every = Every(steps=3)

    def {moment}(self, *arguments):
        raise gpu_nn.TrainingDiverged(3, float("inf"))

    if "{moment}" == "end":
        def __call__(self, trainer, record):
            trainer.interrupt()

ranks, device = connect()
with together(ranks):
    net = gpu_nn.Network([3, 2], device=device)
    trainer = gpu_nn.Trainer(net, gpu_nn.SGD(), batch_size=10, ranks=ranks, callbacks=[Limit()])
    trainer.fit(np.ones((40, 3)), np.arange(40) % 2, epochs=2)
    print("through")
"""
    done = ran(tmp_path, mpi(2, "-c", program), timeout=60)
    assert done.returncode != 0
    assert "rank 0 of 2 failed: the loss became inf at step 3" in done.stderr
    assert "through" not in done.stdout


def test_a_file_that_one_rank_lacks_is_told_with_the_number_of_the_rank(tmp_path):
    x, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 2
    np.savez(tmp_path / "data.npz", x=x, y=y)
    python = ["-m", "gpu_nn", "train", "--distributed", "--data"]
    done = ran(tmp_path, unlike(*([*python, tmp_path / name] for name in ("data.npz", "absent.npz"))))
    assert_told_once(done, "rank 1: ")
    assert "absent.npz does not exist" in done.stderr


def test_a_device_that_no_rank_has_is_told_once(tmp_path):
    done = ran(tmp_path, mpi(2, *command("--device", "cuda")), CUDA_VISIBLE_DEVICES="")
    assert_told_once(done, "device='cuda', but ")


def test_a_missing_mpi_is_told_once_a_host(tmp_path):
    (tmp_path / "mpi4py.py").write_text("raise ImportError('no MPI here')")
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    done = ran(tmp_path, mpi(3, *command()), PYTHONPATH=path)
    assert_told_once(done, "(no MPI here): pip install 'gpu_nn[mpi]'")


def test_a_gpu_on_some_hosts_alone_is_told_with_the_rank_that_lacks_it(tmp_path):
    program = """
from gpu_nn import distributed
from mpi4py import MPI
if MPI.COMM_WORLD.Get_rank() == 0:
    distributed.why_no_cuda = lambda: ""
distributed.connect()
"""
    done = ran(tmp_path, mpi(2, "-c", program), timeout=60, CUDA_VISIBLE_DEVICES="")
    assert done.returncode != 0
    assert done.stderr.count("rank 1 has a GPU = False, rank 0 has True") == 1


@pytest.mark.parametrize("flags", [["--out", "run"], ["--resume", "run"], []], ids=["out", "resume", "nothing"])
def test_several_processes_without_the_flag_are_refused_before_they_write(tmp_path, flags):
    done = ran(tmp_path, mpi(3, "-m", "gpu_nn", "train", *flags))
    assert done.returncode == 2
    assert_told_once(done, "a launcher started 3 processes; expected --distributed, by which they train together")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "names", [("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("RANK", "WORLD_SIZE")], ids=["Open MPI", "torchrun"]
)
@pytest.mark.parametrize(("rank", "size", "code"), [(0, 2, 2), (1, 2, 2), (0, 1, 0)])
def test_other_launchers_are_known_and_one_process_is_none_too_many(tmp_path, names, rank, size, code):
    variables = dict(zip(names, (str(rank), str(size)), strict=True))
    done = ran(tmp_path, [sys.executable, "-m", "gpu_nn", "train", "--device", "cpu", "--epochs", "1"], **variables)
    assert done.returncode == code, done.stderr
    assert ("a launcher started 2 processes" in done.stderr) == (code == 2 and rank == 0)
    assert done.stderr or rank


def assert_told_once(done: subprocess.CompletedProcess, message: str) -> None:
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("gpu-nn train: ")]
    assert len(told) == 1, done.stderr
    assert message in told[0]
    assert "Traceback" not in done.stderr


def test_without_a_launcher_the_command_says_how_to_start_ranks(tmp_path):
    clean = {name: value for name, value in environment().items() if not name.startswith(("PMI", "MPI", "OMPI"))}
    done = subprocess.run(
        [sys.executable, *command()], capture_output=True, text=True, cwd=tmp_path, env=clean, timeout=300
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no launcher started this process: mpiexec -n 4 gpu-nn train --distributed" in done.stderr
