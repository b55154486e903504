import csv
import io
import json
import os
import sys

import numpy as np
import pandas
import pytest

from gpu_nn import MLPClassifier, Network, load, save
from gpu_nn.cli import main
from tests.cli.conftest import CLASSES
from tests.data.files import idx_bytes, live_pickle

CPU = ("--device", "cpu")


def names_in(text):
    return [name for (name,) in csv.reader(io.StringIO(text))]


def test_each_row_has_the_name_of_its_class_on_a_line(command, model, data, arrays):
    done = command("predict", model, "--data", data, *CPU)
    net = load(model, "cpu")
    assert done.err == ""
    named = names_in(done.out)
    assert named == [net.classes[i] for i in net.predict(arrays["x"])]
    assert set(named) == set(CLASSES)
    assert set(done.out.splitlines()) == {"circle", "été", '"日本, 東京"'}


def read_back(path):
    """The numbers in a file of predictions, (rows, classes)."""
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
        return pandas.read_parquet(path).to_numpy()
    return np.loadtxt(path, delimiter=",", skiprows=1)


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".parquet"])
@pytest.mark.parametrize("proba", [(), ("--proba",)], ids=["flags", "proba"])
def test_several_labels_a_row_are_flags_or_probabilities_of_each(command, refused, tmp_path, suffix, proba):
    x = np.random.default_rng(0).normal(size=(80, 5)).astype(np.float32)
    y = np.stack([x[:, 0] > 0, x[:, 1] > 0, x[:, 0] + x[:, 2] > 1], 1).astype(int)
    classifier = MLPClassifier((8,), learning_rate_init=0.03, tol=10, n_iter_no_change=40, random_state=0, device="cpu")
    classifier.fit(x, y)
    save(classifier.net_, tmp_path / "m")
    np.save(tmp_path / "x.npy", x)
    arguments = ("predict", tmp_path / "m", "--data", tmp_path / "x.npy", *proba, *CPU)
    out = tmp_path / f"out{suffix}"
    assert command(*arguments, "--out", out).code == 0
    expected = classifier.predict_proba(x) if proba else classifier.predict(x)
    assert proba or 0 < expected.mean() < 1
    np.testing.assert_allclose(read_back(out), expected, rtol=1e-6)
    result = json.loads(command(*arguments, "--json").out)
    assert result["classes"] == [0, 1, 2]
    np.testing.assert_allclose(result["probabilities" if proba else "predictions"], expected, rtol=1e-6)
    np.save(tmp_path / "y.npy", y[:, 0])
    wanted = ("evaluate", tmp_path / "m", "--data", tmp_path / "x.npy", "--target", tmp_path / "y.npy", *CPU)
    assert "gives several labels a row; evaluate counts rows of one label" in refused(3, *wanted)


NAMES = ["plain", "a, b", 'the "best"', "two\nlines", "a\rb", " blank ", "'", ""]


@pytest.mark.parametrize("proba", [(), ("--proba",)], ids=["classes", "proba"])
def test_csv_gives_any_name_back_and_leaves_a_plain_one_as_it_is(command, arrays, tmp_path, proba):
    net = Network([5, len(NAMES)], device="cpu")
    net.classes = NAMES
    net.parameters["0.weight"][...] = 20 * np.eye(5, len(NAMES))
    save(net, tmp_path / "m")
    np.savez(tmp_path / "a.npz", x=np.eye(5))
    command("predict", tmp_path / "m", "--data", tmp_path / "a.npz", *proba, *CPU, "--out", tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        text = file.read()
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read[0] == NAMES if proba else read == [[name] for name in NAMES[:5]]
    assert text.startswith("plain," if proba else "plain\n")


@pytest.mark.parametrize(
    ("verb", "options", "hint"),
    [
        ("predict", (), "--out FILE.csv is in UTF-8, and PYTHONIOENCODING=utf-8 lets it through"),
        ("predict", ("--proba",), "--out FILE.csv is in UTF-8, and"),
        ("evaluate", (), "PYTHONIOENCODING=utf-8 lets it through"),
        ("info", (), "PYTHONIOENCODING=utf-8 lets it through"),
    ],
)
def test_letters_that_stdout_does_not_have_are_one_line_with_the_hint(
    model, data, monkeypatch, capsys, verb, options, hint
):
    content = io.BytesIO()
    stdout = io.TextIOWrapper(content, "ascii")
    arguments = (verb, model) if verb == "info" else (verb, model, "--data", data, *options, *CPU)
    with monkeypatch.context() as changed:
        changed.setattr(sys, "stdout", stdout)
        code = main([*map(str, arguments)])
    err = capsys.readouterr().err
    assert (code, content.getvalue(), err.count("\n")) == (3, b"", 1)
    assert err.startswith(f"gpu-nn {verb}: stdout is in ascii, which does not have 'é': ")
    assert hint in err


def test_half_a_letter_of_a_name_is_one_line_with_the_hint(command, model, data, tmp_path):
    net = load(model, "cpu")
    net.classes = ["a", "b", "\udc80"]
    save(net, tmp_path / "m")
    done = command("predict", tmp_path / "m", "--data", data, *CPU)
    assert (done.code, done.out) == (3, "")
    assert "stdout is in utf-8, which does not have '\\udc80'" in done.err.lower()
    assert "PYTHONIOENCODING=utf-8:backslashreplace lets it through" in done.err


def test_probabilities_are_csv_with_the_classes_on_top(command, model, data, arrays):
    done = command("predict", model, "--data", data, "--proba", *CPU)
    rows = list(csv.reader(io.StringIO(done.out)))
    assert rows[0] == CLASSES
    # Nine digits are all of a float32.
    np.testing.assert_array_equal(np.array(rows[1:], np.float32), load(model, "cpu").predict_proba(arrays["x"]))


def test_a_model_without_names_gives_numbers(command, model, data, arrays, tmp_path):
    net = load(model, "cpu")
    net.classes = None
    save(net, tmp_path / "m")
    done = command("predict", tmp_path / "m", "--data", data, *CPU)
    assert [int(line) for line in done.out.splitlines()] == net.predict(arrays["x"]).tolist()


@pytest.mark.parametrize("proba", [(), ("--proba",)])
def test_a_csv_file_holds_what_stdout_would(command, model, data, tmp_path, proba):
    shown = command("predict", model, "--data", data, *proba, *CPU).out
    done = command("predict", model, "--data", data, *proba, *CPU, "--out", tmp_path / "a.csv")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert (tmp_path / "a.csv").read_text("utf-8") == shown


def test_an_npy_file_holds_the_arrays(command, model, data, arrays, tmp_path):
    net = load(model, "cpu")
    command("predict", model, "--data", data, "--proba", *CPU, "--out", tmp_path / "p.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), net.predict_proba(arrays["x"]))
    command("predict", model, "--data", data, *CPU, "--out", tmp_path / "c.npy")
    assert np.load(tmp_path / "c.npy").tolist() == [net.classes[i] for i in net.predict(arrays["x"])]


def test_images_are_predicted_without_labels(command, model, arrays, tmp_path):
    images = arrays["x"].astype(np.float32)
    (tmp_path / "a-images-idx2").write_bytes(idx_bytes(images))
    one = command("predict", model, "--data", tmp_path / "a-images-idx2", *CPU)
    assert names_in(one.out) == [load(model, "cpu").classes[i] for i in load(model, "cpu").predict(images)]
    assert command("predict", model, "--data", tmp_path, *CPU).out == one.out


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((3, 4)), "has 4 columns; the model was trained on 5"),
        (np.ones((0, 5)), "x has shape (0, 5); expected rows of inputs, at least one"),
        (np.ones(5), "x has shape (5,)"),
        (np.full((3, 5), np.nan), "x[0, 0] is nan; expected finite numbers"),
        (np.full((3, 5), "a"), "expected numbers"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(refused, model, tmp_path, x, message):
    np.savez(tmp_path / "a.npz", x=x)
    assert message in refused(3, "predict", model, "--data", tmp_path / "a.npz", *CPU, "--out", tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone", None, "gone does not exist"),
        ("gone.npz", None, "gone.npz does not exist"),
        ("a.png", b"\x89PNG\r\n", "is none of npz, npy, CSV, Parquet and IDX: it begins with 89 50 4e 47"),
        ("a", b"", "is none of npz, npy, CSV, Parquet and IDX: it is empty"),
        ("a", idx_bytes(np.ones((3, 5), np.uint8))[:-1], "says 3×5, 15 bytes, but holds 14; it is not whole"),
        ("a", idx_bytes(np.ones((3, 5), np.uint8), (2**32 - 1, 2**32 - 1)), "cannot hold more than"),
        ("a.npz", b"PK", "is not an npz file"),
    ],
)
def test_files_that_are_no_inputs_are_refused(refused, model, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert message in refused(3, "predict", model, "--data", tmp_path / name, *CPU)


def test_a_pickle_is_neither_model_nor_data(refused, model, data, tmp_path):
    sign = tmp_path / "sign"
    (tmp_path / "a").write_bytes(live_pickle(sign))
    (tmp_path / "a.npz").write_bytes(live_pickle(sign))
    refused(3, "predict", tmp_path / "a", "--data", data, *CPU)
    refused(3, "predict", model, "--data", tmp_path / "a", *CPU)
    refused(3, "predict", model, "--data", tmp_path / "a.npz", *CPU)
    assert not sign.exists()


def test_a_row_without_a_finite_score_is_named_and_not_guessed(refused, model, arrays, tmp_path):
    net = load(model, "cpu")
    net.state["0.scale"][...] = 1e38
    save(net, tmp_path / "m")
    x = arrays["x"].copy()
    x[:] = net.state["0.shift"]
    x[4] = 1e20
    np.savez(tmp_path / "a.npz", x=x)
    for proba in ((), ("--proba",)):
        line = refused(3, "predict", tmp_path / "m", "--data", tmp_path / "a.npz", *proba, *CPU)
        assert "row 4 of" in line


def test_an_out_that_cannot_be_written_is_named(refused, model, data, tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "a.npy").mkdir()
    for out, reason in (("file/a.csv", "Not a directory"), ("a.npy", "Is a directory"), ("gone/a.csv", "No such file")):
        line = refused(3, "predict", model, "--data", data, *CPU, "--out", tmp_path / out)
        assert f"cannot write {tmp_path / out}: {reason}" in line


def test_a_write_that_stops_half_way_leaves_the_old_file(command, model, data, tmp_path, monkeypatch):
    command("predict", model, "--data", data, *CPU, "--out", tmp_path / "a.csv")
    before = (tmp_path / "a.csv").read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpu_nn.files.os.fsync", full)
    done = command("predict", model, "--data", data, "--proba", *CPU, "--out", tmp_path / "a.csv")
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert (tmp_path / "a.csv").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.csv"]


def test_an_out_of_another_kind_is_wrong_usage(refused, model, data, tmp_path):
    line = refused(2, "predict", model, "--data", data, *CPU, "--out", tmp_path / "a.txt")
    assert "argument --out: " in line
    assert "expected a name that ends in .csv or .npy or .parquet" in line


def test_cuda_without_a_gpu_is_code_4(refused, no_gpu, model, data):
    assert "device='cuda', but" in refused(4, "predict", model, "--data", data, "--device", "cuda")


def test_a_parquet_file_holds_the_classes(command, model, data, arrays, tmp_path):
    done = command("predict", model, "--data", data, *CPU, "--out", tmp_path / "c.parquet")
    assert (done.code, done.out, done.err) == (0, "", "")
    net = load(model, "cpu")
    assert pandas.read_parquet(tmp_path / "c.parquet").to_dict("list") == {
        "class": [net.classes[i] for i in net.predict(arrays["x"])]
    }


def test_a_parquet_file_holds_a_column_of_probabilities_for_each_class(command, model, data, arrays, tmp_path):
    command("predict", model, "--data", data, "--proba", *CPU, "--out", tmp_path / "p.parquet")
    frame = pandas.read_parquet(tmp_path / "p.parquet")
    assert list(frame.columns) == CLASSES
    assert set(frame.dtypes) == {np.dtype(np.float32)}
    np.testing.assert_array_equal(frame.to_numpy(), load(model, "cpu").predict_proba(arrays["x"]))


def test_classes_that_are_numbers_are_numbers_in_parquet(command, model, data, arrays, tmp_path):
    net = load(model, "cpu")
    net.classes = [7, 8, 9]
    save(net, tmp_path / "m")
    command("predict", tmp_path / "m", "--data", data, *CPU, "--out", tmp_path / "c.parquet")
    frame = pandas.read_parquet(tmp_path / "c.parquet")
    assert frame["class"].dtype == np.int64
    assert frame["class"].tolist() == [net.classes[i] for i in net.predict(arrays["x"])]
    command("predict", tmp_path / "m", "--data", data, "--proba", *CPU, "--out", tmp_path / "p.parquet")
    assert list(pandas.read_parquet(tmp_path / "p.parquet").columns) == ["7", "8", "9"]


def test_parquet_without_pyarrow_is_one_line_with_its_hint(refused, model, data, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    line = refused(2, "predict", model, "--data", data, *CPU, "--out", tmp_path / "c.parquet")
    assert "--out FILE.parquet needs pyarrow: pip install 'gpu_nn[parquet]'" in line


@pytest.mark.parametrize("suffix", ["csv", "npy", "parquet"])
def test_a_disk_that_is_full_leaves_the_old_file_of_any_format(process, model, data, tmp_path, suffix):
    resource = pytest.importorskip("resource")
    out = tmp_path / f"a.{suffix}"
    out.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        running = process("predict", model, "--data", data, "--proba", *CPU, "--out", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert running.stderr.read() == f"gpu-nn predict: cannot write {out}: File too large\n"
    assert running.wait(30) == 3
    assert out.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [out.name]


def test_json_has_the_classes_and_what_was_asked_for(command, model, data, arrays, tmp_path):
    net = load(model, "cpu")
    found = json.loads(command("predict", model, "--data", data, *CPU, "--json").out)
    assert found == {"classes": CLASSES, "predictions": [net.classes[i] for i in net.predict(arrays["x"])]}
    found = json.loads(command("predict", model, "--data", data, "--proba", *CPU, "--json").out)
    assert found["classes"] == CLASSES
    np.testing.assert_array_equal(np.float32(found["probabilities"]), net.predict_proba(arrays["x"]))
    done = command("predict", model, "--data", data, *CPU, "--json", "--out", tmp_path / "a.csv")
    assert json.loads(done.out) == {"file": str(tmp_path / "a.csv"), "rows": 90}
