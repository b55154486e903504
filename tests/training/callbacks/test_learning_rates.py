from gpu_nn import SGD, Network, Trainer
from gpu_nn.schedules import Cosine
from gpu_nn.training import Checkpoints, LearningRates
from tests.training.blobs import blobs


def made(*callbacks):
    return Trainer(Network([5, 3], device="cpu"), SGD(Cosine(0.1, steps=20)), batch_size=32, callbacks=callbacks)


def test_it_records_the_rate_that_each_step_was_made_with():
    rates = LearningRates(3)
    made(rates).fit(*blobs(), epochs=2)
    assert rates.steps == [3, 6, 9, 12, 15]
    assert rates.rates == [Cosine(0.1, steps=20)(step - 1) for step in rates.steps]


def test_a_resumed_training_has_the_whole_record(tmp_path):
    whole, first, second = LearningRates(), LearningRates(), LearningRates()
    made(whole).fit(*blobs(), epochs=3)
    made(first, Checkpoints(tmp_path)).fit(*blobs(), epochs=2)
    made(second).fit(*blobs(), epochs=3, resume=tmp_path)
    assert (second.steps, second.rates) == (whole.steps, whole.rates)
    assert len(whole.steps) == 24
