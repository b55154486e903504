"""Models know the names of the columns that they were trained on, and take tables by them."""

import json

import numpy as np
import pandas
import pytest

from gpu_nn import load, save
from tests.cli.conftest import N_INPUTS

CPU = ("--device", "cpu")
FAST = ("--epochs", "20", "--hidden", "8", "--lr", "0.03", *CPU)
NAMES = ["length", "width", "été", "x, y", "1"]


@pytest.fixture(scope="module")
def frame(arrays):
    return pandas.DataFrame({**dict(zip(NAMES, arrays["x"].T, strict=True)), "shape": arrays["y"]})


@pytest.fixture(params=["csv", "parquet", "parquet, streamed"])
def write(request, tmp_path):
    """Writes a frame; gives the arguments of the command for it."""
    suffix, _, streamed = request.param.partition(", ")

    def write(frame, name="a"):
        path = tmp_path / f"{name}.{suffix}"
        if suffix == "csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path, index=False, row_group_size=40)
        return ("--data", path, *(["--stream"] if streamed else []))

    return write


@pytest.fixture
def trained(command, write, frame, tmp_path):
    """The model of a table."""
    assert command("train", *write(frame, "train"), "--target", "shape", *FAST, "--out", tmp_path / "run").code == 0
    return tmp_path / "run" / "model.safetensors"


def test_a_model_keeps_the_names_of_its_columns(command, trained):
    net = load(trained, "cpu")
    assert (net.feature_names, net.target_name) == (NAMES, "shape")
    facts = json.loads(command("info", trained, "--json").out)
    assert (facts["feature_names"], facts["target_name"], facts["inputs"]) == (NAMES, "shape", N_INPUTS)
    lines = command("info", trained).out.splitlines()
    assert lines[1] == "5 inputs: length, width, été, x, y, 1"
    assert lines[2] == "3 classes of shape: circle, été, 日本, 東京"


def test_columns_in_another_order_go_by_their_names_which_is_said_once(command, trained, write, frame):
    other = frame[["shape", *NAMES[::-1]]]
    same = write(frame)
    for verb in ("evaluate", "predict"):
        expected = command(verb, trained, *same, *CPU)
        assert (expected.code, expected.err) == (0, "")
        done = command(verb, trained, *write(other, "other"), *CPU)
        assert done.out == expected.out
        assert "its columns in another order than the model was trained on; they go by name" in done.err
        assert done.err.count("\n") == 1


def test_the_target_may_be_missing_or_stand_anywhere_at_prediction(command, trained, write, frame):
    expected = command("predict", trained, *write(frame), *CPU)
    for some in (frame[NAMES], frame[[*NAMES[:2], "shape", *NAMES[2:]]]):
        assert command("predict", trained, *write(some, "some"), *CPU) == expected
    renamed = frame.rename(columns={"shape": "form"})
    done = command("predict", trained, *write(renamed, "renamed"), "--target", "form", *CPU)
    assert done == expected


def test_the_target_of_an_evaluation_may_have_another_name(command, trained, write, frame):
    expected = command("evaluate", trained, *write(frame), *CPU)
    assert expected.code == 0
    renamed = frame.rename(columns={"shape": "form"})[["form", *NAMES]]
    assert command("evaluate", trained, *write(renamed, "renamed"), *CPU) == expected
    # One that is called label is it, be there others or not.
    labelled = frame.rename(columns={"shape": "Label"}).assign(zeros=0)
    assert "column 'zeros'" in command("evaluate", trained, *write(labelled, "l"), *CPU).err


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_a_missing_column_is_named_with_the_nearest(refused, trained, write, frame, verb):
    misspelt = write(frame.rename(columns={"length": "lenght"}), "m")
    line = refused(3, verb, trained, *misspelt, *CPU)
    assert "has no column 'length', which the model was trained on. Did you mean 'lenght'?" in line
    line = refused(3, verb, trained, *write(frame.drop(columns=["width", "été"]), "d"), *CPU)
    assert "has no columns 'width', 'été', which the model was trained on." in line


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_columns_that_are_no_inputs_are_named(refused, trained, write, frame, verb):
    more = write(frame.assign(id=1.0, zeros=0), "more")
    line = refused(3, verb, trained, *more, *CPU)
    assert "has the columns 'id', 'zeros', which the model was not trained on: drop what is no input" in line


def test_a_table_without_labels_is_not_evaluated(refused, trained, write, frame):
    line = refused(3, "evaluate", trained, *write(frame[NAMES], "n"), *CPU)
    assert "has no labels: its columns are the inputs of the model" in line


def test_a_column_that_is_there_twice_is_named(refused, trained, frame, tmp_path):
    twice = pandas.concat([frame, frame[["width"]]], axis=1)
    twice.to_csv(tmp_path / "twice.csv", index=False)
    line = refused(3, "predict", trained, "--data", tmp_path / "twice.csv", *CPU)
    assert "has 2 columns 'width'; the model was trained on one" in line


def test_data_without_names_go_by_place(command, trained, frame, tmp_path):
    expected = command("predict", trained, "--data", _csv(frame, tmp_path / "named.csv"), *CPU)
    np.save(tmp_path / "x.npy", frame[NAMES].to_numpy())
    frame[NAMES].to_csv(tmp_path / "bare.csv", index=False, header=False)
    for name in ("x.npy", "bare.csv"):
        assert command("predict", trained, "--data", tmp_path / name, *CPU) == expected


def test_a_table_goes_by_place_where_the_model_knows_no_names(command, trained, frame, tmp_path):
    expected = command("predict", trained, "--data", _csv(frame, tmp_path / "a.csv"), *CPU)
    net = load(trained, "cpu")
    net.feature_names = net.target_name = None
    save(net, tmp_path / "old")
    renamed = frame[NAMES].rename(columns={"length": "other", "1": "one"})
    assert command("predict", tmp_path / "old", "--data", _csv(renamed, tmp_path / "b.csv"), *CPU) == expected


def test_a_table_without_names_leaves_none_in_the_model(command, frame, tmp_path):
    frame.to_csv(tmp_path / "bare.csv", index=False, header=False)
    command("train", "--data", tmp_path / "bare.csv", "--target", "5", *FAST, "--out", tmp_path / "run")
    net = load(tmp_path / "run" / "model.safetensors", "cpu")
    assert net.feature_names is net.target_name is None
    assert "5 inputs: without names" in command("info", tmp_path / "run" / "model.safetensors").out


def test_names_that_are_numbers_are_names(command, frame, tmp_path):
    """A first line of numbers is one of names where the model has them."""
    numbers = frame.set_axis([*map(str, range(5)), "shape"], axis=1)
    flags = ("--target", "shape", *FAST, "--out", tmp_path / "run")
    assert command("train", "--data", _csv(numbers, tmp_path / "a.csv"), *flags).code == 0
    model = tmp_path / "run" / "model.safetensors"
    expected = command("predict", model, "--data", tmp_path / "a.csv", *CPU)
    shuffled = _csv(numbers[["3", "1", "0", "2", "4"]], tmp_path / "b.csv")
    done = command("predict", model, "--data", shuffled, *CPU)
    assert done.out == expected.out
    assert done.out.count("\n") == len(frame)


def test_pictures_are_drawn_of_columns_in_another_order(command, trained, frame, tmp_path):
    pytest.importorskip("matplotlib")
    flags = ("--out", tmp_path / "pictures", "--format", "svg", *CPU)
    pictures = []
    for columns in ([*NAMES, "shape"], ["shape", *NAMES[::-1]]):
        data = _csv(frame[columns], tmp_path / "a.csv")
        done = command("plot", trained.parent, "--data", data, *flags)
        assert done.code == 0, done.err
        pictures.append((tmp_path / "pictures" / "confusion.svg").read_bytes())
    assert pictures[0] == pictures[1]


def _csv(frame, path):
    frame.to_csv(path, index=False)
    return path
