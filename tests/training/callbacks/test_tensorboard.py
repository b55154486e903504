import pickle
import sys
import threading

import pytest
from sklearn.base import clone

from gpu_nn import SGD, MLPClassifier, Network, Trainer
from gpu_nn.training import Checkpoints, TensorBoardLog
from tests.training.blobs import blobs


def made(*callbacks):
    return Trainer(Network([5, 3], device="cpu"), SGD(), batch_size=32, callbacks=callbacks)


def scalars(folder):
    """{tag: [(step, value), …]} of all event files of the folder."""
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    found = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in loader.LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_every_epoch_is_there_once_even_after_a_resume(tmp_path):
    pytest.importorskip("tensorboard")
    made(TensorBoardLog(tmp_path / "board"), Checkpoints(tmp_path / "saved")).fit(*blobs(), epochs=2)
    trainer = made(TensorBoardLog(tmp_path / "board"))
    trainer.fit(*blobs(), epochs=4, validation=None, resume=tmp_path / "saved")
    found = scalars(tmp_path / "board")
    assert found.keys() == {"loss", "learning_rate", "seconds"}
    assert [step for step, _ in found["loss"]] == [1, 2, 3, 4]
    assert [value for _, value in found["loss"]] == pytest.approx(trainer.history.column("loss"))


def test_event_files_of_others_stay(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "events.out.tfevents.1.other").write_bytes(b"")
    made(TensorBoardLog(tmp_path)).fit(*blobs(), epochs=1)
    assert (tmp_path / "events.out.tfevents.1.other").exists()


def test_without_tensorboard_the_hint_is_named_at_once(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'gpu_nn\[tensorboard\]'"):
        TensorBoardLog(tmp_path)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_classifier_that_has_one_can_be_cloned_and_pickled_after_its_fit(tmp_path):
    pytest.importorskip("tensorboard")
    x, y = blobs()
    fitted = MLPClassifier((4,), max_iter=2, device="cpu", callbacks=[TensorBoardLog(tmp_path)]).fit(x, y)
    opened = pickle.loads(pickle.dumps(fitted))
    for again in (clone(fitted), opened):
        again.fit(x, y)
        assert [step for step, _ in scalars(tmp_path)["loss"]] == [1, 2]


def test_the_writers_thread_ends_when_another_callback_raises(tmp_path):
    pytest.importorskip("tensorboard")

    def fails(trainer, record):
        raise ZeroDivisionError

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        made(TensorBoardLog(tmp_path), fails).fit(*blobs(), epochs=2)
    assert threading.active_count() == before
    assert [step for step, _ in scalars(tmp_path)["loss"]] == [1]
