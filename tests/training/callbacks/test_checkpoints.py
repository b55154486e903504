import copy
import errno
import time
from itertools import pairwise

import pytest

from gpu_nn import SGD, DataError, Network, Trainer, TrainingDiverged, files
from gpu_nn.training import Callback, Checkpoints, Trigger
from gpu_nn.training.checkpoint import list_checkpoints, read
from tests.training.blobs import blobs


def fitted(*callbacks, epochs=5, lr=0.01, **options):
    trainer = Trainer(Network([5, 3], device="cpu"), SGD(lr), batch_size=32, callbacks=callbacks)
    trainer.fit(*blobs(), epochs=epochs, **options)
    return trainer


@pytest.mark.parametrize(
    ("every", "keep", "steps"),
    [
        (None, 2, [40, 32]),
        (Trigger(epochs=2), 2, [32, 16]),
        (Trigger(epochs=1), 1, [40]),
        (Trigger(steps=12), 3, [36, 24, 12]),
        (Trigger(epochs=9), 2, []),
    ],
)
def test_it_saves_as_often_as_it_is_told_and_keeps_the_newest(tmp_path, every, keep, steps):
    fitted(Checkpoints(tmp_path / "new" / "folder", every, keep=keep))
    assert list(list_checkpoints(tmp_path / "new" / "folder")) == steps


def test_the_older_ones_stay_until_the_new_one_is_whole(tmp_path, monkeypatch):
    seen = []
    real = files.fsync
    monkeypatch.setattr(files, "fsync", lambda file: seen.append(list(list_checkpoints(tmp_path))) or real(file))
    fitted(Checkpoints(tmp_path, keep=1), epochs=3)
    assert seen == [[], [8], [16]]


def test_a_full_disk_stops_the_training_and_leaves_the_older_one_whole(tmp_path, monkeypatch):
    real, writes = files.fsync, []

    def full(file):
        writes.append(file)
        if len(writes) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    monkeypatch.setattr(files, "fsync", full)
    with pytest.raises(DataError, match=r"cannot write .*steps-000000000024.*: No space left on device") as caught:
        fitted(Checkpoints(tmp_path))
    assert caught.value.__notes__ == ["raised by the callback Checkpoints, after epoch 3"]
    assert sorted(path.name[-11:] for path in tmp_path.iterdir()) == ["safetensors"] * 2
    for path in list_checkpoints(tmp_path).values():
        read(path)


def test_by_the_clock_it_takes_less_than_a_hundredth_of_the_time(tmp_path, monkeypatch):
    now, saves = 0.0, []

    def slow(*_):
        nonlocal now
        saves.append(now)
        now += 2.0  # seconds a checkpoint takes

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr("gpu_nn.training.checkpoint.write", slow)

    class Clock(Callback):
        every = Trigger(steps=1)

        def __call__(self, trainer, record):
            nonlocal now
            now += 1.0

    fitted(Clock(), Checkpoints(tmp_path, Trigger(seconds=10)), epochs=125)
    assert saves[0] >= 10
    pauses = [later - earlier - 2 for earlier, later in pairwise(saves)]
    assert len(pauses) >= 3
    assert min(pauses) >= 200


def test_it_saves_once_more_when_the_training_is_interrupted(tmp_path):
    class Interrupt(Callback):
        every = Trigger(steps=11)

        def __call__(self, trainer, record):
            trainer.interrupt()

    fitted(Checkpoints(tmp_path), Interrupt())
    assert list(list_checkpoints(tmp_path)) == [11, 8]


def test_a_folder_with_checkpoints_of_another_training_is_refused_before_the_first_step(tmp_path):
    fitted(Checkpoints(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match="holds the checkpoints of another training"):
        fitted(Checkpoints(tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("copied", [False, True], ids=["itself", "a copy"])
def test_another_training_with_the_same_callback_is_refused_too(tmp_path, copied):
    checkpoints = Checkpoints(tmp_path)
    fitted(checkpoints)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = copy.deepcopy(checkpoints) if copied else checkpoints
    with pytest.raises(DataError, match="holds the checkpoints of another training"):
        fitted(again, lr=0.02, epochs=2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_one_script_begins_and_resumes(tmp_path):
    for epochs in (2, 4):
        checkpoints = Checkpoints(tmp_path)
        trainer = fitted(checkpoints, epochs=epochs, resume=checkpoints.found())
        assert trainer.history.column("epoch") == list(range(1, epochs + 1))


def test_two_fits_of_one_trainer_share_the_folder(tmp_path):
    trainer = fitted(Checkpoints(tmp_path), epochs=1)
    trainer.fit(*blobs(), epochs=1)
    assert list(list_checkpoints(tmp_path)) == [16, 8]


def test_what_comes_after_the_checkpoint_that_was_resumed_from_goes(tmp_path):
    fitted(Checkpoints(tmp_path, keep=9))
    fitted(Checkpoints(tmp_path, keep=9), epochs=5, resume=tmp_path / "steps-000000000016.safetensors")
    (tmp_path / "steps-000000000032.safetensors").unlink()
    (tmp_path / "steps-000000000099.safetensors").write_bytes(b"")
    fitted(Checkpoints(tmp_path, keep=9), epochs=6, resume=tmp_path / "steps-000000000024.safetensors")
    assert list(list_checkpoints(tmp_path)) == [48, 40, 32, 24, 16, 8]


def test_halves_of_files_are_swept_away(tmp_path):
    (tmp_path / ".steps-000000000007.safetensors.x1").write_bytes(b"half")
    fitted(Checkpoints(tmp_path))
    assert not list(tmp_path.glob(".*"))


def test_a_state_that_has_diverged_is_not_saved(tmp_path):
    with pytest.raises(TrainingDiverged, match="step 2"):
        fitted(Checkpoints(tmp_path, Trigger(steps=1)), lr=1e38)
    assert list(list_checkpoints(tmp_path)) == [1]


def test_a_folder_that_cannot_be_made_and_a_wrong_keep_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write in .*file.*: (File exists|Not a directory)"):
        fitted(Checkpoints(tmp_path / "file"))
    with pytest.raises(ValueError, match="keep=0"):
        Checkpoints(tmp_path, keep=0)


@pytest.mark.parametrize("keep", [0, 1.5, "a", True, None])
def test_to_keep_takes_a_whole_number(tmp_path, keep):
    with pytest.raises(ValueError, match=r"keep=.*; expected a whole number ≥ 1"):
        Checkpoints(tmp_path, keep=keep)
