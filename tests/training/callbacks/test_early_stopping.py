import math

import numpy as np
import pytest

from gpu_nn import Adam, Dense, Dropout, Network, Standardize, Trainer
from gpu_nn.training import EarlyStopping, EpochRecord
from gpu_nn.training.callbacks.monitor import Monitor
from tests.training.blobs import blobs


def told(callback, values, name="validation_loss"):
    """The epochs after which the callback lets a training go on, for these values of what it monitors."""
    trainer = Trainer(Network([5, 3], device="cpu"), Adam(0.1))
    trainer.interrupted, trainer.data = False, {"training": {}, "validation": {}}
    callback.begin(trainer)
    for epoch, value in enumerate(values, 1):
        fields = {"loss": 0.0, "validation_loss": 0.0, "validation_accuracy": 0.0, name: value}
        callback(trainer, EpochRecord(epoch=epoch, steps=epoch, learning_rate=0.1, seconds=0.0, **fields))
        if trainer.stopping:
            return epoch
    return None


@pytest.mark.parametrize(
    ("options", "values", "stopped_after"),
    [
        ({"patience": 2}, [3, 2, 1, 1, 1], 5),
        ({"patience": 2}, [3, 4, 2, 3, 1, 2, 1], 7),
        ({"patience": 3}, [3, 4, 5], None),
        ({"patience": 1, "min_delta": 0.5}, [3, 2.4, 2], 3),
        ({"patience": 2}, [3, math.nan, math.nan], 3),
        ({"patience": 2}, [math.nan, 3, 2, 1], None),
        ({"patience": 2, "monitor": "loss"}, [1, 2, 3], 3),
        ({"patience": 2, "monitor": "validation_accuracy"}, [0.1, 0.2, 0.2, 0.1], 4),
    ],
)
def test_it_stops_after_patience_epochs_in_a_row_that_were_no_better(options, values, stopped_after):
    assert told(EarlyStopping(**options), values, options.get("monitor", "validation_loss")) == stopped_after


def overfitted(callback, epochs=40):
    """A net that learns the noise of 30 rows, with a high learning rate."""
    net = Network([Standardize(), Dense(64, "relu"), Dropout(0.1), Dense(3)], n_inputs=5, device="cpu", seed=1)
    seen = {}
    trainer = Trainer(net, Adam(0.1), batch_size=8, callbacks=[callback])
    trainer.callbacks.append(lambda t, record: seen.update({record.epoch: t.net.flat_parameters.copy()}))
    trainer.fit(*blobs(30, wrong=0.5), epochs=epochs, validation=blobs(seed=3, wrong=0.5))
    return trainer, seen


def test_the_best_weights_come_back_when_it_stops():
    stopping = EarlyStopping(patience=3)
    trainer, seen = overfitted(stopping)
    losses = trainer.history.column("validation_loss")
    assert len(losses) < 40
    assert stopping.best_epoch == int(np.argmin(losses)) + 1 == len(losses) - 3
    np.testing.assert_array_equal(trainer.net.flat_parameters, seen[stopping.best_epoch])


def test_the_best_weights_come_back_when_the_epochs_run_out():
    stopping = EarlyStopping(patience=1000)
    trainer, seen = overfitted(stopping)
    assert len(trainer.history) == 40
    assert stopping.best_epoch < 40
    np.testing.assert_array_equal(trainer.net.flat_parameters, seen[stopping.best_epoch])


def test_counters_of_random_draws_do_not_go_back():
    trainer, _ = overfitted(EarlyStopping(patience=3))
    assert trainer.net.state["2.counter"][0] == trainer.optimizer.steps


def test_without_restore_best_the_latest_weights_stay():
    trainer, seen = overfitted(EarlyStopping(patience=3, restore_best=False))
    np.testing.assert_array_equal(trainer.net.flat_parameters, seen[len(trainer.history)])


def test_another_fit_begins_to_wait_anew():
    stopping = EarlyStopping(patience=3)
    trainer, _ = overfitted(stopping)
    before = len(trainer.history)
    trainer.fit(*blobs(30, wrong=0.5), epochs=2, validation=blobs(seed=3, wrong=0.5))
    assert len(trainer.history) == before + 2
    assert stopping.best_epoch > before


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="patience=0; expected a whole number ≥ 1"):
        EarlyStopping(patience=0)
    with pytest.raises(ValueError, match="min_delta=-1"):
        EarlyStopping(min_delta=-1)
    with pytest.raises(ValueError, match=r"monitor='val_loss' is not one of .*Did you mean 'validation_loss'"):
        EarlyStopping("val_loss")


def test_without_validation_data_it_says_what_is_missing():
    trainer = Trainer(Network([5, 3], device="cpu"), Adam(0.1), callbacks=[EarlyStopping()])
    with pytest.raises(ValueError, match="monitor='validation_loss' needs validation data") as caught:
        trainer.fit(*blobs(), epochs=2)
    assert "the callback EarlyStopping" in caught.value.__notes__[0]


def test_a_monitor_knows_which_way_is_better():
    assert Monitor("loss").better(1, 2)
    assert not Monitor("loss").better(2, 2)
    assert Monitor("validation_accuracy").better(2, 1)
    assert Monitor("loss").better(5, None)
    assert not Monitor("loss").better(math.nan, None)
