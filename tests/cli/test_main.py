import signal
import subprocess

import numpy as np
import pytest

import gpu_nn
from gpu_nn import DeviceError, TrainingDiverged
from gpu_nn.cli import export_info, train


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (ValueError("seed=-1"), 2, "seed=-1"),
        (TypeError("of a wrong kind"), 2, "of a wrong kind"),
        (gpu_nn.DataError("no\nfile"), 3, "no file"),
        (PermissionError(13, "Permission denied", "a"), 3, "[Errno 13] Permission denied: 'a'"),
        (MemoryError(), 3, "out of memory"),
        (DeviceError("no GPU"), 4, "no GPU"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_each_kind_of_error_has_one_line_and_its_own_code(refused, monkeypatch, raised, code, line):
    def fail(_):
        raise raised

    monkeypatch.setattr(export_info, "run_info", fail)
    assert refused(code, "info") == f"gpu-nn info: {line}\n"


def test_a_training_without_memory_names_the_flags_that_need_less(refused, monkeypatch):
    def fail(_):
        raise MemoryError

    monkeypatch.setattr(train, "run_train", fail)
    line = refused(3, "train")
    assert line == "gpu-nn train: out of memory; a smaller --batch-size or --hidden needs less\n"


def test_divergence_has_a_code_of_its_own(refused, monkeypatch):
    def fail(_):
        raise TrainingDiverged(3, float("nan"))

    monkeypatch.setattr(export_info, "run_info", fail)
    assert "the loss became nan at step 3" in refused(5, "info")


def test_an_error_of_our_own_making_is_not_hidden(command, monkeypatch):
    def fail(_):
        raise ZeroDivisionError

    monkeypatch.setattr(export_info, "run_info", fail)
    with pytest.raises(ZeroDivisionError):
        command("info")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: train|evaluate|predict|export|plot|info"),
        (["trian"], "invalid choice: 'trian'"),
        (["train", "--epoch\nten", "3"], "unrecognized arguments: --epoch ten 3"),
        (["train", "--seed"], "argument --seed: expected one argument"),
        (["evaluate"], "the following arguments are required: MODEL, --data"),
        (["evaluate", "m"], "the following arguments are required: --data"),
        (["predict", "--data", "x"], "the following arguments are required: MODEL"),
        (["export", "m"], "the following arguments are required: --to"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_argument(command, arguments, message):
    done = command(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert message in done.err
    assert "--help)" in done.err


def test_help_and_version_are_results(command):
    for arguments in (
        ["--help"],
        ["train", "--help"],
        ["evaluate", "--help"],
        ["predict", "--help"],
        ["plot", "--help"],
    ):
        done = command(*arguments)
        assert (done.code, done.err) == (0, "")
        assert "usage: gpu-nn" in done.out
    assert command("--version").out == f"gpu_nn {gpu_nn.__version__}\n"


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_reader_that_goes_away_gets_no_traceback(process, model, tmp_path, arrays, unbuffered):
    np.savez(tmp_path / "many.npz", x=np.tile(arrays["x"], (300, 1)))
    arguments = ("predict", model, "--data", tmp_path / "many.npz", "--proba", "--device", "cpu")
    running = process(*arguments, unbuffered=unbuffered)
    assert running.stdout.readline().startswith("circle")
    running.stdout.close()
    assert running.stderr.read() == ""
    assert running.wait(30) == 1


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_result_that_a_disk_takes_only_in_part_is_an_error(process, model, data, tmp_path, unbuffered):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open(tmp_path / "out", "w") as out:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            running = process("predict", model, "--data", data, "--device", "cpu", stdout=out, unbuffered=unbuffered)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert running.stderr.read() == "gpu-nn predict: [Errno 27] File too large\n"
    assert running.wait(30) == 3


def test_a_stdout_that_is_full_is_one_line(process):
    with open("/dev/full", "w") as full:
        running = process("info", stdout=full)
        assert running.stderr.read() == "gpu-nn info: [Errno 28] No space left on device\n"
        assert running.wait(30) == 3


def test_an_interruption_ends_a_training_that_keeps_nothing_with_130(process, quick, tmp_path):
    running = process("train", *quick, "--epochs", 10**9, "--device", "cpu")
    while "epoch 1," not in running.stderr.readline():
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    assert running.stderr.read().splitlines()[-1] == "gpu-nn train: interrupted"
    assert running.stdout.read() == ""
    assert running.wait(30) == 130
    assert list(tmp_path.iterdir()) == []


def test_python_m_gpu_nn_is_the_command(process):
    running = process("evaluate", "gone", "--data", "gone", "--device", "cpu", stdin=subprocess.DEVNULL)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out, err) == (3, "", "gpu-nn evaluate: gone does not exist\n")
