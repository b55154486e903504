import csv
import io
import os
import sys

import numpy as np
import pytest

from gpu_nn import load, save
from tests.cli.conftest import CLASSES
from tests.data.files import live_pickle


def test_an_onnx_file_gives_the_predictions_of_the_command(command, model, data, arrays, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    done = command("export", model, "--to", tmp_path / "a.onnx")
    assert (done.code, done.out, done.err) == (0, "", "")
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    label, p = session.run(["label", "probabilities"], {"x": arrays["x"].astype(np.float32)})
    predicted = command("predict", model, "--data", data, "--device", "cpu").out
    assert [name for (name,) in csv.reader(io.StringIO(predicted))] == label.tolist()
    np.testing.assert_allclose(p, load(model, "cpu").predict_proba(arrays["x"]), rtol=0, atol=1e-6)


def test_an_npz_file_holds_all_arrays_and_the_classes(command, model, arrays, tmp_path):
    done = command("export", model, "--to", tmp_path / "a.npz")
    assert (done.code, done.out, done.err) == (0, "", "")
    net = load(model, "cpu")
    with np.load(tmp_path / "a.npz") as stored:
        assert stored["classes"].tolist() == net.classes == CLASSES
        for name, array in {**net.parameters, **net.state}.items():
            np.testing.assert_array_equal(stored[name], array)
        hidden = np.maximum((arrays["x"] - stored["0.shift"]) * stored["0.scale"] @ stored["1.weight"], 0)
        assert hidden.shape == (90, 8)
    net.classes = None
    save(net, tmp_path / "m")
    command("export", tmp_path / "m", "--to", tmp_path / "b.npz")
    assert "classes" not in np.load(tmp_path / "b.npz")


@pytest.mark.parametrize("ending", ["onnx", "npz"])
class TestRefusals:
    def test_a_model_that_is_none_is_named(self, refused, tmp_path, ending):
        sign = tmp_path / "sign"
        (tmp_path / "a").write_bytes(live_pickle(sign))
        assert f"{tmp_path / 'a'} is not a whole" in refused(
            3, "export", tmp_path / "a", "--to", tmp_path / f"b.{ending}"
        )
        assert "gone does not exist" in refused(3, "export", tmp_path / "gone", "--to", tmp_path / f"b.{ending}")
        assert not sign.exists()

    def test_a_place_that_cannot_be_written_is_named(self, refused, model, tmp_path, ending):
        (tmp_path / "file").write_text("precious")
        (tmp_path / f"a.{ending}").mkdir()
        for to, reason in (("file/a", "Not a directory"), ("a", "Is a directory"), ("gone/a", "No such file")):
            line = refused(3, "export", model, "--to", tmp_path / f"{to}.{ending}")
            assert f"cannot write {tmp_path / to}.{ending}: {reason}" in line

    def test_a_write_that_stops_half_way_leaves_the_old_file(self, command, model, tmp_path, monkeypatch, ending):
        to = tmp_path / f"a.{ending}"
        to.write_bytes(b"precious")

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("gpu_nn.files.os.fsync", full)
        done = command("export", model, "--to", to)
        assert (done.code, done.out) == (3, "")
        assert done.err == f"gpu-nn export: cannot write {to}: No space left on device\n"
        assert to.read_bytes() == b"precious"
        assert os.listdir(tmp_path) == [to.name]


def test_an_ending_that_is_not_known_is_refused_with_those_that_are(refused, model, tmp_path):
    for name in ("a.pt", "a", "a.safetensors"):
        line = refused(2, "export", model, "--to", tmp_path / name)
        assert "argument --to: " in line
        assert "expected a name that ends in .onnx or .npz" in line


def test_without_onnx_the_extra_is_named(refused, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install 'gpu_nn[onnx]'" in refused(2, "export", model, "--to", tmp_path / "a.onnx")


def test_a_class_that_the_formats_cannot_hold_is_named(refused, model, tmp_path):
    net = load(model, "cpu")
    net.classes = [1, 2, 2**63]
    save(net, tmp_path / "m")
    for ending in ("onnx", "npz"):
        line = refused(2, "export", tmp_path / "m", "--to", tmp_path / f"a.{ending}")
        assert f"class {2**63} does not fit into int64" in line
