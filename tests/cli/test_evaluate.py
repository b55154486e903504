import json
import re

import numpy as np
import pytest
from sklearn.metrics import classification_report

from gpu_nn import functional as F
from gpu_nn import load, save
from tests.cli.conftest import CLASSES
from tests.cuda_emulator.device import emulated_device

CPU = ("--device", "cpu")


def test_accuracy_and_loss_are_the_networks(command, model, data, arrays):
    result = json.loads(command("evaluate", model, "--data", data, *CPU, "--json").out)
    net = load(model, "cpu")
    logits = net.forward(arrays["x"])
    y = np.array([net.classes.index(name) for name in arrays["y"]])
    assert result["rows"] == 90
    assert result["accuracy"] == (logits.argmax(axis=1) == y).mean() > 0.8
    assert result["loss"] == pytest.approx(float(F.softmax_cross_entropy(logits, y, reduction="mean")), rel=1e-6)


def test_the_result_is_a_line_and_a_table_of_the_classes_and_stderr_is_empty(command, model, data):
    done = command("evaluate", model, "--data", data, *CPU)
    assert done.err == ""
    first, empty, head, *rows = done.out.splitlines()
    assert re.fullmatch(r"accuracy \d+\.\d\d % on 90 rows, loss \S+", first)
    assert (empty, head.split()) == ("", ["class", "precision", "recall", "f1", "rows"])
    assert [row.rsplit("%", 3)[-1].strip() for row in rows] == ["30", "30", "30", "90"]
    assert [row[: len(name)] for row, name in zip(rows, CLASSES, strict=False)] == CLASSES


def test_the_scores_of_each_class_are_those_of_scikit_learns_report(command, model, data, arrays):
    result = json.loads(command("evaluate", model, "--data", data, *CPU, "--json").out)
    net = load(model, "cpu")
    predicted = np.array(net.classes)[net.predict(arrays["x"])]
    report = classification_report(arrays["y"], predicted, output_dict=True)
    assert [row["class"] for row in result["classes"]] == CLASSES
    for row in result["classes"]:
        theirs = report[row["class"]]
        assert row["support"] == theirs["support"] == 30
        ours = (row["precision"], row["recall"], row["f1"])
        assert ours == pytest.approx((theirs["precision"], theirs["recall"], theirs["f1-score"]))
    mean = report["macro avg"]
    assert result["class_mean"] == pytest.approx(
        {"precision": mean["precision"], "recall": mean["recall"], "f1": mean["f1-score"]}
    )


def test_a_class_that_is_not_there_has_no_recall(command, model, arrays, tmp_path):
    one = arrays["y"] == CLASSES[1]
    np.savez(tmp_path / "a.npz", x=arrays["x"][one], y=arrays["y"][one])
    done = command("evaluate", model, "--data", tmp_path / "a.npz", *CPU, "--json")
    classes = {row["class"]: row for row in json.loads(done.out)["classes"]}
    assert [classes[name]["support"] for name in CLASSES] == [0, 30, 0]
    assert [classes[name]["recall"] for name in (CLASSES[0], CLASSES[2])] == [None, None]
    assert json.loads(done.out)["class_mean"]["recall"] == classes[CLASSES[1]]["recall"] > 0
    assert "NaN" not in done.out
    text = command("evaluate", model, "--data", tmp_path / "a.npz", *CPU).out
    assert text.splitlines()[3].split()[2:] in (["–", "0"], ["–", "0.00", "%", "0"], ["–", "–", "0"])


def test_the_order_and_number_of_classes_in_the_data_do_not_matter(command, model, arrays, tmp_path):
    one = arrays["y"] == CLASSES[2]
    np.savez(tmp_path / "a.npz", x=arrays["x"][one], y=arrays["y"][one])
    result = json.loads(command("evaluate", model, "--data", tmp_path / "a.npz", *CPU, "--json").out)
    assert (result["rows"], result["accuracy"] > 0.7) == (30, True)


def test_a_test_part_is_what_is_evaluated(command, model, arrays, tmp_path):
    part = {"x_test": arrays["x"][:7], "y_test": arrays["y"][:7]}
    np.savez(tmp_path / "a.npz", **arrays, **part)
    assert json.loads(command("evaluate", model, "--data", tmp_path / "a.npz", *CPU, "--json").out)["rows"] == 7


def test_a_model_without_names_takes_the_numbers_of_the_classes(command, model, arrays, tmp_path):
    net = load(model, "cpu")
    y = np.array([net.classes.index(name) for name in arrays["y"]])
    net.classes = None
    save(net, tmp_path / "m")
    np.savez(tmp_path / "a.npz", x=arrays["x"], y=y)
    named = command("evaluate", model, "--data", tmp_path / "a.npz", *CPU)
    assert named.code == 3
    assert (
        json.loads(command("evaluate", tmp_path / "m", "--data", tmp_path / "a.npz", *CPU, "--json").out)["rows"] == 90
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.ones((90, 4))}, "a.npz has 4 columns; the model was trained on 5"),
        ({"y": np.arange(90)}, "label 0 at row 0 is not a class of the model: circle, été, 日本, 東京"),
        ({"x": np.full((90, 5), np.inf)}, "x[0, 0] is inf; expected finite numbers"),
        ({"x": np.ones((0, 5)), "y": np.ones(0)}, "x has shape (0, 5)"),
    ],
)
def test_data_that_do_not_fit_the_model_are_refused(refused, model, arrays, tmp_path, change, message):
    np.savez(tmp_path / "a.npz", **{**arrays, **change})
    assert message in refused(3, "evaluate", model, "--data", tmp_path / "a.npz", *CPU)


def test_a_file_that_is_no_model_is_refused(refused, data, tmp_path):
    assert "gone does not exist" in refused(3, "evaluate", tmp_path / "gone", "--data", data, *CPU)
    assert "is not a whole safetensors file" in refused(3, "evaluate", data, "--data", data, *CPU)
    assert "is a folder; expected a file" in refused(3, "evaluate", tmp_path, "--data", data, *CPU)


def test_a_loss_that_is_not_finite_is_no_result(refused, model, arrays, tmp_path):
    net = load(model, "cpu")
    net.state["0.scale"][...] = 1e38
    save(net, tmp_path / "m")
    np.savez(tmp_path / "a.npz", x=arrays["x"] * 1e20, y=arrays["y"])
    line = refused(3, "evaluate", tmp_path / "m", "--data", tmp_path / "a.npz", *CPU, "--json")
    assert "too large numbers for float32" in line


def test_cuda_without_a_gpu_is_code_4_and_an_unknown_device_2(refused, no_gpu, model, data):
    assert "device='cuda', but" in refused(4, "evaluate", model, "--data", data, "--device", "cuda")
    assert "Did you mean 'cpu'?" in refused(2, "evaluate", model, "--data", data, "--device", "cpuu")


def test_a_gpu_gives_the_same_scores(command, model, data):
    on_cpu = json.loads(command("evaluate", model, "--data", data, *CPU, "--json").out)
    with emulated_device():
        on_gpu = json.loads(command("evaluate", model, "--data", data, "--device", "cuda", "--json").out)
    assert on_gpu.pop("loss") == pytest.approx(on_cpu.pop("loss"), rel=1e-6)
    assert on_gpu == on_cpu
