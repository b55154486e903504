"""The same data and the same numbers, whatever the format."""

import json

import numpy as np
import pytest

from tests.data.files import idx_bytes

CPU = ("--device", "cpu")
FAST = ("--epochs", "3", "--hidden", "4", *CPU, "--json")


FORMATS = ["npz", "npy", "csv", "parquet"]


def written(folder, suffix, x, y):
    """The data in a file of this format; its path, and it as arguments of the command."""
    path = folder / f"a.{suffix}"
    columns = {**{f"c{i}": column for i, column in enumerate(x.T)}, "class": y}
    match suffix:
        case "npz":
            np.savez(path, x=x, y=y)
        case "npy":
            np.save(path, x)
            np.save(folder / "y.npy", y)
            return path, ("--data", path, "--target", folder / "y.npy")
        case "csv":
            import pandas

            pandas.DataFrame(columns).to_csv(path, index=False)
        case "parquet":
            import pandas

            pandas.DataFrame(columns).to_parquet(path, index=False)
    return path, ("--data", path)


@pytest.fixture(params=FORMATS)
def source(request, arrays, tmp_path):
    """The data in a file of this format, as arguments of the command; its file."""
    return written(tmp_path, request.param, arrays["x"], arrays["y"])


def test_a_run_is_the_same_from_every_format(command, source, data):
    done, expected = (json.loads(command("train", *given, *FAST).out) for given in (source[1], ("--data", data)))
    for result in (done, expected):
        for timed in (result, *result["history"]):
            del timed["seconds"]
    assert done == expected


def test_a_column_of_0_and_1_counts_beside_a_salary_in_every_format(command, tmp_path):
    random = np.random.default_rng(0)
    member = random.integers(0, 2, 400)
    x = np.column_stack([random.integers(20_000, 1_000_000, 400), member])
    found = []
    for suffix in FORMATS:
        given = written(tmp_path, suffix, x, member)[1]
        result = json.loads(command("train", *given, "--epochs", "15", "--hidden", "8", *CPU, "--json").out)
        found.append((result["test_accuracy"], result["test_loss"]))
    assert found[0][0] == 1
    assert found == [found[0]] * len(FORMATS)


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


@pytest.mark.parametrize("kind", ["npz", "IDX folder"])
@pytest.mark.parametrize("flag", [("--test-last", "5"), ("--test-fraction", "0.2")])
def test_a_flag_of_the_test_part_that_the_data_bring_is_wrong_usage(refused, command, arrays, tmp_path, kind, flag):
    name = flag[0][2:].replace("-", "_")
    if kind == "npz":
        path = tmp_path / "a.npz"
        np.savez(path, **arrays, x_test=arrays["x"], y_test=arrays["y"])
    else:
        path = tmp_path
        for part in ("train", "t10k"):
            (path / f"{part}-images-idx2-ubyte").write_bytes(idx_bytes(np.eye(4, 5, dtype=np.uint8)))
            (path / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(4, dtype=np.uint8) % 2))
    line = refused(2, "train", "--data", path, *flag, *FAST)
    assert f"{name}={flag[1]}, but {path} has a test part of its own: leave {name} out" in line
    (tmp_path / "a.toml").write_text(f"{flag[0][2:]} = {flag[1]}\n")
    assert f"leave {name} out" in refused(2, "train", "--data", path, "--config", tmp_path / "a.toml", *FAST)
    # A run of such data is kept without one, and goes on.
    assert command("train", "--data", path, *FAST, "--out", tmp_path / "run").code == 0
    assert "\ntest-" not in (tmp_path / "run" / "config.toml").read_text()
    assert command("train", "--resume", tmp_path / "run").code == 0


def test_two_ways_to_say_what_the_test_part_is_are_wrong_usage(refused, data):
    line = refused(2, "train", "--data", data, "--test-last", "5", "--test-fraction", "0.2", *FAST)
    assert "test_fraction=0.2 and test_last=5; leave one of them out" in line


def test_a_share_that_leaves_no_row_is_refused_by_the_name_of_its_flag(refused, data):
    line = refused(3, "train", "--data", data, "--validation-fraction", "0.999999", *FAST)
    assert "has 72 rows, of which validation_fraction=0.999999 leaves none to train on: choose a smaller one" in line
    assert "test_fraction=0.9999 leaves" in refused(3, "train", "--data", data, "--test-fraction", "0.9999", *FAST)
