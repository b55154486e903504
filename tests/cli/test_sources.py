"""The same data and the same numbers, whatever the format."""

import json

import numpy as np
import pytest

CPU = ("--device", "cpu")
FAST = ("--epochs", "3", "--hidden", "4", *CPU, "--json")


@pytest.fixture(params=["npz", "npy", "csv", "parquet"])
def source(request, arrays, tmp_path):
    """The data in a file of this format, as arguments of the command; its file."""
    x, y = arrays["x"], arrays["y"]
    path = tmp_path / f"a.{request.param}"
    match request.param:
        case "npz":
            np.savez(path, x=x, y=y)
        case "npy":
            np.save(path, x)
            np.save(tmp_path / "y.npy", y)
            return path, ("--data", path, "--target", tmp_path / "y.npy")
        case "csv":
            import pandas

            pandas.DataFrame({**dict(zip("abcde", x.T, strict=True)), "class": y}).to_csv(path, index=False)
        case "parquet":
            import pandas

            pandas.DataFrame({**dict(zip("abcde", x.T, strict=True)), "class": y}).to_parquet(path, index=False)
    return path, ("--data", path)


def test_a_run_is_the_same_from_every_format(command, source, data):
    done, expected = (json.loads(command("train", *given, *FAST).out) for given in (source[1], ("--data", data)))
    for result in (done, expected):
        for timed in (result, *result["history"]):
            del timed["seconds"]
    assert done == expected


def test_evaluation_and_prediction_are_the_same_from_every_format(command, source, data, model):
    path, given = source
    assert command("evaluate", model, *given, *CPU).out == command("evaluate", model, "--data", data, *CPU).out
    predicted = command("predict", model, "--data", path, *CPU)
    assert predicted.out == command("predict", model, "--data", data, *CPU).out


def test_the_column_that_is_the_target_is_named_on_stderr(command, source):
    done = command("train", *source[1], *FAST)
    assert ("target: column 'class'" in done.err.splitlines()) == (source[0].suffix in (".csv", ".parquet"))


def test_a_run_resumes_with_its_target_from_another_folder(command, source, tmp_path, monkeypatch):
    path, given = source
    monkeypatch.chdir(tmp_path)
    names = [argument.name if isinstance(argument, type(path)) else argument for argument in given]
    assert command("train", *names, *FAST, "--out", "run").code == 0
    monkeypatch.chdir("/")
    done = command("train", "--resume", tmp_path / "run")
    assert (done.code, "the run in" in done.err) == (0, True)


def test_a_target_that_is_not_there_is_code_3_with_the_nearest_name(refused, source):
    path, _ = source
    line = refused(3, "train", "--data", path, "--target", "clas", *FAST)
    assert {
        ".npz": "takes no target: its labels are y",
        ".npy": "the target clas of",
        ".csv": "Did you mean 'class'?",
        ".parquet": "Did you mean 'class'?",
    }[path.suffix] in line


def test_a_target_without_data_is_wrong_usage(refused):
    assert "the digits have labels of their own" in refused(2, "train", "--target", "y", *FAST)


def test_test_last_where_the_data_bring_a_test_part_is_wrong_usage(refused, arrays, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays, x_test=arrays["x"], y_test=arrays["y"])
    line = refused(2, "train", "--data", tmp_path / "a.npz", "--test-last", "5", *FAST)
    assert "a.npz has a test part of its own: leave test_last out" in line
