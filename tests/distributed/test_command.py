"""The command as ranks of MPI: it trains once, says once what all find, and ends all where one is ended."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gpu_nn.data import digits
from tests.distributed.processes import environment, mpi, ran

TRAIN = ["train", "--distributed"]


def command(*flags):
    return ["-m", "gpu_nn", *TRAIN, *map(str, flags)]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Data of the digits that a process has at once: to split them by a fraction, it would import scikit-learn."""
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    x, y = digits()
    np.savez(path, x=x, y=y)
    return "--data", path, "--test-last", 360


@pytest.fixture
def told(on_ranks):
    """What rank 0 says, in one line, of a command that ends on all ranks; or of one for each of two ranks."""

    def told(size, *flags, unlike=None, **variables):
        jobs = [("command", [*TRAIN, *flags])]
        if unlike is not None:
            jobs.append(("command", [*TRAIN, *unlike]))
        first, *others = on_ranks(size, *jobs, **variables)
        assert others == [(1, "", "")] * (size - 1)
        lines = [line for line in first.err.splitlines() if line.startswith("gpu-nn train: ")]
        assert len(lines) == 1, first.err
        assert first.code != 0
        assert "Traceback" not in first.err
        return lines[0]

    return told


def assert_told_once(done: subprocess.CompletedProcess, message: str) -> None:
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("gpu-nn train: ")]
    assert len(told) == 1, done.stderr
    assert message in told[0]
    assert "Traceback" not in done.stderr


def test_the_command_reports_once_and_finds_what_one_process_finds(tmp_path, quick):
    accuracy = re.compile(r"test accuracy [\d.]+ %")
    flags = [*quick, "--epochs", 3, "--seed", 1]
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


def test_a_killed_rank_ends_all_and_its_run_goes_on_in_one_process(tmp_path, quick):
    run = tmp_path / "run"
    flags = [*quick, "--out", run, "--epochs", 100_000, "--checkpoint-every", "20steps", "--early-stopping", 100_000]
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


def test_an_interrupt_saves_and_ends_all_ranks(tmp_path, quick):
    run = tmp_path / "run"
    flags = [*quick, "--out", run, "--epochs", 100_000, "--checkpoint-every", "50steps"]
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
    assert f"gpu-nn train --resume {run} continues the run" in output
    assert list((run / "checkpoints").glob("steps-*"))
    assert output.count("continues the run") == 1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((40, 4), "rank 1 has network n_inputs = 4, rank 0 has 3"),
        ((45, 3), "rank 1 has training rows = 36, rank 0 has 32"),
    ],
)
def test_data_of_another_shape_are_told_apart_by_the_first_that_differs(told, tmp_path, shape, message):
    for name, (rows, columns) in (("first", (40, 3)), ("second", shape)):
        x = np.random.default_rng(0).random((rows, columns))
        np.savez(tmp_path / f"{name}.npz", x=x, y=np.arange(rows) % 2)
    assert message in told(2, "--data", "first.npz", unlike=["--data", "second.npz"])


def test_fewer_rows_than_ranks_are_refused(told, tmp_path):
    np.savez(tmp_path / "data.npz", x=np.eye(3), y=[0, 1, 0])
    assert "x has 2 rows, but 3 ranks; expected at least a row for each" in told(3, "--data", "data.npz")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (["--batch-size", 32], ["--batch-size", 64], "rank 1 has trainer batch_size = 64, rank 0 has 32"),
        (["--seed", 0], ["--seed", 1], "rank 1 has training checksum = "),
        (["--hidden", 8], ["--hidden", 9], "rank 1 has network layers = "),
        (["--epochs", 3], ["--epochs", 2], "rank 1 has last epoch = 2, rank 0 has 3"),
    ],
)
def test_ranks_that_were_started_unlike_are_told_apart(told, first, second, message):
    assert message in told(2, *first, unlike=second)


def test_a_batch_smaller_than_the_ranks_is_refused(told):
    assert "batch_size=2, but 3 micro-batches; expected at least a row for each" in told(3, "--batch-size", 2)


@pytest.mark.parametrize(
    "flags",
    [(), ("--out", "run", "--checkpoint-every", "1steps"), ("--epochs", 1, "--batch-size", 1437)],
    ids=["in an epoch", "for a checkpoint, by rank 0 alone", "after the last step"],
)
def test_a_loss_that_is_no_longer_finite_is_told_once(told, tmp_path, flags):
    assert "the loss became " in told(2, "--lr", "1e30", "--optimizer", "sgd", *flags)
    assert not list(tmp_path.glob("run/checkpoints/steps-*[2-9].*"))


def test_a_file_that_one_rank_lacks_is_told_with_the_number_of_the_rank(told, tmp_path):
    x, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 2
    np.savez(tmp_path / "data.npz", x=x, y=y)
    said = told(2, "--data", "data.npz", unlike=["--data", "absent.npz"])
    assert "rank 1: " in said
    assert "absent.npz does not exist" in said


def test_a_device_that_no_rank_has_is_told_once(told):
    assert "device='cuda', but " in told(2, "--device", "cuda", CUDA_VISIBLE_DEVICES="")


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
def test_other_launchers_are_known_and_one_process_is_none_too_many(tmp_path, quick, names, rank, size, code):
    variables = dict(zip(names, (str(rank), str(size)), strict=True))
    flags = map(str, (*quick, "--device", "cpu", "--epochs", 1))
    done = ran(tmp_path, [sys.executable, "-m", "gpu_nn", "train", *flags], **variables)
    assert done.returncode == code, done.stderr
    assert ("a launcher started 2 processes" in done.stderr) == (code == 2 and rank == 0)
    assert done.stderr or rank


def test_without_a_launcher_the_command_says_how_to_start_ranks(tmp_path):
    clean = {name: value for name, value in environment().items() if not name.startswith(("PMI", "MPI", "OMPI"))}
    done = subprocess.run(
        [sys.executable, *command()], capture_output=True, text=True, cwd=tmp_path, env=clean, timeout=300
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no launcher started this process: mpiexec -n 4 gpu-nn train --distributed" in done.stderr
