import numpy as np
import pytest

from gpu_nn import Adam, DataError, Network, Trainer, load
from gpu_nn.training import BestModel, Callback, Checkpoints, Trigger
from tests.training.blobs import blobs


def made(*callbacks):
    return Trainer(Network([5, 32, 3], device="cpu", seed=1), Adam(0.1), batch_size=8, callbacks=callbacks)


def fitted(trainer, **options):
    trainer.fit(*blobs(30, wrong=0.5), epochs=20, validation=blobs(seed=3, wrong=0.5), **options)
    return trainer


@pytest.mark.parametrize(("monitor", "best"), [("validation_loss", np.argmin), ("validation_accuracy", np.argmax)])
def test_the_file_is_the_network_of_the_best_epoch(tmp_path, monitor, best):
    seen = []
    callback = BestModel(tmp_path / "best.safetensors", monitor)
    trainer = fitted(made(callback, lambda t, _: seen.append(t.net.flat_parameters.copy())))
    index = int(best(trainer.history.column(monitor)))
    assert callback.best_epoch == index + 1 < 20
    np.testing.assert_array_equal(load(tmp_path / "best.safetensors", "cpu").flat_parameters, seen[index])


def test_a_resumed_training_ends_with_the_same_file(tmp_path):
    class InterruptAfter(Callback):
        every = Trigger(steps=30)

        def __call__(self, trainer, record):
            trainer.interrupt()

    fitted(made(BestModel(tmp_path / "whole")))
    fitted(made(BestModel(tmp_path / "best"), Checkpoints(tmp_path / "saved"), InterruptAfter()))
    fitted(made(BestModel(tmp_path / "best")), resume=tmp_path / "saved")
    whole, best = (load(tmp_path / name, "cpu").flat_parameters for name in ("whole", "best"))
    np.testing.assert_array_equal(best, whole)


def test_a_folder_that_is_not_there_is_an_error_of_ours(tmp_path):
    with pytest.raises(DataError, match="cannot write"):
        fitted(made(BestModel(tmp_path / "gone" / "best")))


@pytest.mark.parametrize(
    ("best", "epoch"), [(float("nan"), 1), (1.0, None), (None, 1), ("low", 1), (1.0, 0), (1.0, 1.5), (10**400, 1)]
)
def test_a_state_that_is_none_is_refused(best, epoch):
    callback = BestModel("none")
    with pytest.raises((ValueError, OverflowError)):
        callback.load_state({"best": best, "best_epoch": epoch})
    assert (callback.best, callback.best_epoch) == (None, None)
