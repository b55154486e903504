import errno
import json
import os
import pty
import re
import termios

import numpy as np
import pytest

from gpu_nn import files, load
from gpu_nn.training import History
from tests.data.files import Payload, live_pickle, write_idx_pair

FAST = ("--epochs", 2, "--hidden", 4, "--device", "cpu")


# Results


def test_without_arguments_it_learns_the_digits(command):
    done = command("train", "--epochs", 10, "--device", "cpu")
    assert done.code == 0
    accuracy = re.fullmatch(r"test accuracy (\S+) % on 360 rows, loss \S+, \S+ s on cpu\n", done.out)
    assert float(accuracy[1]) >= 95


def test_the_result_is_on_stdout_and_progress_on_stderr_a_line_an_epoch(command, data):
    done = command("train", "--data", data, *FAST)
    assert done.out.count("\n") == 1
    lines = done.err.splitlines()
    assert lines[0] == "72 rows to train, 18 to test, 5 inputs, 3 classes"
    assert [line.partition(",")[0] for line in lines[2:]] == ["epoch 1", "epoch 2"]
    assert "\r" not in done.err


def test_json_is_one_object_for_machines(command, data, tmp_path):
    result = json.loads(command("train", "--data", data, *FAST, "--json", "--out", tmp_path / "run").out)
    of_the_test = {"test_accuracy", "test_loss", "test_rows"}
    assert result.keys() == {*of_the_test, "epochs", "seconds", "device", "model", "history"}
    assert [record["epoch"] for record in result["history"]] == [1, 2]
    assert result["history"][0]["validation_loss"] is None
    assert (result["test_rows"], result["epochs"], result["device"]) == (18, 2, "cpu")
    assert 0 <= result["test_accuracy"] <= 1
    assert result["model"] == str(tmp_path / "run" / "model.safetensors")


def test_out_receives_the_model_history_configuration_and_final_checkpoint_and_nothing_else(command, data, tmp_path):
    out = tmp_path / "new" / "run"
    done = command("train", "--data", data, *FAST, "--out", out)
    assert done.out.endswith(f"model: {out / 'model.safetensors'}\n")
    assert sorted(os.listdir(out)) == ["checkpoints", "config.toml", "history.json", "model.safetensors"]
    history = History.from_json((out / "history.json").read_text())
    assert history.column("epoch") == [1, 2]
    net = load(out / "model.safetensors", "cpu")
    assert (net.n_inputs, net.n_classes) == (5, 3)


def test_out_over_an_older_run_replaces_it(command, data, tmp_path):
    command("train", "--data", data, *FAST, "--out", tmp_path)
    command("train", "--data", data, *FAST, "--hidden", 7, "--out", tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["checkpoints", "config.toml", "history.json", "model.safetensors"]
    assert load(tmp_path / "model.safetensors", "cpu").widths[-2] == 7


def test_the_same_seed_gives_the_same_network(command, data, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        command("train", "--data", data, *FAST, "--dropout", 0.3, "--seed", seed, "--out", tmp_path / name)
    a, b, c = (load(tmp_path / name / "model.safetensors", "cpu").flat_parameters.tobytes() for name in "abc")
    assert a == b != c


def test_the_options_reach_the_network(command, data, tmp_path):
    options = ("--hidden", "6,4", "--activation", "tanh", "--dropout", 0.25, "--dtype", "float64")
    command("train", "--data", data, "--epochs", 1, "--device", "cpu", *options, "--out", tmp_path)
    net = load(tmp_path / "model.safetensors", "cpu")
    said = [str(layer) for layer in net.layers]
    hidden = [f"Dense(units={width}, activation='tanh', bias=True)" for width in (6, 4)]
    assert said == ["Standardize()", hidden[0], "Dropout(rate=0.25)", hidden[1], "Dropout(rate=0.25)", *said[-1:]]
    assert net.dtype == np.float64


@pytest.mark.parametrize(
    ("normalisation", "layer", "bias"), [("layer", "LayerNorm", True), ("batch", "BatchNorm", False)]
)
def test_normalisation_and_noise_reach_the_network_and_the_configuration(
    command, data, tmp_path, normalisation, layer, bias
):
    options = ("--hidden", "6", "--normalisation", normalisation, "--input-noise", 0.1)
    command("train", "--data", data, "--epochs", 3, "--device", "cpu", *options, "--out", tmp_path)
    net = load(tmp_path / "model.safetensors", "cpu")
    assert [type(part).__name__ for part in net.layers] == ["Standardize", "InputNoise", "Dense", layer, "Dense"]
    assert (net.layers[1].deviation, net.layers[2].bias, net.layers[3].activation) == (0.1, bias, "relu")
    written = (tmp_path / "config.toml").read_text()
    assert f'normalisation = "{normalisation}"\n' in written
    assert "input-noise = 0.1\n" in written


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_each_optimizer_learns_the_points(command, data, optimizer):
    options = ("--optimizer", optimizer, "--weight-decay", 0.01, "--max-norm", 1, "--label-smoothing", 0.01)
    done = command("train", "--data", data, "--epochs", 40, "--device", "cpu", "--json", *options)
    assert json.loads(done.out)["test_accuracy"] > 0.8


def test_an_idx_folder_is_data(command, tmp_path):
    random = np.random.default_rng(0)
    write_idx_pair(tmp_path, "train", random.integers(0, 256, (40, 4, 4), np.uint8), np.arange(40, dtype=np.uint8) % 2)
    done = command("train", "--data", tmp_path, *FAST, "--test-last", 10, "--json")
    assert json.loads(done.out)["test_rows"] == 10


def test_no_epoch_is_the_network_as_it_begins(command, data):
    assert command("train", "--data", data, *FAST, "--epochs", 0).code == 0


def test_a_terminal_gets_a_bar(process, quick):
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 100))
    running = process("train", *quick, *FAST, stderr=end)
    os.close(end)
    shown = b""
    try:
        while piece := os.read(terminal, 1 << 16):
            shown += piece
    except OSError:  # Linux's way to say that the other end has gone
        pass
    os.close(terminal)
    assert running.wait(30) == 0
    last = shown.decode().rstrip().split("\r")[-1]
    assert "100%" in last
    assert "144/144" in last
    assert re.search(r"epoch 2, loss \d", last)
    assert running.stdout.read().startswith("test accuracy")


# Usage: code 2


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--activation", "rellu", "'rellu' is not one of elu, gelu"),
        ("--activation", "Tanh", "Did you mean 'tanh'?"),
        ("--optimizer", "adma", "'adma' is not one of adam, adamw, sgd. Did you mean 'adam'?"),
        ("--dtype", "float23", "Did you mean 'float32'?"),
        ("--hidden", "256,x", "'256,x'; expected whole numbers from 1 to"),
        ("--hidden", "0", "'0'; expected whole numbers from 1 to"),
        ("--hidden", "99999999999999999999", "expected whole numbers from 1 to"),
        ("--epochs", "-1", "'-1'; expected a whole number ≥ 0"),
        ("--batch-size", "0", "'0'; expected a whole number ≥ 1"),
        ("--lr", "nan", "'nan'; expected a finite number ≥ 0"),
        ("--lr", "fast", "'fast'; expected a finite number ≥ 0"),
        ("--weight-decay", "-0.1", "expected a finite number ≥ 0"),
        ("--max-norm", "0", "expected a finite number above 0"),
        ("--dropout", "1", "expected a finite number ≥ 0 and below 1"),
        ("--normalisation", "bach", "is not one of batch, layer. Did you mean 'batch'?"),
        ("--input-noise", "-1", "expected a finite number ≥ 0"),
        ("--label-smoothing", "1.5", "expected a finite number ≥ 0 and ≤ 1"),
        ("--complement-weight", "inf", "expected a finite number ≥ 0"),
        ("--seed", "-1", "expected a whole number from 0 to 4294967295"),
        ("--test-fraction", "1", "expected a finite number above 0 and below 1"),
        ("--test-last", "0", "expected a whole number ≥ 1"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_done(refused, data, tmp_path, flag, value, message):
    line = refused(2, "train", "--data", data, "--out", tmp_path / "new" / "run", f"{flag}={value}")
    assert line.startswith(f"gpu-nn train: argument {flag}: ")
    assert message in line


def test_an_unknown_device_is_named_with_the_nearest(refused, tmp_path):
    line = refused(2, "train", "--device", "gpu", "--out", tmp_path / "new")
    assert "device='gpu' is not one of auto, cpu, cuda, cuda:1. Did you mean 'cuda'?" in line


# Device: code 4


def test_cuda_without_a_gpu_is_an_error_with_its_hint(refused, no_gpu, tmp_path):
    line = refused(4, "train", "--device", "cuda", "--out", tmp_path / "new")
    assert "device='cuda', but CuPy finds no NVIDIA GPU. device='cpu' or 'auto' runs without a GPU" in line


# Data: code 3


def test_data_that_cannot_be_used_are_named_and_leave_no_folder(refused, arrays, tmp_path):
    x, y = arrays["x"], arrays["y"]
    wrong = {
        "x[0, 0] is nan": {"x": np.where(x == x[0, 0], np.nan, x), "y": y},
        "x has shape (0, 5)": {"x": x[:0], "y": y[:0]},
        "expected (90,), one label for each row": {"x": x, "y": y[1:]},
        "has 1 class, circle": {"x": x, "y": y[::3].repeat(3)},
        "must hold the arrays x and y; it holds x": {"x": x},
        "is not a class of the model: circle, été": {"x": x, "y": y, "x_test": x[:1], "y_test": np.array(["?"])},
        "y[0] is 0.5, not a class": {"x": x, "y": np.full(90, 0.5)},
    }
    for message, arrays_ in wrong.items():
        np.savez(tmp_path / "a.npz", **arrays_)
        line = refused(3, "train", "--data", tmp_path / "a.npz", *FAST, "--out", tmp_path / "new" / "run")
        assert message in line
        assert "a.npz" in line


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.npz", None, "gone.npz does not exist"),
        ("a.csv", b"1,2\n3", "line 2 has 1 cells, the lines before 2"),
        ("a.doc", b"1,2", "is none of npz, npy, CSV, Parquet and IDX"),
        ("a.npz", b"", "is not an npz file"),
        ("a.npz", b"PK\x03\x04 and then nothing", "is not an npz file"),
    ],
)
def test_files_that_are_no_data_are_refused(refused, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert message in refused(3, "train", "--data", tmp_path / name, *FAST, "--out", tmp_path / "new")


def test_a_pickle_runs_nothing(refused, arrays, tmp_path):
    sign = tmp_path / "sign"
    (tmp_path / "a.npz").write_bytes(live_pickle(sign))
    refused(3, "train", "--data", tmp_path / "a.npz", *FAST)
    np.savez(tmp_path / "a.npz", x=arrays["x"], y=np.array([Payload(sign)] * 90))
    assert "y holds pickled objects, which are refused" in refused(3, "train", "--data", tmp_path / "a.npz", *FAST)
    assert not sign.exists()


def test_an_empty_name_is_not_the_digits(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "holds no IDX images" in refused(3, "train", "--data", "", *FAST)


@pytest.mark.parametrize("inner", ["", "run", "run/deeper"])
def test_an_out_with_a_file_in_the_way_is_named_at_once(refused, data, tmp_path, inner):
    (tmp_path / "file").write_text("precious")
    line = refused(3, "train", "--data", data, *FAST, "--out", tmp_path / "file" / inner)
    assert re.search(r"--out .*file.* cannot be written: (File exists|Not a directory); choose another folder", line)


@pytest.mark.parametrize("name", ["model.safetensors", "history.json"])
def test_an_out_with_a_folder_of_a_files_name_is_named_at_once(refused, data, tmp_path, name):
    (tmp_path / "run" / name).mkdir(parents=True)
    line = refused(3, "train", "--data", data, *FAST, "--out", tmp_path / "run")
    assert f"cannot be written: it holds a folder named {name}" in line


def test_an_out_that_the_system_refuses_is_named_at_once(refused, data, tmp_path, monkeypatch):
    def read_only(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("gpu_nn.cli.run_folder.tempfile.TemporaryFile", read_only)
    line = refused(3, "train", "--data", data, *FAST, "--out", tmp_path / "new" / "run")
    assert f"--out {tmp_path / 'new' / 'run'} cannot be written: Read-only file system" in line


@pytest.mark.parametrize("full_after", [0, 1])
def test_a_disk_that_is_full_at_the_end_leaves_the_older_run(command, data, tmp_path, monkeypatch, full_after):
    command("train", "--data", data, *FAST, "--out", tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    writes = []
    real = os.fsync

    def full(file):
        writes.append(file)
        if len(writes) > full_after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    monkeypatch.setattr(files.os, "fsync", full)
    done = command("train", "--data", data, *FAST, "--hidden", 7, "--out", tmp_path)
    assert (done.code, done.out) == (3, "")
    assert "No space left on device" in done.err.splitlines()[-1]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_a_test_part_of_all_rows_is_refused(refused, data, tmp_path):
    line = refused(3, "train", "--data", data, *FAST, "--test-last", 90, "--out", tmp_path / "new")
    assert "has 90 rows; its test part cannot be the last 90: choose fewer" in line


# Divergence: code 5


@pytest.mark.parametrize("batch", [32, 1000])
def test_a_loss_that_is_not_finite_stops_training_with_its_step_and_leaves_nothing(command, data, tmp_path, batch):
    # With one batch of all rows only the test shows what the last step did.
    options = ("--lr", "1e30", "--epochs", 1, "--batch-size", batch, "--out", tmp_path / "new" / "run")
    done = command("train", "--data", data, *FAST, *options)
    assert (done.code, done.out) == (5, "")
    last = done.err.splitlines()[-1]
    assert re.fullmatch(r"gpu-nn train: the loss became (nan|inf) at step [12]; training stopped\. .*", last)
    assert "Warning" not in done.err
    assert os.listdir(tmp_path) == []
