"""gpu-nn train --dry-run."""

import errno
import json

import pytest

from gpu_nn import Adam, Network
from gpu_nn.cli import training_setup
from gpu_nn.layers import Dense, Standardize
from gpu_nn.training import checkpoint
from tests.cli.conftest import CLASSES
from tests.cli.test_resume import Raise, with_callback  # noqa: F401
from tests.cuda_emulator.device import emulated_device

FAST = ("--epochs", 4, "--hidden", "7", "--device", "cpu")


def tree(folder):
    return sorted(folder.rglob("*"))


def test_it_says_what_would_be_trained_and_writes_nothing(command, data, tmp_path):
    options = ("--out", tmp_path / "new" / "run", "--log", tmp_path / "log.csv", "--early-stopping", 2)
    done = command("train", "--data", data, *FAST, *options, "--dry-run")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "64 rows to train, 8 to validate, 18 to test, 5 inputs, 3 classes"
    assert lines[2].split() == ["layer", "outputs", "parameters"]
    assert [line.split()[-2:] for line in lines[3:6]] == [["5", "0"], ["7", "42"], ["3", "24"]]
    assert lines[6].split() == ["all", "66"]
    assert (
        lines[8] == "adam with learning rate 0.001 in batches of 32: 2 batches an epoch, 8 in 4 epochs, on cpu, float32"
    )
    assert lines[9].startswith("memory about ")
    assert lines[10] == "nothing was trained or written"
    assert tree(tmp_path) == []


def test_json_says_the_same(command, data):
    found = json.loads(command("train", "--data", data, *FAST, "--dry-run", "--json").out)
    assert found["dry_run"] is True
    assert found["rows"] == {"training": 72, "validation": 0, "test": 18}
    assert (found["inputs"], found["classes"], found["parameters"]) == (5, len(CLASSES), 66)
    assert (found["batches_per_epoch"], found["steps"], found["device"]) == (3, 12, "cpu")
    assert [layer["parameters"] for layer in found["layers"]] == [0, 42, 24]
    parts = dict(found["memory_bytes"])
    assert parts.pop("total") == sum(parts.values())
    assert parts["data"] == 90 * (5 * 4 + 8)


def test_what_it_promises_is_what_is_trained(command, data, tmp_path):
    planned = json.loads(command("train", "--data", data, *FAST, "--dry-run", "--json").out)
    trained = json.loads(command("train", "--data", data, *FAST, "--json").out)
    assert planned["steps"] == trained["history"][-1]["steps"]
    assert planned["rows"]["test"] == trained["test_rows"]


def test_the_memory_is_that_of_the_arrays():
    net = Network([Standardize(), Dense(50, "relu"), Dense(4)], n_inputs=20, device="cpu")
    parts = training_setup._memory(net, Adam(1e-3), 32, 1000)
    assert parts["parameters"] == parts["gradients"] == net.flat_parameters.nbytes
    assert parts["optimizer"] == 2 * parts["parameters"]
    # The gathered rows and labels; outputs of the three layers, loss, and the gradient of what the last one gets.
    assert parts["batch"] == 32 * (20 * 4 + 8) + 32 * 4 * (20 + 50 + 4 + 1 + 50)
    assert parts["data"] == 1000 * (20 * 4 + 8)


def test_a_configuration_is_checked_too(command, refused, data, tmp_path):
    (tmp_path / "a.toml").write_text("epochs = 9\n")
    done = command("train", "--config", tmp_path / "a.toml", "--data", data, "--device", "cpu", "--dry-run", "--json")
    assert json.loads(done.out)["steps"] == 27
    (tmp_path / "a.toml").write_text("epochs = '9'\n")
    assert "expected a whole number" in refused(3, "train", "--config", tmp_path / "a.toml", "--dry-run")


def test_whatever_would_stop_the_training_stops_it(refused, no_gpu, data, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "run" / "model.safetensors").mkdir(parents=True)
    for code, options, message in (
        (3, ("--data", "gone.npz"), "gone.npz does not exist"),
        (3, ("--test-last", 90), "its test part cannot be the last 90"),
        (3, ("--out", tmp_path / "file" / "run"), "cannot be written: Not a directory; choose another folder"),
        (3, ("--out", tmp_path / "file"), "cannot be written: Not a directory"),
        (3, ("--out", tmp_path / "run"), "it holds a folder named model.safetensors"),
        (3, ("--log", tmp_path / "gone" / "a.csv"), "a.csv cannot be written: No such file or directory"),
        (3, ("--tensorboard", tmp_path / "file" / "board"), "--tensorboard "),
        (2, ("--device", "gpu"), "Did you mean 'cuda'?"),
        (4, ("--device", "cuda"), "device='cuda', but"),
        (2, ("--hidden", "x"), "argument --hidden"),
    ):
        assert message in refused(code, "train", "--data", data, *FAST, *options, "--dry-run")

    def read_only(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("gpu_nn.cli.run_folder.tempfile.TemporaryFile", read_only)
    line = refused(3, "train", "--data", data, *FAST, "--out", tmp_path / "new", "--dry-run")
    assert "cannot be written: Read-only file system; choose another folder" in line


def test_an_unfinished_run_is_not_planned_over_but_may_go_on(
    command,
    refused,
    data,
    tmp_path,
    with_callback,  # noqa: F811
):
    with_callback(Raise(5, ZeroDivisionError()))
    run = ("--data", data, *FAST, "--checkpoint-every", "2steps", "--out", tmp_path / "run")
    with pytest.raises(ZeroDivisionError):
        command("train", *run)
    with_callback(None)
    assert "holds an unfinished run" in refused(3, "train", *run, "--dry-run")
    before = {path: path.read_bytes() for path in tree(tmp_path) if path.is_file()}
    done = command("train", "--resume", tmp_path / "run", "--dry-run")
    assert (done.code, done.err) == (0, "")
    assert "3 batches an epoch, 12 in 4 epochs, of which 4 are done, on cpu" in done.out
    assert json.loads(command("train", "--resume", tmp_path / "run", "--dry-run", "--json").out)["steps_done"] == 4
    assert {path: path.read_bytes() for path in tree(tmp_path) if path.is_file()} == before
    assert "contradicts" in refused(2, "train", "--resume", tmp_path / "run", "--epochs", 3, "--dry-run")
    for path in (tmp_path / "run" / "checkpoints").glob("steps-*"):
        path.write_bytes(b"")
    assert "holds no whole checkpoint" in refused(3, "train", "--resume", tmp_path / "run", "--dry-run")


def test_of_a_finished_run_it_says_that_there_is_nothing_to_train(command, data, tmp_path):
    run = tmp_path / "run"
    command("train", "--data", data, *FAST, "--out", run)
    before = {path: path.read_bytes() for path in tree(run) if path.is_file()}
    done = command("train", "--resume", run, "--dry-run")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"the run in {run} is finished after 4 epochs: nothing would be trained\n"
    found = json.loads(command("train", "--resume", run, "--dry-run", "--json").out)
    assert found == {"dry_run": True, "finished": True, "epochs": 4}
    longer = json.loads(command("train", "--resume", run, "--epochs", 6, "--dry-run", "--json").out)
    assert (longer["finished"], longer["steps"], longer["steps_done"]) == (False, 18, 12)
    assert {path: path.read_bytes() for path in tree(run) if path.is_file()} == before


def test_what_a_checkpoint_does_not_say_is_an_error(command, data, tmp_path):
    run = tmp_path / "run"
    command("train", "--data", data, *FAST, "--out", run)
    path = next((run / "checkpoints").iterdir())
    whole = checkpoint.read(path)
    for position in (None, {}, {"steps": -1}, {"steps": 1.5}):
        checkpoint.write(path, {**whole.training, "position": position}, whole.arrays)
        done = command("train", "--resume", run, "--epochs", 6, "--dry-run")
        assert (done.code, done.out) == (3, "")
        assert "has a header that makes no training" in done.err


def test_of_several_ranks_one_says_it(command, data, monkeypatch):
    said = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        done = command("train", "--data", data, *FAST, "--distributed", "--dry-run")
        assert (done.code, done.err) == (0, "")
        said.append(done.out)
    assert said[0].startswith("72 rows to train")
    assert said[1] == ""


def test_sizes_are_short():
    sizes = [training_setup._size(size) for size in (0, 1023, 1024, 5 * 2**20, 2**30, 3.5 * 2**40, 2**52)]
    assert sizes == ["0 bytes", "1.02e+03 bytes", "1 KiB", "5 MiB", "1 GiB", "3.5 TiB", "4.1e+03 TiB"]


def test_the_memory_of_a_half_type_has_the_copies_of_the_parameters_and_half_the_activations():
    layers = [Standardize(), Dense(48, "relu"), Dense(4)]
    with emulated_device(nvmath=True) as device:
        nets = {dtype: Network(layers, n_inputs=20, device=device, dtype=dtype) for dtype in ("tf32", "mixed_bfloat16")}
        full, half = (training_setup._memory(net, Adam(1e-3), 32, 1000) for net in nets.values())
    assert half["parameters"] == 1.5 * full["parameters"] == 1.5 * half["gradients"]
    assert (half["data"], half["optimizer"]) == (full["data"], full["optimizer"])
    # 16 bytes a row are the mask of the ReLU.
    assert half["batch"] == 32 * (20 * 2 + 8) + 32 * (20 * 4 + 2 * (48 + 4 + 48) + 16 + 4)
    assert full["batch"] == 32 * (20 * 4 + 8) + 32 * (4 * (20 + 48 + 4 + 48 + 1) + 16)


def test_a_gpu_is_planned_for_with_the_same_numbers(command, data):
    plan = ("train", "--data", data, "--epochs", 4, "--hidden", 7, "--dry-run", "--json", "--device")
    on_cpu = json.loads(command(*plan, "cpu").out)
    with emulated_device():
        on_gpu = json.loads(command(*plan, "cuda").out)
    assert on_gpu.pop("device") == "cuda:0"
    assert {**on_gpu, "device": "cpu"} == on_cpu
