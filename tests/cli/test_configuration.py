"""gpu-nn train --config."""

import json

import numpy as np
import pytest

from gpu_nn import load
from tests.cli.test_resume import outcome

FAST = ("--epochs", 2, "--hidden", 4, "--device", "cpu")


@pytest.fixture
def written(tmp_path):
    """Writes a configuration file."""

    def written(text, name="settings.toml"):
        path = tmp_path / name
        path.write_text(text, "utf-8")
        return path

    return written


def test_flags_go_before_the_file_and_the_file_before_the_defaults(command, data, written, tmp_path):
    path = written(f"data = {json.dumps(str(data))}\nhidden = [6, 5]\nepochs = 3\nactivation = 'tanh'\n")
    out = tmp_path / "run"
    done = command("train", "--config", path, "--epochs", 2, "--device", "cpu", "--out", out, "--json")
    assert json.loads(done.out)["epochs"] == 2
    net = load(out / "model.safetensors", "cpu")
    assert [(layer.units, layer.activation) for layer in net.layers[1:3]] == [(6, "tanh"), (5, "tanh")]
    saved = (out / "config.toml").read_text()
    assert "epochs = 2\n" in saved
    assert "batch-size = 32\n" in saved
    assert "config" not in [line.partition(" ")[0] for line in saved.splitlines()]


def test_what_is_saved_beside_a_run_makes_the_same_run_again(command, data, tmp_path):
    options = ("--early-stopping", 2, "--dropout", 0.1, "--log", tmp_path / "log.csv", "--checkpoint-every", "2steps")
    command("train", "--data", data, *FAST, *options, "--out", tmp_path / "a")
    done = command("train", "--config", tmp_path / "a" / "config.toml", "--out", tmp_path / "b")
    assert done.code == 0
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")
    assert (tmp_path / "a" / "config.toml").read_bytes() == (tmp_path / "b" / "config.toml").read_bytes()
    # Without a folder there are no checkpoints, which the file asks for and no flag does.
    assert command("train", "--config", tmp_path / "a" / "config.toml").code == 0


def test_paths_begin_at_the_files_folder(command, data, written, tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "points.npz").write_bytes(data.read_bytes())
    path = written("data = 'points.npz'\nlog = ['log.csv', 'log.jsonl']\n", "sub/settings.toml")
    monkeypatch.chdir(tmp_path)
    done = command("train", "--config", "sub/settings.toml", *FAST, "--out", "run")
    assert done.code == 0, done.err
    assert {file.name for file in path.parent.iterdir()} == {"settings.toml", "points.npz", "log.csv", "log.jsonl"}


def test_a_flag_for_the_test_part_goes_before_another_in_the_file(command, data, written):
    path = written("test-last = 7\n")
    result = command("train", "--config", path, "--data", data, *FAST, "--json")
    assert json.loads(result.out)["test_rows"] == 7
    result = command("train", "--config", path, "--data", data, *FAST, "--test-fraction", 0.5, "--json")
    assert json.loads(result.out)["test_rows"] == 45


def test_auto_in_the_file_is_a_device_here(command, data, written, no_gpu):
    path = written("device = 'auto'\nhidden = 4\nepochs = 1\ncheckpoint-every = 5\n")
    assert json.loads(command("train", "--config", path, "--data", data, "--json").out)["device"] == "cpu"


def test_the_file_of_a_run_agrees_with_it_and_another_does_not(command, refused, data, written, tmp_path):
    command("train", "--data", data, *FAST, "--out", tmp_path / "run")
    assert command("train", "--resume", tmp_path / "run", "--config", tmp_path / "run" / "config.toml").code == 0
    path = written("epochs = 1\n")
    line = refused(2, "train", "--resume", tmp_path / "run", "--config", path)
    assert "--epochs 1 contradicts the run in" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_size = 3", "'batch_size' is not one of "),
        ("batch_size = 3", "Did you mean 'batch-size'?"),
        ("epoch = 3", "Did you mean 'epochs'?"),
        (
            "[train]\nepochs = 3",
            "train is a table, and there are none in it: write batch-size = 32 with no [train] above",
        ),
        ("[[train]]\nepochs = 3", "train is a table, and there are none in it"),
        ("train.epochs = 3", "train is a table, and there are none in it"),
        ("epochs = '3'", "epochs = '3'; expected a whole number"),
        ("epochs = 3.0", "epochs = 3.0; expected a whole number"),
        ("epochs = [3, 4]", "epochs = [3, 4]; expected a whole number"),
        ("epochs = true", "epochs = True; expected a whole number"),
        ("lr = 'fast'", "lr = 'fast'; expected a number"),
        ("lr = nan", "argument --lr: 'nan'; expected a finite number"),
        ("lr = 2024-01-01", "expected a number"),
        ("hidden = '256,128'", "hidden = '256,128'; expected a list of whole numbers"),
        ("hidden = [2.5]", "expected a list of whole numbers"),
        ("hidden = [[2]]", "expected a list of whole numbers"),
        ("hidden = [0]", "argument --hidden: '0'; expected whole numbers from 1 to"),
        ("activation = 3", "activation = 3; expected a name"),
        ("activation = 'rellu'", "'rellu' is not one of elu, gelu"),
        ("data = 3", "data = 3; expected text"),
        ("log = 'a.txt'", "expected a name that ends in .csv or .jsonl"),
        ("out = 'run'", "out = 'run' is no setting of a run; give the flag --out"),
        ("json = true", "give the flag --json"),
        ("dry-run = true", "give the flag --dry-run"),
        ("config = 'a.toml'", "give the flag --config"),
        ("epochs = 3\nepochs = 4", "is no configuration of a run: "),
        (f"epochs = 3\nY{'.a' * 8000} = 4", "line 2 has a key of more than 100 parts"),
        (f"'='{'.a' * 8000} = 4", "line 1 has a key of more than 100 parts"),
        (f'"# \\" ="{".a" * 8000} = 4', "line 1 has a key of more than 100 parts"),
    ],
)
def test_a_file_that_is_wrong_is_one_line_with_its_name_and_the_key(refused, written, tmp_path, text, message):
    path = written(text)
    line = refused(3, "train", "--config", path, "--out", tmp_path / "run")
    assert line.startswith(f"gpu-nn train: {path} is no configuration of a run: ")
    assert message in line


def test_comments_and_values_have_as_many_dots_as_they_like(command, data, written):
    path = written(f"# {'.' * 300}\nepochs = 1 # {'.' * 300}\n'test-fraction' = 0.2\nlog = ['{'../' * 60}tmp/a.csv']\n")
    done = command("train", "--config", path, "--data", data, "--dry-run", "--json", "--device", "cpu")
    assert "parts" not in done.err
    assert (done.code, json.loads(done.out)["steps"]) == (0, 3)


def test_a_file_that_is_not_there_is_named(refused, tmp_path):
    line = refused(3, "train", "--config", tmp_path / "gone.toml")
    assert f"{tmp_path / 'gone.toml'} cannot be read: No such file or directory" in line
    assert "cannot be read: Is a directory" in refused(3, "train", "--config", tmp_path)


def test_a_device_in_the_file_that_is_not_there_is_code_4_and_a_flag_helps(refused, command, written, no_gpu, data):
    path = written("device = 'cuda'\n")
    assert "device='cuda', but" in refused(4, "train", "--config", path)
    assert command("train", "--config", path, "--data", data, *FAST).code == 0


def test_names_with_any_letters_come_back_as_they_were(command, data, tmp_path):
    odd = tmp_path / 'a "b" \\ \x7f été 日本'
    odd.mkdir()
    (odd / "points.npz").write_bytes(data.read_bytes())
    command("train", "--data", odd / "points.npz", *FAST, "--out", odd / "run")
    done = command("train", "--config", odd / "run" / "config.toml", "--out", tmp_path / "again")
    assert done.code == 0, done.err
    a, b = (load(folder / "model.safetensors", "cpu").flat_parameters for folder in (odd / "run", tmp_path / "again"))
    np.testing.assert_array_equal(a, b)


def test_targets_are_columns_or_files_beside_the_configuration(command, arrays, written, tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    np.save(tmp_path / "sub" / "x.npy", arrays["x"])
    np.save(tmp_path / "sub" / "y.npy", arrays["y"])
    lines = [f"{','.join(map(str, row))},{i % 3}" for i, row in enumerate(arrays["x"])]
    (tmp_path / "sub" / "table.csv").write_text("\n".join(["a,b,c,d,e,shape", *lines, ""]))
    monkeypatch.chdir(tmp_path)
    for text in (
        "data = 'x.npy'\ntarget = 'y.npy'\n",
        "data = 'table.csv'\ntarget = 'shape'\n",
        "data = 'table.csv'\ntarget = 5\n",
    ):
        path = written(text, "sub/settings.toml")
        done = command("train", "--config", path, *FAST, "--json", "--out", "run")
        assert done.code == 0, done.err
        again = command("train", "--config", "run/config.toml", "--json")
        assert json.loads(again.out)["test_loss"] == json.loads(done.out)["test_loss"]
        assert command("plot", "run", "--device", "cpu").code == 0
    found = json.loads(command("train", "--config", path, *FAST, "--dry-run", "--json").out)
    assert (found["target"], found["inputs"]) == ("shape", 5)
