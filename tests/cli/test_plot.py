import json
import os
import sys

import numpy as np
import pytest

from gpu_nn import plots
from gpu_nn.cli import input_data, main, plot
from gpu_nn.cli.input_data import read_splits
from gpu_nn.cli.run_folder import RunFolder
from gpu_nn.network import INFERENCE_ROWS
from gpu_nn.training.checkpoint import list_checkpoints
from tests.cli.test_resume import Raise, with_callback  # noqa: F401
from tests.cuda_emulator.device import emulated_device
from tests.data.files import write_idx_pair

CPU = ("--device", "cpu")
CURVES = ["learning-curves", "learning-rate"]
ANSWERS = ["calibration", "confusion"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on the digits."""
    folder = tmp_path_factory.mktemp("run")
    assert main(["train", "--hidden", "8", "--epochs", "3", "--early-stopping", "9", *CPU, "--out", str(folder)]) == 0
    return folder


class Drawn:
    """What the command has drawn: x, y and p of all rows, the arguments of each picture, and in how many pieces they
    came."""

    def __init__(self):
        self.made, self.pieces = {}, []

    def __getattr__(self, name):
        return np.concatenate([piece["xyp".index(name)] for piece in self.pieces])


@pytest.fixture
def drawn(monkeypatch):
    seen = Drawn()

    def watched(name):
        class Watched(getattr(plots, name)):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                seen.made[name] = arguments
                if name == "CalibrationBins":
                    seen.pieces = []

            def add(self, *piece):
                super().add(*piece)
                if name == "CalibrationBins":
                    seen.pieces.append((np.empty((len(piece[0]), 0)), *map(np.array, piece)))
                if name == "WorstMistakes":
                    seen.pieces[-1] = tuple(map(np.array, piece))

        return Watched

    for name in ("ConfusionCounts", "CalibrationBins", "WorstMistakes"):
        monkeypatch.setattr(plot.plots, name, watched(name))
    curves = plots.learning_curves
    monkeypatch.setattr(plots, "learning_curves", lambda history: seen.made.update(curves=history) or curves(history))
    return seen


@pytest.fixture
def unrendered(monkeypatch):
    """Figures are made and their files named, but nothing is rendered, which takes longest: for tests of what is drawn
    and what is said of it."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, file, **_: file.write(b"unrendered"))


def stems(folder):
    return sorted(name.partition(".")[0] for name in os.listdir(folder))


def test_all_pictures_of_a_run_are_beside_it_and_named_on_stdout(command, run):
    done = command("plot", run, *CPU)
    assert (done.code, done.err) == (0, "")
    assert stems(run / "pictures") == sorted([*CURVES, *ANSWERS, "mistakes"])
    assert sorted(done.out.splitlines()) == sorted(str(path) for path in (run / "pictures").iterdir())
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (run / "pictures").iterdir())


@pytest.mark.parametrize(("suffix", "beginning"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_other_formats_are_written_and_twice_the_same(command, model, tmp_path, suffix, beginning):
    for name in "ab":
        assert command("plot", model.parent, "--format", suffix, "--out", tmp_path / name, *CPU).code == 0
    files = sorted((tmp_path / "a").iterdir())
    assert {path.suffix for path in files} == {f".{suffix}"}
    for path in files:
        assert path.read_bytes().startswith(beginning)
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_json_names_the_files(command, run, tmp_path):
    done = command("plot", run, "--out", tmp_path / "p", "--json", *CPU)
    pictures = json.loads(done.out)["pictures"]
    assert sorted(pictures) == sorted([*CURVES, *ANSWERS, "mistakes"])
    assert pictures["confusion"] == str(tmp_path / "p" / "confusion.png")


@pytest.mark.usefixtures("unrendered")
def test_the_answers_are_those_on_the_runs_own_test_part(command, run, tmp_path, drawn):
    trained = json.loads(command("train", "--resume", run, "--json").out)
    command("plot", run, "--out", tmp_path, *CPU)
    assert len(drawn.y) == trained["test_rows"] == 360
    assert (drawn.y == drawn.p.argmax(axis=1)).mean() == pytest.approx(trained["test_accuracy"])
    assert drawn.made["ConfusionCounts"] == ([str(i) for i in range(10)],)
    assert drawn.made["WorstMistakes"][0] == (8, 8)
    assert len(drawn.made["curves"]) == 3


@pytest.fixture(scope="module")
def labelled_files(tmp_path_factory):
    """Images of 8 by 8 pixels whose first is the row's number, with names for classes, in files of the two kinds."""
    folder = tmp_path_factory.mktemp("files")
    n = 5000
    y = np.arange(n) % 3
    x = np.random.default_rng(0).normal(size=(n, 64)).astype(np.float32) + np.eye(3, 64, 1)[y].astype(np.float32)
    x[:, 0] = np.arange(n)
    names = np.array(["a", "b", "c"])[y]
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", names)
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = arrow.table({f"c{i}": x[:, i] for i in range(64)} | {"shape": names})
    parquet.write_table(table, folder / "t.parquet", row_group_size=1900)
    return {
        "npy": ("--data", folder / "x.npy", "--target", folder / "y.npy"),
        "parquet": ("--data", folder / "t.parquet", "--target", "shape"),
    }


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("kind", ["npy", "parquet"])
@pytest.mark.parametrize("stream", ["always", "never"])
def test_the_answers_drawn_are_those_of_the_runs_own_test_part_streamed_or_not(
    command, labelled_files, tmp_path, drawn, monkeypatch, kind, stream
):
    monkeypatch.setattr(input_data, "_BATCH_BYTES", INFERENCE_ROWS * 4 * (64 + 3))
    settings = ("--test-fraction", "0.7", "--validation-fraction", "0.1", "--seed", "5", "--epochs", "1", *CPU)
    given = (*labelled_files[kind], *settings, "--stream", stream, "--out", tmp_path / "run")
    trained = json.loads(command("train", *given, "--json").out)
    assert command("plot", tmp_path / "run", "--out", tmp_path / "p", *CPU).code == 0
    part = read_splits(RunFolder(tmp_path / "run").read_settings()).test
    expected = part[0] if stream == "never" else np.concatenate([x.copy() for x, _ in part.windows()])
    np.testing.assert_array_equal(drawn.x, expected)
    np.testing.assert_array_equal(drawn.y, expected[:, 0] % 3)
    assert len(drawn.y) == trained["test_rows"]
    assert (drawn.y == drawn.p.argmax(axis=1)).mean() == pytest.approx(trained["test_accuracy"], abs=1e-12)
    assert len(drawn.pieces) > 1


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_named_data_are_drawn_the_same_streamed_or_not(command, labelled_files, tmp_path, drawn, monkeypatch, kind):
    command("train", *labelled_files[kind], "--epochs", "1", *CPU, "--out", tmp_path / "run")
    monkeypatch.setattr(input_data, "_BATCH_BYTES", INFERENCE_ROWS * 4 * (64 + 3))
    found = {}
    for flag in ("always", "never"):
        with monkeypatch.context() as patch:
            if flag == "always":
                patch.setattr(input_data, "read_labelled", None)
            out = ("--out", tmp_path / flag, "--format", "svg", *CPU)
            assert command("plot", tmp_path / "run", *labelled_files[kind], "--stream", flag, *out).code == 0
        found[flag] = drawn.x, drawn.y, drawn.p
        assert len(drawn.pieces) == 3
    for one, other in zip(found["always"], found["never"], strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype.kind == other.dtype.kind
    assert stems(tmp_path / "never") == sorted([*CURVES, *ANSWERS, "mistakes"])
    for path in (tmp_path / "never").iterdir():
        assert path.read_bytes() == (tmp_path / "always" / path.name).read_bytes()


@pytest.mark.usefixtures("unrendered")
def test_other_data_are_what_is_drawn_when_they_are_named(command, run, tmp_path, drawn):
    random = np.random.default_rng(0)
    images = random.integers(0, 17, (20, 8, 8), np.uint8)
    write_idx_pair(tmp_path / "data", "t10k", images, np.arange(20, dtype=np.uint8) % 10)
    assert command("plot", run, "--data", tmp_path / "data", "--out", tmp_path / "p", *CPU).code == 0
    np.testing.assert_array_equal(drawn.y, np.arange(20) % 10)
    np.testing.assert_array_equal(drawn.x, images.reshape(20, 64))


@pytest.mark.usefixtures("unrendered")
def test_a_run_whose_data_have_changed_is_drawn_and_says_so(command, arrays, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    assert command("train", "--data", tmp_path / "a.npz", "--epochs", 9, *CPU, "--out", tmp_path / "run").code == 0
    np.savez(tmp_path / "a.npz", x=arrays["x"].astype(">f8"), y=arrays["y"])
    assert "have changed" not in command("plot", tmp_path / "run", *CPU).err
    x, y = arrays["x"], arrays["y"]
    # Of the last one the model has as many rows right as before.
    for change in (
        {"x": x[:70], "y": y[:70]},
        {"x": -x, "y": y},
        {"x": x, "y": np.roll(y, 1)},
        {"x": x + 1e-9, "y": y},
    ):
        np.savez(tmp_path / "a.npz", **change)
        done = command("plot", tmp_path / "run", *CPU)
        assert done.code == 0
        assert "the run's data have changed: its test accuracy was" in done.err
        assert f"% on {len(change['x']) // 5}, which are plotted" in done.err


@pytest.mark.usefixtures("unrendered")
def test_another_device_that_decides_otherwise_has_no_other_data(command, arrays, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    command("train", "--data", tmp_path / "a.npz", "--epochs", 1, *CPU, "--out", tmp_path / "run")
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    history["test"]["accuracy"] /= 2
    (tmp_path / "run" / "history.json").write_text(json.dumps(history))
    assert "have changed" not in command("plot", tmp_path / "run", *CPU).err


@pytest.mark.usefixtures("unrendered")
def test_a_streamed_run_knows_its_data_too(command, arrays, tmp_path):
    data = ("--data", tmp_path / "x.npy", "--target", tmp_path / "y.npy")
    np.save(tmp_path / "x.npy", arrays["x"])
    np.save(tmp_path / "y.npy", arrays["y"])
    assert command("train", *data, "--stream", "--epochs", 2, *CPU, "--out", tmp_path / "run").code == 0
    assert "have changed" not in command("plot", tmp_path / "run", *CPU).err
    np.save(tmp_path / "x.npy", arrays["x"] + 1e-9)
    assert "the run's data have changed" in command("plot", tmp_path / "run", *CPU).err


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("data", [None, {}, {"training": {}}])
def test_of_a_run_that_kept_nothing_of_its_test_part_nothing_is_said(command, arrays, tmp_path, data):
    np.savez(tmp_path / "a.npz", **arrays)
    command("train", "--data", tmp_path / "a.npz", "--epochs", 1, *CPU, "--out", tmp_path / "run")
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    (tmp_path / "run" / "history.json").write_text(json.dumps({**history, "data": data}))
    done = command("plot", tmp_path / "run", *CPU)
    assert (done.code, "changed" in done.err) == (0, False)


@pytest.mark.usefixtures("unrendered")
def test_rows_that_are_no_images_are_left_out_unless_they_are_said_to_be(command, model, tmp_path, drawn):
    folder = model.parent
    done = command("plot", folder, "--out", tmp_path, *CPU)
    assert stems(tmp_path) == sorted([*CURVES, *ANSWERS])
    assert "no mistakes: rows of 5 inputs are not taken for images; --image-shape HEIGHT,WIDTH overrides" in done.err
    done = command("plot", folder, "--out", tmp_path, "--image-shape", "1,5", *CPU)
    assert stems(tmp_path) == sorted([*CURVES, *ANSWERS, "mistakes"])
    assert drawn.made["WorstMistakes"][0] == (1, 5)


def test_names_that_no_font_has_are_said_once(command, model, arrays, tmp_path, monkeypatch):
    from matplotlib import font_manager

    # Matplotlib's own font, which has no Japanese letters, so that it finds one whatever was drawn before.
    fonts = [font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    # Wrong labels, so that two pictures have names: the matrix and the mistakes.
    np.savez(tmp_path / "a.npz", x=arrays["x"], y=np.roll(arrays["y"], 1))
    options = ("--data", tmp_path / "a.npz", "--out", tmp_path, "--image-shape", "5,1", *CPU)
    done = command("plot", model.parent, *options)
    line = "no installed font has the letters of class '日本, 東京'; shown as #2"
    assert done.err.splitlines().count(line) == 1


def test_a_run_without_epochs_has_no_curves_and_says_so(command, data, tmp_path):
    command("train", "--data", data, "--epochs", 0, *CPU, "--out", tmp_path / "run")
    done = command("plot", tmp_path / "run", *CPU)
    assert done.code == 0
    assert stems(tmp_path / "run" / "pictures") == ANSWERS
    assert "no learning-curves: history has no epochs" in done.err


@pytest.mark.usefixtures("unrendered")
def test_a_run_that_resumes_has_the_curves_so_far(command, data, tmp_path, with_callback, drawn):  # noqa: F811
    with_callback(Raise(11, ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        command("train", "--data", data, *CPU, "--checkpoint-every", "1", "--out", tmp_path / "run")
    done = command("plot", tmp_path / "run", "--out", tmp_path / "p")
    assert (done.code, stems(tmp_path / "p")) == (0, CURVES)
    assert "the run is not finished: only its curves are plotted, up to epoch 3" in done.err
    assert drawn.made["curves"].column("epoch") == [1, 2, 3]
    for path in list_checkpoints(tmp_path / "run" / "checkpoints").values():
        path.unlink()
    assert "checkpoints holds no checkpoint" in command("plot", tmp_path / "run").err


def test_a_folder_that_is_no_run_is_one_line(refused, tmp_path):
    assert f"FOLDER {tmp_path} holds no run of `gpu-nn train --out`" in refused(3, "plot", tmp_path)
    assert "FOLDER gone does not exist" in refused(3, "plot", "gone")


def test_without_matplotlib_the_extra_is_named(refused, run, tmp_path, monkeypatch):
    for module in [module for module in sys.modules if module.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    line = refused(2, "plot", run, "--out", tmp_path / "p")
    assert line == "gpu-nn plot: plots need Matplotlib: pip install 'gpu_nn[plot]'\n"


def test_what_cannot_be_drawn_is_one_line_and_leaves_nothing(refused, run, data, tmp_path):
    out = ("--out", tmp_path / "p", *CPU)
    assert "has 5 columns; the model was trained on 64" in refused(3, "plot", run, "--data", data, *out)
    assert "gone.npz does not exist" in refused(3, "plot", run, "--data", "gone.npz", *out)
    assert "--target needs --data" in refused(2, "plot", run, "--target", "y", *out)
    assert "--stream needs --data" in refused(2, "plot", run, "--stream", *out)
    assert "--image-shape 3,3 does not fit rows of 64 inputs" in refused(2, "plot", run, "--image-shape", "3,3", *out)
    assert "expected HEIGHT,WIDTH" in refused(2, "plot", run, "--image-shape", "8", *out)
    assert "'0'; expected a whole number ≥ 1" in refused(2, "plot", run, "--image-shape", "8,0", *out)
    assert "'jpg' is not one of pdf, png, svg" in refused(2, "plot", run, "--format", "jpg", *out)
    (tmp_path / "file").write_text("precious")
    line = refused(3, "plot", run, "--out", tmp_path / "file", *CPU)
    assert "file cannot be written: File exists; --out names another folder" in line


@pytest.mark.parametrize("content", [b"", b"[]", b'{"epochs": [{"epoch": 1}]}', b"\xff", b'{"epochs": [1]}'])
def test_a_history_that_was_spoilt_is_one_line(refused, run, tmp_path, content):
    for name in ("config.toml", "model.safetensors"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "history.json").write_bytes(content)
    assert "history.json is no history of a run" in refused(3, "plot", tmp_path)


def test_a_disk_that_is_full_leaves_the_older_picture(command, model, tmp_path, monkeypatch):
    command("plot", model.parent, "--out", tmp_path, *CPU)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpu_nn.files.os.fsync", full)
    done = command("plot", model.parent, "--out", tmp_path, *CPU)
    assert (done.code, done.out) == (3, "")
    last = f"gpu-nn plot: cannot write {tmp_path / 'learning-curves.png'}: No space left on device"
    assert done.err.splitlines()[-1] == last
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.usefixtures("unrendered")
def test_a_gpu_draws_the_same_answers(command, model, tmp_path, drawn):
    with emulated_device():
        done = command("plot", model.parent, "--out", tmp_path, "--device", "cuda")
    assert (done.code, stems(tmp_path)) == (0, sorted([*CURVES, *ANSWERS]))
    on_gpu = drawn.p
    command("plot", model.parent, "--out", tmp_path, *CPU)
    np.testing.assert_allclose(on_gpu, drawn.p, rtol=1e-5)
