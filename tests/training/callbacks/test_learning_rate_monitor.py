import numpy as np
import pytest

from gpu_nn import SGD, Network, Trainer
from gpu_nn.schedules import Cosine
from gpu_nn.training import Checkpoints, LearningRateMonitor
from tests.training.blobs import blobs


def made(*callbacks):
    return Trainer(Network([5, 3], device="cpu"), SGD(Cosine(0.1, steps=20)), batch_size=32, callbacks=callbacks)


def test_it_records_the_rate_that_each_step_was_made_with():
    rates = LearningRateMonitor(3)
    made(rates).fit(*blobs(), epochs=2)
    assert rates.steps == [3, 6, 9, 12, 15]
    assert rates.rates == [Cosine(0.1, steps=20)(step - 1) for step in rates.steps]


def test_a_resumed_training_has_the_whole_record(tmp_path):
    whole, first, second = LearningRateMonitor(), LearningRateMonitor(), LearningRateMonitor()
    made(whole).fit(*blobs(), epochs=3)
    made(first, Checkpoints(tmp_path)).fit(*blobs(), epochs=2)
    made(second).fit(*blobs(), epochs=3, resume=tmp_path)
    assert (second.steps, second.rates) == (whole.steps, whole.rates)
    assert len(whole.steps) == 24


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", np.arange(3)),
        ("steps", np.arange(4.0)),
        ("steps", np.zeros((4, 1), np.int64)),
        ("steps", np.arange(-4, 0)),
        ("rates", np.full(4, np.nan)),
        ("rates", np.zeros(())),
        ("rates", [0.1] * 4),
    ],
    ids=["short", "floats", "matrix", "negative", "nan", "number", "list"],
)
def test_a_state_that_is_no_record_is_refused(name, value):
    rates = LearningRateMonitor()
    with pytest.raises((ValueError, TypeError, AttributeError)):
        rates.load_state({"steps": np.arange(4), "rates": np.zeros(4), name: value})
    assert rates.steps == rates.rates == []


def test_a_state_that_is_a_record_is_taken():
    rates = LearningRateMonitor()
    rates.load_state({"steps": np.arange(4), "rates": np.zeros(4)})
    assert (rates.steps, rates.rates) == ([0, 1, 2, 3], [0.0] * 4)
