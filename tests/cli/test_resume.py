"""gpu-nn train --resume, from what it resumes, and how signals end a training."""

import errno
import json
import os
import signal
import sys

import numpy as np
import pytest

from gpu_nn import Adam, Network, Trainer, files, load
from gpu_nn.cli import input_data, train, training_setup
from gpu_nn.cli.run_folder import LOCK_FILE
from gpu_nn.errors import DataError
from gpu_nn.training import Callback, Checkpoints, History, Trigger, checkpoint
from gpu_nn.training.checkpoint import list_checkpoints
from tests.cuda_emulator.device import emulated_device

SETTINGS = (
    "--hidden",
    8,
    "--normalisation",
    "batch",
    "--dropout",
    0.2,
    "--epochs",
    20,
    "--early-stopping",
    5,
    "--device",
    "cpu",
)
FINISHED = ["checkpoints", "config.toml", "history.json", "model.safetensors"]


def outcome(folder):
    """What a run comes to, but for the time it took."""
    assert sorted(os.listdir(folder)) == FINISHED
    assert len(os.listdir(folder / "checkpoints")) == 1
    net = load(folder / "model.safetensors", "cpu")
    history = History.from_json((folder / "history.json").read_text())
    records = [[value for name, value in vars(record).items() if name != "seconds"] for record in history.epochs]
    return net.flat_parameters.tobytes(), records


@pytest.fixture
def whole(command, data, tmp_path_factory):
    """The outcome of a run that is left alone."""
    folder = tmp_path_factory.mktemp("whole")
    assert command("train", "--data", data, *SETTINGS, "--out", folder).code == 0
    return outcome(folder)


class Raise(Callback):
    """Raises in the middle of a training, as a crash does."""

    def __init__(self, steps, raised):
        self.every, self.raised = Trigger(steps=steps), raised

    def __call__(self, trainer, record):
        raise self.raised


class Send(Callback):
    """Sends a signal to this process in the middle of a training."""

    def __init__(self, steps, signum):
        self.every, self.signum = Trigger(steps=steps), signum

    def __call__(self, trainer, record):
        os.kill(os.getpid(), self.signum)


@pytest.fixture
def with_callback(monkeypatch):
    """Lets trainings of the command have one callback more."""

    def with_callback(callback):
        def made(*arguments, **options):
            trainer = real(*arguments, **options)
            trainer.callbacks += [callback] if callback else []
            return trainer

        monkeypatch.setattr(training_setup, "Trainer", made)

    real = training_setup.Trainer
    return with_callback


@pytest.fixture
def broken_off(command, data, tmp_path, with_callback):
    """The folder of a run that crashed after step 19 with a checkpoint every 4 steps; an epoch has 3."""
    with_callback(Raise(19, ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        command("train", "--data", data, *SETTINGS, "--checkpoint-every", "4steps", "--out", tmp_path / "run")
    with_callback(None)
    return tmp_path / "run"


def test_a_run_that_was_broken_off_ends_as_if_it_had_not_been(command, whole, broken_off):
    assert list(list_checkpoints(broken_off / "checkpoints")) == [16, 12]
    done = command("train", "--resume", broken_off)
    assert done.code == 0
    assert done.out.startswith("test accuracy")
    assert outcome(broken_off) == whole


def test_a_run_without_a_checkpoint_yet_starts_from_the_beginning(command, whole, broken_off):
    for path in list_checkpoints(broken_off / "checkpoints").values():
        path.unlink()
    done = command("train", "--resume", broken_off)
    assert "the run has no checkpoint yet: it starts from the beginning" in done.err
    assert outcome(broken_off) == whole


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(command, whole, broken_off):
    newest, before = list_checkpoints(broken_off / "checkpoints").values()
    newest.write_bytes(newest.read_bytes()[:1000])
    done = command("train", "--resume", broken_off)
    assert f"{newest} is damaged: " in done.err
    assert f"the one before is used: {before.name}\n" in done.err
    assert outcome(broken_off) == whole


def test_checkpoints_that_are_all_damaged_are_an_error(refused, broken_off):
    for path in list_checkpoints(broken_off / "checkpoints").values():
        path.write_bytes(b"")
    assert "holds no whole checkpoint: " in refused(3, "train", "--resume", broken_off)


def test_a_newest_checkpoint_of_a_newer_version_is_an_error_with_its_hint(refused, broken_off):
    newest = next(iter(list_checkpoints(broken_off / "checkpoints").values()))
    newest.write_bytes(newest.read_bytes().replace(b'"version":"1"', b'"version":"2"'))
    message = refused(3, "train", "--resume", broken_off)
    assert f"{newest} has format version '2'; this gpu_nn reads version 1: upgrade" in message


def test_a_checkpoint_of_another_network_is_an_error_that_says_what_differs(command, broken_off):
    settings = broken_off / "checkpoints" / "config.toml"
    settings.write_text(settings.read_text().replace("hidden = [8]", "hidden = [9]"))
    done = command("train", "--resume", broken_off)
    message = done.err.splitlines()[-1]
    assert done.code == 3
    assert "is a checkpoint of another training: network.layers is" in message
    assert "Dense(units=8" in message.partition(" there and ")[0]
    assert "Dense(units=9" in message.partition(" there and ")[2]


def test_a_finished_run_is_reported_again(command, data, tmp_path):
    done = command("train", "--data", data, *SETTINGS, "--out", tmp_path, "--json")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    again = command("train", "--resume", tmp_path, "--json")
    first, second = json.loads(done.out), json.loads(again.out)
    assert again.code == 0
    assert again.err == f"the run in {tmp_path} is finished\n"
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_a_finished_run_is_reported_as_it_was_whatever_became_of_its_data(command, data, arrays, tmp_path):
    source = tmp_path / "points.npz"
    source.write_bytes(data.read_bytes())
    run = tmp_path / "run"
    first = json.loads(command("train", "--data", source, *SETTINGS, "--out", run, "--json").out)
    np.savez(source, x=arrays["x"][::-1] * 2, y=arrays["y"])
    changed = json.loads(command("train", "--resume", run, "--json").out)
    source.unlink()
    gone = json.loads(command("train", "--resume", run, "--json").out)
    assert {**first, "seconds": 0} == {**changed, "seconds": 0} == {**gone, "seconds": 0}
    result = json.loads((run / "history.json").read_text())
    assert result["test"] == {"loss": first["test_loss"], "accuracy": first["test_accuracy"], "rows": 18}
    assert (result["data"]["training"]["rows"], result["data"]["validation"]["rows"]) == (64, 8)


def test_a_run_that_kept_no_result_of_its_test_says_so(command, data, tmp_path):
    first = json.loads(command("train", "--data", data, *SETTINGS, "--out", tmp_path, "--json").out)
    path = tmp_path / "history.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({"epochs": result["epochs"]}))
    again = command("train", "--resume", tmp_path, "--json")
    assert "history.json has no test result: this one is on the data as they are now" in again.err
    assert json.loads(again.out)["test_accuracy"] == first["test_accuracy"]


@pytest.mark.parametrize(
    "test", [3, [], {"loss": 1}, {"loss": "NaN", "accuracy": 1, "rows": 1}, {"loss": 1, "accuracy": 1, "rows": "many"}]
)
def test_a_result_that_makes_no_sense_is_an_error(command, data, tmp_path, test):
    command("train", "--data", data, *SETTINGS, "--out", tmp_path)
    path = tmp_path / "history.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "test": test}))
    done = command("train", "--resume", tmp_path)
    assert (done.code, done.out) == (3, "")
    assert "history.json is no history of a run" in done.err.splitlines()[-1]


# More epochs


PLAIN = ("--hidden", 8, "--normalisation", "batch", "--dropout", 0.2, "--validation-fraction", 0.2, "--device", "cpu")


@pytest.mark.parametrize("patience", [(), ("--early-stopping", 40)], ids=["plain", "best kept"])
@pytest.mark.parametrize("first", [0, 3])
def test_a_finished_run_that_resumes_ends_as_if_it_had_been_one(command, data, tmp_path, first, patience):
    run = ("--data", data, *PLAIN, *patience)
    command("train", *run, "--epochs", 12, "--lr", 0.1, "--out", tmp_path / "whole")
    command("train", *run, "--epochs", first, "--lr", 0.1, "--out", tmp_path / "parts")
    for epochs in (7, 12):
        assert command("train", "--resume", tmp_path / "parts", "--epochs", epochs).code == 0
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    configurations = [(tmp_path / name / "config.toml").read_text() for name in ("parts", "whole")]
    assert configurations[0] == configurations[1]


def test_an_unfinished_run_may_get_more_epochs(command, data, tmp_path, with_callback):
    command("train", "--data", data, *PLAIN, "--epochs", 12, "--out", tmp_path / "whole")
    with_callback(Raise(8, ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        command("train", "--data", data, *PLAIN, "--epochs", 5, "--checkpoint-every", "2steps", "--out", tmp_path / "a")
    with_callback(Raise(20, ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        command("train", "--resume", tmp_path / "a", "--epochs", 12)
    with_callback(None)
    assert command("train", "--resume", tmp_path / "a").code == 0
    assert outcome(tmp_path / "a") == outcome(tmp_path / "whole")


def test_a_run_that_resumes_and_fails_at_once_is_what_it_was(command, data, arrays, tmp_path):
    source = tmp_path / "points.npz"
    source.write_bytes(data.read_bytes())
    run = tmp_path / "run"
    command("train", "--data", source, *PLAIN, "--epochs", 3, "--out", run)
    before = {path: path.read_bytes() for path in run.rglob("*.*")}
    np.savez(source, x=arrays["x"] * 2, y=arrays["y"])
    done = command("train", "--resume", run, "--epochs", 5)
    assert done.code == 3
    assert "is a checkpoint of other data" in done.err
    assert {path: path.read_bytes() for path in run.rglob("*.*")} == before


def test_a_run_that_early_stopping_ended_does_not_resume(command, refused, data, tmp_path):
    options = ("--hidden", 8, "--epochs", 500, "--lr", 0.1, "--early-stopping", 3, "--device", "cpu")
    command("train", "--data", data, *options, "--out", tmp_path / "run")
    line = refused(3, "train", "--resume", tmp_path / "run", "--epochs", 600)
    assert "was ended by early stopping, not by --epochs; gpu-nn train --config " in line
    assert "--early-stopping N, with a larger N, trains longer" in line
    assert line == refused(3, "train", "--resume", tmp_path / "run", "--epochs", 600, "--dry-run")


def test_a_run_whose_final_checkpoint_is_gone_does_not_resume(command, refused, data, tmp_path):
    command("train", "--data", data, *PLAIN, "--epochs", 2, "--out", tmp_path / "run")
    for path in list_checkpoints(tmp_path / "run" / "checkpoints").values():
        path.unlink()
    line = refused(3, "train", "--resume", tmp_path / "run", "--epochs", 3)
    assert "checkpoints does not hold the final checkpoint of the run, which more epochs need; gpu-nn train " in line
    assert command("train", "--resume", tmp_path / "run").code == 0


def test_a_final_checkpoint_for_which_there_is_no_room_does_not_spoil_the_run(command, data, tmp_path, monkeypatch):
    def full(path, *state):
        raise DataError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(training_setup, "write_checkpoint", full)
    done = command("train", "--data", data, *PLAIN, "--epochs", 2, "--out", tmp_path / "run")
    assert done.code == 0
    assert "No space left on device: this run cannot continue to more epochs" in done.err
    assert sorted(os.listdir(tmp_path / "run")) == FINISHED[1:]


# Another device


def test_a_run_resumes_where_there_is_no_gpu_and_says_that_bits_may_differ(
    command, data, tmp_path, with_callback, request
):
    run = ("--data", data, *PLAIN, "--epochs", 6, "--checkpoint-every", "4steps", "--out", tmp_path / "run")
    with_callback(Raise(9, ZeroDivisionError()))
    with emulated_device(), pytest.raises(ZeroDivisionError):
        command("train", *run, "--device", "cuda")
    with_callback(None)
    request.getfixturevalue("no_gpu")
    done = command("train", "--resume", tmp_path / "run")
    assert (done.code, "device='cpu' or 'auto' runs without a GPU" in done.err) == (4, True)
    done = command("train", "--resume", tmp_path / "run", "--device", "cpu", "--json")
    assert done.code == 0
    assert done.err.startswith("the run was on cuda:0 and is on cpu now: its bits may differ\n")
    result = json.loads(done.out)
    assert (result["device"], result["epochs"]) == ("cpu", 6)
    assert 'device = "cpu"\n' in (tmp_path / "run" / "config.toml").read_text()
    assert "bits" not in command("train", "--resume", tmp_path / "run", "--device", "cpu").err


# Another process


@pytest.mark.parametrize("again", ["--out", "--resume"])
def test_a_second_process_in_the_folder_is_refused(process, command, quick, tmp_path, again):
    run = tmp_path / "run"
    running = process("train", *quick, "--epochs", 10**6, "--device", "cpu", "--out", run)
    while "epoch 1," not in running.stderr.readline():
        assert running.poll() is None
    options = quick if again == "--out" else ()
    second = process("train", *options, again, run)
    out, err = second.communicate(timeout=30)
    assert (second.returncode, out) == (3, "")
    assert err == f"gpu-nn train: another process trains in {run}; wait for it, or end it first\n"
    assert running.poll() is None
    running.kill()
    running.wait()
    assert (run / LOCK_FILE).exists()
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    assert command("train", *quick, *SETTINGS, "--out", run).code == 0
    assert sorted(os.listdir(run)) == FINISHED


def test_the_older_run_can_go_on_when_none_that_was_to_replace_it_had_a_checkpoint(process, command, data, tmp_path):
    settings = ("--data", data, *PLAIN, "--epochs")
    run = tmp_path / "run"
    command("train", *settings, 5, "--out", tmp_path / "whole")
    command("train", *settings, 2, "--out", run)
    killed = process("train", *settings, 10**6, "--out", run)
    while "epoch 1," not in killed.stderr.readline():
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    assert command("train", *settings, 3, "--lr", "1e30", "--out", run).code == 5
    assert command("train", "--resume", run, "--epochs", 5).code == 0
    assert outcome(run) == outcome(tmp_path / "whole")
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["steps-000000000010.safetensors"]


@pytest.mark.parametrize("more", [(), ("--epochs", 23)], ids=["as it was", "more epochs"])
def test_a_run_that_another_process_ends_just_now_stays_as_that_left_it(command, broken_off, whole, monkeypatch, more):
    real = train.locked

    def late(folder):
        monkeypatch.setattr(train, "locked", real)
        assert command("train", "--resume", broken_off).code == 0
        return real(folder)

    monkeypatch.setattr(train, "locked", late)
    done = command("train", "--resume", broken_off, *more)
    assert (done.code, done.out) == (3, "")
    assert done.err.endswith(f"another process has just changed {broken_off}; try again\n")
    assert outcome(broken_off) == whole
    assert sorted(os.listdir(broken_off)) == FINISHED
    assert "is finished" in command("train", "--resume", broken_off).err


def test_it_resumes_from_any_folder(command, data, whole, tmp_path, monkeypatch, with_callback):
    (tmp_path / "points.npz").write_bytes(data.read_bytes())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with_callback(Raise(11, ZeroDivisionError()))
    options = ("--log", "log.csv", "--out", "run", "--checkpoint-every", "2steps")
    with pytest.raises(ZeroDivisionError):
        command("train", "--data", "points.npz", *SETTINGS, *options)
    with_callback(None)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command("train", "--resume", "../run").code == 0
    assert outcome(tmp_path / "run") == whole
    epochs = [line.partition(",")[0] for line in (tmp_path / "log.csv").read_text().splitlines()]
    assert epochs == ["epoch", *map(str, range(1, len(whole[1]) + 1))]


def test_logs_are_the_history(command, data, tmp_path):
    logs = ("--log", tmp_path / "a.csv", "--log", tmp_path / "a.jsonl")
    command("train", "--data", data, *SETTINGS, "--out", tmp_path / "run", *logs)
    history = History.from_json((tmp_path / "run" / "history.json").read_text())
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == history.column("loss")
    assert len((tmp_path / "a.csv").read_text().splitlines()) == len(history) + 1


def test_tensorboard_that_is_not_installed_is_one_line_with_its_hint(command, data, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    options = ("--tensorboard", tmp_path / "board", "--out", tmp_path / "run")
    done = command("train", "--data", data, *SETTINGS, *options)
    assert (done.code, done.out) == (2, "")
    assert "--tensorboard: TensorBoardLog needs TensorBoard: pip install" in done.err.splitlines()[-1]
    assert os.listdir(tmp_path) == []


def test_early_stopping_holds_rows_out_and_stops(command, data, tmp_path):
    options = ("--hidden", 8, "--epochs", 500, "--lr", 0.1, "--early-stopping", 3, "--device", "cpu", "--json")
    done = command("train", "--data", data, *options, "--out", tmp_path)
    assert done.err.startswith("64 rows to train, 8 to validate, 18 to test,")
    losses = History.from_json((tmp_path / "history.json").read_text()).column("validation_loss")
    assert len(losses) < 500
    assert losses.index(min(losses)) == len(losses) - 4
    assert json.loads(done.out)["epochs"] == len(losses)


# Signals


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_after_the_step_saves_and_names_the_command_that_resumes(
    command, data, whole, tmp_path, with_callback, signum, code
):
    folder = tmp_path / "a run"
    before = signal.getsignal(signum)
    with_callback(Send(11, signum))
    done = command("train", "--data", data, *SETTINGS, "--out", folder)
    assert (done.code, done.out) == (code, "")
    assert done.err.splitlines()[-1] == f"gpu-nn train: interrupted; gpu-nn train --resume '{folder}' continues the run"
    assert signal.getsignal(signum) is before
    assert list(list_checkpoints(folder / "checkpoints")) == [11]
    with_callback(None)
    assert command("train", "--resume", folder).code == 0
    assert outcome(folder) == whole


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_that_gets_a_signal_leaves_a_run_that_resumes(process, quick, tmp_path, signum, code):
    running = process("train", *quick, "--epochs", 10**6, "--device", "cpu", "--out", tmp_path / "run")
    while "epoch 1," not in running.stderr.readline():
        assert running.poll() is None
    running.send_signal(signum)
    lines = running.stderr.read().splitlines()
    assert running.wait(30) == code
    assert lines[-1] == f"gpu-nn train: interrupted; gpu-nn train --resume {tmp_path / 'run'} continues the run"
    assert len(list_checkpoints(tmp_path / "run" / "checkpoints")) == 1


def test_a_signal_before_the_training_leaves_nothing(command, data, tmp_path, monkeypatch):
    real = input_data.read

    def interrupted(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **options)

    monkeypatch.setattr(input_data, "read", interrupted)
    done = command("train", "--data", data, *SETTINGS, "--out", tmp_path / "new" / "run")
    assert (done.code, done.out, done.err) == (143, "", "gpu-nn train: interrupted\n")
    assert os.listdir(tmp_path) == []


def test_a_second_sigint_ends_at_once(command, data, tmp_path, with_callback):
    class Twice(Send):
        def __call__(self, trainer, record):
            super().__call__(trainer, record)
            super().__call__(trainer, record)

    with_callback(Twice(11, signal.SIGINT))
    done = command("train", "--data", data, *SETTINGS, "--out", tmp_path / "run", "--checkpoint-every", "5steps")
    assert done.code == 130
    assert list(list_checkpoints(tmp_path / "run" / "checkpoints")) == [10, 5]
    with_callback(Twice(13, signal.SIGTERM))
    done = command("train", "--resume", tmp_path / "run")
    assert done.code == 143
    assert next(iter(list_checkpoints(tmp_path / "run" / "checkpoints"))) == 13


# A disk that is full


def test_a_disk_that_becomes_full_stops_the_run_with_its_cause_and_leaves_it_to_resume(
    command, data, whole, tmp_path, monkeypatch
):
    real, writes = files.fsync, []

    def full(file):
        writes.append(file)
        if len(writes) == 4:  # the configuration, two checkpoints, and then
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    monkeypatch.setattr(files, "fsync", full)
    options = ("--checkpoint-every", "4steps", "--out", tmp_path / "run")
    done = command("train", "--data", data, *SETTINGS, *options)
    assert (done.code, done.out) == (3, "")
    path = tmp_path / "run" / "checkpoints" / "steps-000000000012.safetensors"
    assert done.err.splitlines()[-1] == f"gpu-nn train: cannot write {path}: No space left on device"
    assert list(list_checkpoints(path.parent)) == [8, 4]
    assert not list(path.parent.glob(".*"))
    assert command("train", "--resume", tmp_path / "run").code == 0
    assert outcome(tmp_path / "run") == whole


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("room_for", [0, 1, 2])
def test_a_run_that_resumes_to_a_full_disk_is_what_it_was(
    command, data, broken_off, tmp_path, monkeypatch, finished, room_for
):
    run = broken_off
    if finished:
        run = tmp_path / "finished"
        command("train", "--data", data, *PLAIN, "--epochs", 3, "--out", run)
    before = {path: path.read_bytes() for path in run.rglob("*.*")}
    real, writes = files.fsync, []

    def full(file):
        writes.append(file)
        if len(writes) > room_for:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    with monkeypatch.context() as patch:
        patch.setattr(files, "fsync", full)
        done = command("train", "--resume", run, "--epochs", 25)
    assert done.code == 3
    assert "No space left on device" in done.err.splitlines()[-1]
    assert {path: path.read_bytes() for path in run.rglob("*.*")} == before
    assert command("train", "--resume", run, "--epochs", 25).code == 0


def test_the_final_checkpoint_of_a_killed_process_is_not_taken_for_that_of_the_run(
    command, data, tmp_path, monkeypatch, with_callback
):
    run = ("--data", data, *PLAIN, "--checkpoint-every", "2steps", "--out", tmp_path / "run")
    with_callback(Raise(5, ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        command("train", *run, "--epochs", 4)
    with_callback(None)
    checkpoints = tmp_path / "run" / "checkpoints"
    (checkpoints / ".last.safetensors").write_bytes(b"of a process that was killed")

    def full(path, *state):
        raise DataError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(training_setup, "write_checkpoint", full)
    assert command("train", "--resume", tmp_path / "run").code == 0
    for path in checkpoints.iterdir():
        checkpoint.read(path)


def test_a_run_that_is_finished_stays_so_when_nobody_reads_its_report(
    command, data, tmp_path, monkeypatch, with_callback
):
    """Its settings have changed and no checkpoint has come since: a run that fails like that is undone."""
    run = ("--data", data, *PLAIN, "--epochs", 3, "--out", tmp_path / "run")
    with_callback(Send(6, signal.SIGINT))
    with emulated_device():
        assert command("train", *run, "--device", "cuda").code == 130
    with_callback(None)
    assert list(list_checkpoints(tmp_path / "run" / "checkpoints")) == [6]

    def gone(*_):
        raise BrokenPipeError

    monkeypatch.setattr(train, "_print_test", gone)
    assert command("train", "--resume", tmp_path / "run", "--device", "cpu").code == 1
    assert sorted(os.listdir(tmp_path / "run")) == FINISHED
    assert os.listdir(tmp_path / "run" / "checkpoints") == ["steps-000000000006.safetensors"]


# What is refused


@pytest.mark.parametrize(
    ("flag", "value", "has"),
    [
        ("--lr", 0.5, "--lr 0.001"),
        ("--hidden", "8,8", "--hidden 8"),
        ("--epochs", 19, "--epochs 20"),
        ("--max-norm", 1, "no such flag"),
        ("--data", "other.npz", "--data "),
        ("--checkpoint-every", 4, "--checkpoint-every 4 steps"),
        ("--log", "a.csv", "no such flag"),
        ("--dtype", "float64", "--dtype float32"),
    ],
)
def test_a_flag_that_contradicts_the_run_is_named(refused, broken_off, flag, value, has):
    line = refused(2, "train", "--resume", broken_off, flag, value)
    assert line.startswith(f"gpu-nn train: {flag} ")
    assert f" contradicts the run in {broken_off}, which has {has}" in line


def test_flags_that_say_the_same_are_taken(command, data, whole, broken_off):
    flags = ("--data", data, *SETTINGS, "--lr", 1e-3, "--checkpoint-every", "4steps", "--out", broken_off)
    assert command("train", "--resume", broken_off, *flags).code == 0
    assert outcome(broken_off) == whole


def test_another_out_is_a_contradiction(refused, broken_off, tmp_path):
    line = refused(2, "train", "--resume", broken_off, "--out", tmp_path / "other")
    assert "--out " in line
    assert "a run stays in its folder" in line


def test_an_unfinished_run_is_not_overwritten(refused, data, broken_off):
    line = refused(3, "train", "--data", data, *SETTINGS, "--out", broken_off)
    assert "holds an unfinished run: gpu-nn train --resume " in line
    assert f"delete {broken_off / 'checkpoints'} to start a new run" in line


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["real", "dry"])
def test_checkpoints_of_a_training_in_python_are_not_deleted(command, refused, data, tmp_path, dry):
    net = Network([5, 3], device="cpu")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    Trainer(net, Adam(), callbacks=[Checkpoints(tmp_path / "run" / "checkpoints")]).fit(
        np.zeros((4, 5)), np.zeros(4, int), epochs=2
    )
    line = refused(3, "train", "--data", data, *SETTINGS, "--out", tmp_path / "run", *dry)
    assert "holds checkpoints of a training that `gpu-nn train` did not start: choose another folder" in line
    assert f"or delete {tmp_path / 'run' / 'checkpoints'}" in line


def test_what_else_lies_beside_checkpoints_stays(command, data, broken_off):
    (broken_off / "checkpoints" / ".gitignore").write_text("*")
    (broken_off / "checkpoints" / ".steps-000000000020.safetensors.abc").write_bytes(b"half")
    assert command("train", "--resume", broken_off).code == 0
    assert [name for name in os.listdir(broken_off / "checkpoints") if name.startswith(".")] == [".gitignore"]


def test_a_folder_without_a_run_is_named(refused, tmp_path):
    assert "--resume gone does not exist" in refused(3, "train", "--resume", "gone")
    assert f"--resume {tmp_path} holds no run" in refused(3, "train", "--resume", tmp_path)


def test_data_that_have_changed_are_an_error(command, data, arrays, broken_off, monkeypatch):
    read = input_data.read

    def changed(*arguments, **options):
        found = read(*arguments, **options)
        found.x = found.x * 1.5
        return found

    monkeypatch.setattr(input_data, "read", changed)
    done = command("train", "--resume", broken_off)
    assert done.code == 3
    assert "is a checkpoint of other data: training.checksum" in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 20 20", "is no configuration of a run: "),
        ("epochs = -1", "argument --epochs: '-1'; expected a whole number"),
        ("epochs = true", "epochs = True; expected a whole number"),
        ("epochs = {a = 1}", "epochs = {'a': 1}; expected a whole number"),
        ("epoch = 20", "Did you mean 'epochs'?"),
        ('resume = "x"', "resume = 'x' is no setting of a run; give the flag --resume"),
        ("\xff", "is no configuration of a run: "),
        ("a = " + "[" * 10_000, "is no configuration of a run: "),
    ],
    ids=lambda text: text[:20],
)
def test_a_configuration_that_was_spoilt_is_an_error_with_its_place(refused, broken_off, text, message):
    (broken_off / "checkpoints" / "config.toml").write_bytes(text.encode("latin-1"))
    line = refused(3, "train", "--resume", broken_off)
    assert str(broken_off / "checkpoints" / "config.toml") in line
    assert message in line


def test_checkpoints_need_a_folder(refused):
    assert "--checkpoint-every needs --out FOLDER" in refused(2, "train", "--checkpoint-every", 1)


def test_the_resolved_configuration_is_beside_the_model(command, data, tmp_path):
    command("train", "--data", data, *SETTINGS, "--out", tmp_path)
    lines = (tmp_path / "config.toml").read_text().splitlines()
    assert {
        f"data = {json.dumps(str(data))}",
        "hidden = [8]",
        "lr = 0.001",
        'device = "cpu"',
        "validation-fraction = 0.1",
        "batch-size = 32",
    } <= set(lines)


# SIGKILL


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="kills processes as Linux does")
def test_a_run_that_is_killed_at_random_moments_ends_in_the_same_bits():
    from tests.fuzz.kills import measured

    result = measured(kills=4, seed=1)
    assert result["problems"] == []
    assert result["kills"] >= 4
    assert 1 <= result["kills_of_streamed_runs"] < result["kills"]
