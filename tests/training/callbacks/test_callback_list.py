import math
import time

import pytest

from gpu_nn import Network, Trainer
from gpu_nn.optimizers import SGD
from gpu_nn.training import BestModel, Callback, EarlyStopping, EpochRecord, StepRecord, Trigger
from gpu_nn.training.callbacks.callback_list import CallbackList
from tests.training.blobs import blobs


class Told(Callback):
    def __init__(self, every, told=None, name=""):
        self.every, self.told, self.name = every, [] if told is None else told, name

    def __call__(self, trainer, record):
        self.told.append((self.name, record))


def fitted(callbacks, epochs=3, **options):
    trainer = Trainer(Network([5, 3], device="cpu"), SGD(), batch_size=32, callbacks=callbacks)
    trainer.fit(*blobs(), epochs=epochs, **options)
    return trainer


def test_each_kind_of_trigger_is_met_when_it_says():
    epochs, steps = Told(Trigger(epochs=2)), Told(Trigger(steps=5))
    fitted([epochs, steps], epochs=4)
    assert [record.epoch for _, record in epochs.told] == [2, 4]
    assert [(record.epoch, record.step, record.steps) for _, record in steps.told] == [
        (1, 5, 5),
        (2, 2, 10),
        (2, 7, 15),
        (3, 4, 20),
        (4, 1, 25),
        (4, 6, 30),
    ]
    assert {type(record) for _, record in epochs.told} == {EpochRecord}
    assert {type(record) for _, record in steps.told} == {StepRecord}


def test_the_clock_calls_between_two_steps_and_counts_from_the_latest_call(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    told = Told(Trigger(seconds=10))
    callbacks = CallbackList([told])
    trainer = Trainer(Network([5, 3], device="cpu"), SGD())
    seen = []
    for now in (9.0, 10.0, 15.0, 19.9, 31.0, 40.0, 41.0):  # noqa: B007
        callbacks.after_step(trainer)
        seen.append(len(told.told))
    assert seen == [0, 1, 1, 1, 2, 2, 3]


def test_a_trigger_is_one_of_three():
    for wrong in ({}, {"epochs": 1, "steps": 1}, {"epochs": -1}, {"steps": 1.5}, {"seconds": math.inf}):
        with pytest.raises(ValueError, match="expected one of epochs"):
            Trigger(**wrong)
    assert [str(Trigger(**one)) for one in ({"epochs": 2}, {"steps": 10**7}, {"seconds": 0.5})] == [
        "2 epochs",
        "10000000 steps",
        "0.5 seconds",
    ]


def test_functions_are_called_after_every_epoch():
    told = []
    fitted([lambda trainer, record: told.append((trainer.optimizer.steps, record.epoch))], epochs=2)
    assert told == [(8, 1), (16, 2)]


def test_callbacks_come_in_their_order_and_the_last_ones_last():
    told = []

    class Last(Told):
        last = True

    once = Trigger(epochs=1)
    fitted([Last(once, told, "last"), Told(once, told, "one"), Told(once, told, "two")], epochs=1)
    assert [name for name, _ in told] == ["one", "two", "last"]


def test_begin_and_end_surround_the_calls():
    told = []

    class All(Callback):
        def begin(self, trainer):
            told.append(("begin", len(trainer.history)))

        def __call__(self, trainer, record):
            told.append("call")

        def end(self, trainer):
            told.append(("end", len(trainer.history)))

    trainer = fitted([All()], epochs=2)
    trainer.fit(*blobs(), epochs=1)
    assert told == [("begin", 0), "call", "call", ("end", 2), ("begin", 2), "call", ("end", 3)]


class Failing(Callback):
    def __init__(self, method, every=Trigger.__call__):
        self.method, self.every = method, every

    def __getattribute__(self, name):
        if name == object.__getattribute__(self, "__dict__").get("method"):
            return self.fail
        return object.__getattribute__(self, name)

    def __call__(self, trainer, record):
        if self.method == "call":
            self.fail()

    def fail(self, *_):
        raise ZeroDivisionError("so it goes")


@pytest.mark.parametrize(
    ("callback", "note"),
    [
        (Failing("call", Trigger(epochs=2)), "raised by the callback Failing, after epoch 2"),
        (Failing("call", Trigger(steps=3)), "raised by the callback Failing, after step 3"),
        (Failing("begin", Trigger(epochs=1)), "raised by the callback Failing, in its begin()"),
        (Failing("end", Trigger(epochs=1)), "raised by the callback Failing, in its end()"),
    ],
    ids=["epoch", "step", "begin", "end"],
)
def test_an_exception_keeps_its_kind_and_names_the_callback_and_the_moment(callback, note):
    with pytest.raises(ZeroDivisionError, match="so it goes") as caught:
        fitted([callback])
    assert caught.value.__notes__ == [note]


def test_an_exception_of_a_function_names_the_function():
    def schedule_of_mine(trainer, record):
        raise KeyError("x")

    with pytest.raises(KeyError) as caught:
        fitted([schedule_of_mine])
    assert "schedule_of_mine, after epoch 1" in caught.value.__notes__[0]


def test_a_callback_between_steps_that_stops_lets_the_epoch_end():
    class Stop(Callback):
        every = Trigger(steps=11)

        def __call__(self, trainer, record):
            trainer.stopping = True

    trainer = fitted([Stop()])
    assert (len(trainer.history), trainer.optimizer.steps) == (2, 16)


class Open(Callback):
    """Remembers in which order fits begin and close; may raise at one of these moments."""

    def __init__(self, told, name, raises=()):
        self.told, self.name, self.raises = told, name, raises

    def _tell(self, moment):
        self.told.append(f"{moment} {self.name}")
        if moment in self.raises:
            raise ZeroDivisionError(f"{moment} {self.name}")

    def begin(self, trainer):
        self._tell("begin")

    def __call__(self, trainer, record):
        self._tell("call")

    def end(self, trainer):
        self._tell("end")

    def close(self):
        self._tell("close")


@pytest.mark.parametrize(
    ("raises", "told"),
    [
        ((), "begin 1, begin 2, call 1, call 2, end 1, end 2, close 2, close 1"),
        (("call",), "begin 1, begin 2, call 1, close 2, close 1"),
        (("begin",), "begin 1, close 1"),
        (("end",), "begin 1, begin 2, call 1, call 2, end 1, close 2, close 1"),
        (("close",), "begin 1, begin 2, call 1, call 2, end 1, end 2, close 2, close 1"),
    ],
    ids=["nothing", "call", "begin", "end", "close"],
)
def test_what_was_begun_is_closed_whatever_happens(raises, told):
    calls = []
    callbacks = [Open(calls, 1, raises), Open(calls, 2)]
    if raises:
        with pytest.raises(ZeroDivisionError, match=f"{raises[0]} 1"):
            fitted(callbacks, epochs=1)
    else:
        fitted(callbacks, epochs=1)
    assert ", ".join(calls) == told


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ([print, 3], r"callbacks\[1\] is 3; expected a Callback or a function callback\(trainer, record\)"),
        ("abc", r"callbacks\[0\] is 'a'; expected"),
        ([None], r"callbacks\[0\] is None; expected"),
        ([EarlyStopping], r"callbacks\[0\] is the class EarlyStopping; expected .* an object of it, made with \(\)"),
        ([Told(5)], r"callbacks\[0\], Told, has every=5; expected a Trigger, such as Trigger\(epochs=1\)"),
    ],
    ids=["number", "text", "none", "class", "every"],
)
def test_what_is_no_callback_is_refused_before_the_first_step(callbacks, message):
    trainer = Trainer(Network([5, 3], device="cpu"), SGD(), callbacks=callbacks)
    with pytest.raises(TypeError, match=message):
        trainer.fit(*blobs(), epochs=1)
    assert trainer.optimizer.steps == 0


@pytest.mark.parametrize("watching", [EarlyStopping(), BestModel("")], ids=["early stopping", "best model"])
def test_a_figure_that_no_epoch_will_have_is_refused_before_the_first_step(watching):
    trainer = Trainer(Network([5, 3], device="cpu"), SGD(), callbacks=[watching])
    with pytest.raises(ValueError, match="monitor='validation_loss' needs validation data") as caught:
        trainer.fit(*blobs(), epochs=1)
    assert "in its begin()" in caught.value.__notes__[0]
    assert trainer.optimizer.steps == 0
