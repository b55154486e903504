"""gpu-nn train --stream: data larger than memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpu_nn import load
from gpu_nn.data import StreamDataset, datasets, digits

CPU = ("--device", "cpu")
SETTINGS = ("--hidden", "8", "--epochs", "6", "--lr", "0.02", "--device", "cpu", "--seed", "3")
NAMES = np.array(["circle", "été", "日本"])


@pytest.fixture(scope="module")
def x_and_y():
    random = np.random.default_rng(0)
    y = np.arange(1200) % 3
    return (50 + 7 * (random.normal(size=(1200, 4)) + 3 * np.eye(3, 4)[y])).astype(np.float32), NAMES[y]


@pytest.fixture
def files(tmp_path, x_and_y):
    np.save(tmp_path / "x.npy", x_and_y[0])
    np.save(tmp_path / "y.npy", x_and_y[1])
    return "--data", tmp_path / "x.npy", "--target", tmp_path / "y.npy"


@pytest.fixture
def table(tmp_path, x_and_y):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {f"c{i}": x_and_y[0][:, i] for i in range(4)} | {"shape": x_and_y[1]}
    parquet.write_table(arrow.table(columns), tmp_path / "t.parquet", row_group_size=500)
    return "--data", tmp_path / "t.parquet", "--target", "shape"


@pytest.mark.parametrize("source", ["files", "table"])
def test_it_learns_and_keeps_classes_and_standardisation(command, tmp_path, x_and_y, source, request):
    data = request.getfixturevalue(source)
    out = tmp_path / "run"
    done = command("train", *data, *SETTINGS, "--stream", "--validation-fraction", "0.1", "--out", out, "--json")
    assert done.code == 0, done.err
    assert "(streamed)" in done.err
    result = json.loads(done.out)
    assert result["test_accuracy"] > 0.95
    assert abs(result["test_rows"] - 240) <= 20
    assert all(record["validation_loss"] is not None for record in result["history"])
    net = load(out / "model.safetensors", "cpu")
    assert net.classes == NAMES.tolist()
    x = x_and_y[0].astype(np.float64)
    np.testing.assert_allclose(net.state["0.shift"], x.mean(0), rtol=0.02)
    np.testing.assert_allclose(1 / net.state["0.scale"], x.std(0), rtol=0.05)
    assert 'stream = "always"' in (out / "config.toml").read_text()


def test_a_sorted_file_of_one_row_group_learns_as_its_npy_does(command, tmp_path, monkeypatch):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    # A twelfth of the rows.
    monkeypatch.setattr(sys.modules[StreamDataset.__module__], "_WINDOW_BYTES", 4 * 64 * 150)
    x, y = digits()
    order = np.argsort(y, kind="stable")
    x, y = x[order], y[order]
    parquet.write_table(arrow.table({f"c{i}": x[:, i] for i in range(64)} | {"y": y}), tmp_path / "t.parquet")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    found = []
    for data in (("t.parquet",), ("x.npy", "--target", tmp_path / "y.npy")):
        given = ("--data", tmp_path / data[0], *data[1:], "--hidden", "32", "--epochs", "6", "--lr", "0.01", *CPU)
        found.append(json.loads(command("train", *given, "--stream", "--json").out)["test_accuracy"])
    assert min(found) > 0.9, found


def test_a_run_resumes_to_the_same_bits(command, tmp_path, files):
    every = ("--checkpoint-every", "7steps")
    assert command("train", *files, *SETTINGS, "--stream", *every, "--out", tmp_path / "whole").code == 0

    def broken(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpu_nn.training.EarlyStopping.__call__", broken, raising=False)
        options = ("--early-stopping", "3", *every, "--out", tmp_path / "broken")
        assert command("train", *files, *SETTINGS, "--stream", *options).code == 130
    whole = command("train", *files, *SETTINGS, "--stream", "--early-stopping", "3", "--out", tmp_path / "same")
    assert whole.code == 0, whole.err
    assert command("train", "--resume", tmp_path / "broken").code == 0
    one, other = (load(tmp_path / name / "model.safetensors", "cpu") for name in ("same", "broken"))
    np.testing.assert_array_equal(one.flat_parameters, other.flat_parameters)


def test_a_set_over_half_of_the_free_memory_is_streamed(command, files, monkeypatch):
    for free, streamed in ((50_000, True), (10**12, False)):
        monkeypatch.setattr(datasets, "available_bytes", lambda free=free: free)
        done = command("train", *files, *SETTINGS)
        assert done.code == 0, done.err
        assert ("(streamed)" in done.err) == streamed
    done = command("train", *files, *SETTINGS, "--stream", "never")
    assert "(streamed)" not in done.err


def test_the_last_rows_are_tested_on(command, files):
    done = command("train", *files, *SETTINGS, "--stream", "--test-last", "77", "--json")
    assert json.loads(done.out)["test_rows"] == 77


def test_a_dry_run_counts_the_rows(command, files):
    done = command("train", *files, *SETTINGS, "--stream", "--dry-run", "--json")
    assert sum(json.loads(done.out)["rows"].values()) == 1200


def test_what_cannot_be_streamed_is_refused(refused, tmp_path, files, x_and_y):
    np.savez(tmp_path / "x.npz", x=x_and_y[0], y=x_and_y[1])
    assert "npy and Parquet files can be streamed" in refused(3, "train", "--data", tmp_path / "x.npz", "--stream")
    assert "--stream needs --data" in refused(2, "train", "--stream")
    x = x_and_y[0].copy()
    x[700, 1] = np.inf
    np.save(tmp_path / "x.npy", x)
    assert "x[700, 1] is inf" in refused(3, "train", *files, "--stream")
    np.save(tmp_path / "x.npy", x_and_y[0])
    np.save(tmp_path / "y.npy", np.zeros(1200, int))
    assert "has 1 class, 0" in refused(3, "train", *files, "--stream")


MOST_MEMORY = """
import sys
from gpu_nn.cli import main

def said(name):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

quick = ["--device", "cpu", "--epochs", "1", "--hidden", "4", "--batch-size", "4096", "--validation-fraction", "0.1"]
import pyarrow.parquet
assert main(["train", *quick]) == 0
# Lets the most that was resident be what is.
open("/proc/self/clear_refs", "w").write("5")
before = said("VmRSS")
assert main(["train", *quick, "--stream", "never", *sys.argv[1:]]) == 0
print(said("VmHWM") - before, file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the memory")
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_what_a_set_would_take_in_memory_is_what_it_takes(tmp_path, monkeypatch, dtype, suffix):
    x = (40 * np.random.default_rng(0).random((200_000, 50))).astype(dtype)
    y, path, target = np.arange(len(x)) % 3, tmp_path / f"x.{suffix}", tmp_path / "y.npy"
    if suffix == "npy":
        np.save(path, x)
        np.save(target, y)
    else:
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        target = "label"
        parquet.write_table(arrow.table({f"c{i}": x[:, i] for i in range(50)} | {target: y}), path)
    command = [sys.executable, "-c", MOST_MEMORY, "--data", path, "--target", target]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    taken = int(done.stderr.splitlines()[-1])
    for free, large in ((1.4 * taken, True), (3.2 * taken, False)):
        monkeypatch.setattr(datasets, "available_bytes", lambda free=free: free)
        assert datasets.is_large(str(path), str(target), to_train=True) == large, taken
