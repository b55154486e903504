"""gpu-nn evaluate and predict on data that are streamed: what they say of data in memory, byte for byte."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from gpu_nn import Network, load, save
from gpu_nn.cli import evaluate_predict, input_data
from gpu_nn.data import datasets
from gpu_nn.network import INFERENCE_ROWS
from tests.cli.conftest import CLASSES, N_INPUTS

ROOT = Path(__file__).parents[2]
CPU = ("--device", "cpu")
ROWS = 2 * INFERENCE_ROWS + 1003


@pytest.fixture(scope="module")
def x_and_y():
    random = np.random.default_rng(1)
    places = random.integers(3, size=ROWS)
    return random.normal(size=(ROWS, N_INPUTS)) + 3 * np.eye(3, N_INPUTS)[places], np.array(CLASSES)[places]


@pytest.fixture(params=["npy", "npy column", "parquet"])
def large(request, x_and_y, tmp_path, model):
    """A model, and data of many rows, as arguments of the command; labels beside them where they are a file."""
    x, y = x_and_y
    if request.param == "npy":
        np.save(tmp_path / "x.npy", x)
        np.save(tmp_path / "y.npy", y)
        return model, ("--data", tmp_path / "x.npy"), ("--target", tmp_path / "y.npy")
    if request.param == "npy column":
        net = load(model, "cpu")
        net.classes = [30, 10, 20]  # in no order
        save(net, tmp_path / "numbers")
        numbers = np.array(net.classes)[[CLASSES.index(name) for name in y]]
        np.save(tmp_path / "x.npy", np.insert(x, 2, numbers, axis=1))
        return tmp_path / "numbers", ("--data", tmp_path / "x.npy", "--target", "2"), ()
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {f"c{i}": x[:, i] for i in range(N_INPUTS)} | {"shape": y}
    parquet.write_table(arrow.table(columns), tmp_path / "t.parquet", row_group_size=1501)
    return model, ("--data", tmp_path / "t.parquet", "--target", "shape"), ()


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Data are met in several pieces."""
    monkeypatch.setattr(input_data, "_BATCH_BYTES", INFERENCE_ROWS * 4 * (N_INPUTS + len(CLASSES)))
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "gpu_nn prefetcher"]


@pytest.fixture
def both(command, monkeypatch):
    """Runs the command on data in memory and streamed, which reads nothing as a whole; what each said."""

    def refuse(*_, **__):
        raise AssertionError

    def both(*arguments, then=lambda done: done.out):
        found = []
        for flags in (("--stream", "never"), ("--stream",)):
            with monkeypatch.context() as patch:
                if flags == ("--stream",):
                    patch.setattr(input_data, "read_labelled", refuse)
                    patch.setattr(input_data, "read_inputs", refuse)
                done = command(*arguments, *CPU, *flags)
            assert (done.code, done.err) == (0, "")
            found.append(then(done))
        return found

    return both


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_evaluation_is_the_same(both, large, flags):
    model, data, labels = large
    in_memory, streamed = both("evaluate", model, *data, *labels, *flags)
    assert streamed == in_memory
    assert streamed.count(str(ROWS)) == (1 if flags else 2)


@pytest.mark.parametrize("flags", [(), ("--proba",), ("--json",), ("--json", "--proba")])
def test_predictions_on_stdout_are_the_same(both, large, flags):
    model, data, _ = large
    in_memory, streamed = both("predict", model, *data, *flags)
    assert streamed == in_memory
    if "--json" in flags:
        assert len(json.loads(streamed)["probabilities" if "--proba" in flags else "predictions"]) == ROWS
    else:
        assert streamed.count("\n") == ROWS + ("--proba" in flags)


@pytest.mark.parametrize("suffix", ["csv", "npy", "parquet"])
@pytest.mark.parametrize("proba", [(), ("--proba",)])
def test_files_of_predictions_are_the_same(both, large, monkeypatch, tmp_path, suffix, proba):
    model, data, _ = large
    out = tmp_path / f"out.{suffix}"
    monkeypatch.setattr(evaluate_predict, "_ROW_GROUP_VALUES", INFERENCE_ROWS)
    in_memory, streamed = both(
        "predict", model, *data, *proba, "--out", out, "--json", then=lambda done: (done.out, out.read_bytes())
    )
    assert streamed == in_memory
    assert json.loads(streamed[0])["rows"] == ROWS


@pytest.mark.parametrize("proba", [False, True])
def test_an_npy_file_has_the_bytes_that_numpy_saves(command, model, x_and_y, tmp_path, proba):
    np.save(tmp_path / "x.npy", x_and_y[0])
    flags = ("--stream", *CPU, "--out", tmp_path / "out.npy")
    command("predict", model, "--data", tmp_path / "x.npy", *(["--proba"] if proba else []), *flags)
    net = load(model, "cpu")
    found = net.predict_proba(x_and_y[0]) if proba else np.array(net.classes)[net.predict(x_and_y[0])]
    np.save(tmp_path / "expected.npy", found)
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()


def test_a_parquet_file_has_all_rows_in_row_groups_of_many(command, model, x_and_y, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    np.save(tmp_path / "x.npy", x_and_y[0])
    monkeypatch.setattr(evaluate_predict, "_ROW_GROUP_VALUES", len(CLASSES) * 3000)
    flags = ("--stream", *CPU, "--proba", "--out", tmp_path / "out.parquet")
    command("predict", model, "--data", tmp_path / "x.npy", *flags)
    written = parquet.ParquetFile(tmp_path / "out.parquet")
    assert [written.metadata.row_group(i).num_rows for i in range(2)] == [2 * INFERENCE_ROWS, 1003]
    expected = load(model, "cpu").predict_proba(x_and_y[0])
    np.testing.assert_array_equal(written.read().to_pandas().to_numpy(), expected)


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_data_that_would_fill_the_memory_are_streamed_without_being_asked(command, large, monkeypatch, verb):
    model, data, labels = large
    labels = labels if verb == "evaluate" else ()
    expected = command(verb, model, *data, *labels, *CPU)
    monkeypatch.setattr(datasets, "available_bytes", lambda: 100_000)
    for name in ("read_labelled", "read_inputs"):
        monkeypatch.setattr(input_data, name, None)
    assert command(verb, model, *data, *labels, *CPU) == expected


def test_what_cannot_be_streamed_is_named(refused, model, data, arrays, tmp_path):
    for verb in ("evaluate", "predict"):
        assert "is npz; npy and Parquet files can be streamed" in refused(
            3, verb, model, "--data", data, "--stream", *CPU
        )
    np.save(tmp_path / "x.npy", arrays["x"][:, :4])
    np.save(tmp_path / "y.npy", arrays["y"])
    given = ("--data", tmp_path / "x.npy", "--stream", *CPU)
    assert "has 4 columns; the model was trained on 5" in refused(3, "predict", model, *given)
    labels = ("--target", tmp_path / "y.npy")
    assert "has 4 columns; the model was trained on 5" in refused(3, "evaluate", model, *given, *labels)
    assert "holds one array, without labels" in refused(3, "evaluate", model, *given)
    assert "argument --stream: 'alway' is not one of" in refused(2, "predict", model, *given, "--stream", "alway")


def test_a_row_far_in_that_has_no_prediction_leaves_nothing_written(refused, model, tmp_path):
    net = load(model, "cpu")
    net.state["0.scale"][...], net.state["0.shift"][...] = 1e20, 0
    save(net, tmp_path / "steep")
    x = np.zeros((ROWS, N_INPUTS))
    for value, said in ((np.nan, f"x[{ROWS - 7}, 3] is nan; expected finite numbers"), (1e20, f"row {ROWS - 7} of")):
        x[ROWS - 7, 3] = value
        np.save(tmp_path / "x.npy", x)
        given = ("predict", tmp_path / "steep", "--data", tmp_path / "x.npy", "--stream", *CPU)
        for out in ((), ("--json",), ("--out", tmp_path / "out.csv"), ("--out", tmp_path / "out.parquet")):
            assert said in refused(3, *given, *out)


def test_a_label_far_in_that_is_no_class_is_named(refused, model, x_and_y, tmp_path):
    x, y = x_and_y
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.where(np.arange(ROWS) == ROWS - 7, "square", y))
    given = ("--data", tmp_path / "x.npy", "--target", tmp_path / "y.npy", "--stream", *CPU)
    assert "label square at row" in refused(3, "evaluate", model, *given)


MOST_MEMORY = """
import resource, sys
from gpu_nn.cli import main
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert main(sys.argv[1:]) == 0
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, file=sys.stderr)
"""


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_memory_is_that_of_a_few_pieces(tmp_path, verb):
    pytest.importorskip("resource")
    rows, columns = 100_000, 1000
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (rows, columns))
    x[::100] = 1
    del x
    np.save(tmp_path / "y.npy", np.arange(rows) % 3)
    save(Network([columns, 3], device="cpu"), tmp_path / "model")
    labels = ["--target", "y.npy"] if verb == "evaluate" else ["--proba", "--out", "out.csv"]
    done = subprocess.run(
        [sys.executable, "-c", MOST_MEMORY, verb, "model", "--data", "x.npy", *labels, *CPU, "--stream"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # In MiB, of 380.
    assert int(done.stderr) < 190
