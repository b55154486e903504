"""A training that was broken off and resumes ends in the bits of one that was not."""

import math
import time
import warnings
from itertools import product

import numpy as np
import pytest

from gpu_nn import (
    SGD,
    Adam,
    BatchNorm,
    DataError,
    Dense,
    Dropout,
    InputNoise,
    LayerNorm,
    Network,
    Standardize,
    Trainer,
)
from gpu_nn.device import Device
from gpu_nn.schedules import Constant, Cosine, ReduceOnPlateau, WarmUp
from gpu_nn.training import (
    Callback,
    Checkpoints,
    EarlyStopping,
    LearningRateMonitor,
    Trigger,
    checkpoint,
    pending_losses,
)
from tests.cuda_emulator.device import emulated_device
from tests.training.blobs import blobs

EPOCHS, STEPS_AN_EPOCH = 6, 8  # 230 rows in batches of 32
DATA, HELD_OUT = blobs(), blobs(seed=3)


class InterruptAfter(Callback):
    every = Trigger(steps=1)

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, trainer, record):
        if record.steps == self.steps:
            trainer.interrupt()


def adam():
    return Adam(WarmUp(5, ReduceOnPlateau(0.05, patience=1)), weight_decay=0.01)


def sgd():
    return SGD(Cosine(0.1, steps=40), momentum=0.9, max_norm=1.0)


def made(callbacks=(), optimizer=adam, layers=None, net_seed=1, **options):
    layers = layers or [Standardize(), Dense(16, "relu"), Dropout(0.3), Dense(3)]
    net = Network(layers, n_inputs=5, device="cpu", seed=net_seed)
    if "0.shift" in net.state:
        net.state["0.shift"][...] = 0.5
    return Trainer(net, optimizer(), batch_size=32, **{"callbacks": callbacks, **options})


def fitted(trainer, **options):
    trainer.fit(*DATA, **{"epochs": EPOCHS, "validation": HELD_OUT, **options})
    return trainer


def refused(folder, training, arrays, message):
    """A training does not go on from such a checkpoint in `folder`, and is as it was made."""
    folder.mkdir()
    checkpoint.write(folder / checkpoint.file_name(11), training, arrays)
    other = made()
    before = other.net.flat_parameters.copy()
    with pytest.raises(DataError, match=message):
        fitted(other, resume=folder)
    np.testing.assert_array_equal(other.net.flat_parameters, before)
    assert (other.optimizer.steps, len(other.history)) == (0, 0)


def outcome(trainer):
    """Every bit that a training ends in."""
    arrays = {**trainer.net.state, **trainer.optimizer.state, "parameters": trainer.net.flat_parameters}
    records = [
        [value for name, value in vars(record).items() if name != "seconds"] for record in trainer.history.epochs
    ]
    bits = {name: array.tobytes() for name, array in arrays.items()}
    return bits, records, trainer.optimizer.steps, trainer.optimizer.schedule.state()


def broken_off(folder, steps, **options):
    """A training that saved after so many steps."""
    trainer = made([Checkpoints(folder, Trigger(steps=10**6)), InterruptAfter(steps)], **options)
    fitted(trainer)
    assert trainer.interrupted
    assert trainer.optimizer.steps == steps
    return trainer


@pytest.mark.parametrize("optimizer", [adam, sgd])
@pytest.mark.parametrize("steps", [1, 7, 8, 9, 21, 40, 48])
def test_it_ends_in_the_same_bits_wherever_it_was_broken_off(tmp_path, optimizer, steps):
    whole = fitted(made(optimizer=optimizer))
    broken_off(tmp_path, steps, optimizer=optimizer)
    resumed = fitted(made(optimizer=optimizer, net_seed=77), resume=tmp_path)
    assert outcome(resumed) == outcome(whole)


@pytest.mark.parametrize("steps", range(9, 16))
def test_losses_that_the_host_has_not_read_yet_are_not_lost(tmp_path, monkeypatch, steps):
    monkeypatch.setattr(pending_losses, "_READ_EVERY", 3)
    whole = fitted(made(optimizer=sgd))
    broken_off(tmp_path, steps, optimizer=sgd)
    assert outcome(fitted(made(optimizer=sgd), resume=tmp_path)) == outcome(whole)


def test_losses_that_were_to_be_read_less_often_are_not_lost(tmp_path, monkeypatch):
    """As those of a checkpoint that was taken on a GPU."""
    whole = fitted(made(optimizer=sgd))
    broken_off(tmp_path, 14, optimizer=sgd)
    monkeypatch.setattr(pending_losses, "_READ_EVERY", 3)
    assert outcome(fitted(made(optimizer=sgd), resume=tmp_path)) == outcome(whole)


def test_a_network_that_was_at_work_before_resumes_as_a_new_one_does(tmp_path):
    whole = fitted(made())
    broken_off(tmp_path, 11)
    trainer = fitted(made(net_seed=77), epochs=1)
    assert outcome(fitted(trainer, resume=tmp_path)) == outcome(whole)


def test_the_seconds_of_an_epoch_are_those_of_both_processes_and_not_the_callbacks(tmp_path):
    training, arrays = broken_off(tmp_path / "a", 11).state_dict()
    training["position"]["seconds"] = 100.0
    (tmp_path / "b").mkdir()
    checkpoint.write(tmp_path / "b" / checkpoint.file_name(11), training, arrays)
    resumed = fitted(made([lambda *_: time.sleep(0.1)]), resume=tmp_path / "b", epochs=4)
    seconds = resumed.history.column("seconds")
    assert 100 <= seconds[1] < 101
    assert max(seconds[2:]) < 0.1


def test_it_may_be_broken_off_again_and_again(tmp_path):
    whole = fitted(made())
    broken_off(tmp_path, 5)
    for steps in (6, 13, 16, 30):
        again = made([Checkpoints(tmp_path, Trigger(steps=10**6)), InterruptAfter(steps)])
        fitted(again, resume=tmp_path)
        assert again.interrupted
    assert outcome(fitted(made([Checkpoints(tmp_path)]), resume=tmp_path)) == outcome(whole)


@pytest.mark.parametrize(
    ("options", "fit_options"),
    [
        ({"shuffle": False}, {}),
        ({"seed": 5}, {"validation": None}),
        ({"class_weight": [1, 2, 3], "complement_weight": 0.0}, {"sample_weight": np.arange(1, 231)}),
        ({"layers": [Dense(3)]}, {}),
        ({"layers": [InputNoise(0.2), Dense(16, bias=False), BatchNorm("relu"), Dense(8), LayerNorm(), Dense(3)]}, {}),
    ],
    ids=["rows in order", "no validation", "weights", "one layer", "normalisation and noise"],
)
def test_it_ends_in_the_same_bits_whatever_the_options(tmp_path, options, fit_options):
    whole = fitted(made(**options), **fit_options)
    fitted(made([Checkpoints(tmp_path), InterruptAfter(21)], **options), **fit_options)
    assert outcome(fitted(made(**options), resume=tmp_path, **fit_options)) == outcome(whole)


@pytest.mark.parametrize("kind", ["MT19937", "PCG64", "Philox", "SFC64"])
def test_every_kind_of_random_generator_resumes(tmp_path, kind):
    def random(seed=5):
        return np.random.Generator(getattr(np.random, kind)(seed))

    whole = fitted(made(seed=random()))
    fitted(made([Checkpoints(tmp_path), InterruptAfter(21)], seed=random()))
    assert outcome(fitted(made(seed=random(6)), resume=tmp_path)) == outcome(whole)


def test_dense_targets_resume(tmp_path):
    x, y = DATA[0], np.eye(3)[DATA[1]]
    whole, broken, resumed = made(), made([Checkpoints(tmp_path), InterruptAfter(11)]), made()
    whole.fit(x, y, epochs=3)
    broken.fit(x, y, epochs=3)
    resumed.fit(x, y, epochs=3, resume=tmp_path)
    assert outcome(resumed) == outcome(whole)


def test_a_second_fit_is_resumed_by_the_same_call(tmp_path):
    whole = fitted(fitted(made(), epochs=2), epochs=3)
    broken = fitted(made([Checkpoints(tmp_path, Trigger(steps=10**6)), InterruptAfter(29)]), epochs=2)
    fitted(broken, epochs=3)
    assert broken.interrupted
    resumed = fitted(made(), epochs=3, resume=tmp_path)
    assert len(resumed.history) == 5
    assert outcome(resumed) == outcome(whole)


class TestWithEarlyStopping:
    def whole(self):
        stopping = EarlyStopping(patience=2)
        whole = fitted(made([stopping], optimizer=lambda: Adam(0.1)), epochs=30)
        assert len(whole.history) < 30
        return whole, stopping

    @pytest.mark.parametrize("at", ["first step", "best epoch", "waiting", "stopped"])
    def test_it_stops_at_the_same_epoch_with_the_same_best_weights(self, tmp_path, at):
        whole, stopping = self.whole()
        best, last = stopping.best_epoch * STEPS_AN_EPOCH, len(whole.history) * STEPS_AN_EPOCH
        steps = {"first step": 1, "best epoch": best, "waiting": best + 12, "stopped": last}[at]
        parts = [EarlyStopping(patience=2), Checkpoints(tmp_path, Trigger(steps=10**6)), InterruptAfter(steps)]
        fitted(made(parts, optimizer=lambda: Adam(0.1)), epochs=30)
        again = EarlyStopping(patience=2)
        resumed = fitted(made([again], optimizer=lambda: Adam(0.1)), epochs=30, resume=tmp_path)
        assert outcome(resumed) == outcome(whole)
        assert (again.best, again.best_epoch) == (stopping.best, stopping.best_epoch)

    def test_a_checkpoint_of_the_epoch_that_stopped_it_trains_no_more(self, tmp_path):
        whole, _ = self.whole()
        # Before the others in the list, and yet saved after them.
        parts = [Checkpoints(tmp_path), EarlyStopping(patience=2)]
        fitted(made(parts, optimizer=lambda: Adam(0.1)), epochs=30)
        resumed = made([EarlyStopping(patience=2)], optimizer=lambda: Adam(0.1))
        assert outcome(fitted(resumed, epochs=30, resume=tmp_path)) == outcome(whole)

    @pytest.mark.parametrize("steps", [12, 15, 16])
    def test_an_epoch_in_which_it_was_stopped_and_interrupted_is_finished(self, tmp_path, steps):
        class Stop(Callback):
            every = Trigger(steps=11)

            def __call__(self, trainer, record):
                trainer.stopping = True

        whole = fitted(made([Stop()]))
        assert whole.optimizer.steps == 2 * STEPS_AN_EPOCH
        fitted(made([Stop(), Checkpoints(tmp_path, Trigger(steps=10**6)), InterruptAfter(steps)]))
        assert outcome(fitted(made([Stop()]), resume=tmp_path)) == outcome(whole)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            *(("best", "low"), ("best", math.nan), ("best", None), ("best_epoch", 0), ("best_epoch", 1.5)),
            *(("waited", None), ("waited", -1), ("waited", 1.5)),
            *(("kept.parameters", np.zeros(3)), ("kept.more", np.zeros(3)), ("kept.parameters", math.nan)),
        ],
    )
    def test_a_state_that_is_none_of_early_stopping_is_an_error_of_ours(self, tmp_path, key, value):
        parts = [EarlyStopping(), Checkpoints(tmp_path / "a"), InterruptAfter(11)]
        training, arrays = fitted(made(parts)).state_dict()
        if key == "kept.parameters" and isinstance(value, float):
            # Of the right shape.
            arrays[f"callback.0.{key}"] = np.full_like(arrays["network.parameters"], value)
        elif isinstance(value, np.ndarray):
            arrays[f"callback.0.{key}"] = value
        else:
            training["callbacks"][0][1][key] = value
        (tmp_path / "b").mkdir()
        checkpoint.write(tmp_path / "b" / checkpoint.file_name(11), training, arrays)
        with pytest.raises(DataError, match="a state that callback EarlyStopping cannot take"):
            fitted(made([EarlyStopping()]), resume=tmp_path / "b")


class TestInterrupt:
    def test_the_step_at_work_is_finished_and_no_other_begun(self):
        trainer = fitted(made([InterruptAfter(11)]))
        assert trainer.interrupted
        assert (trainer.optimizer.steps, len(trainer.history)) == (11, 1)

    def test_before_a_fit_it_ends_the_fit_before_its_first_step(self):
        trainer = made()
        trainer.interrupt()
        assert fitted(trainer).optimizer.steps == 0
        assert trainer.interrupted
        assert not fitted(trainer).interrupted
        assert len(trainer.history) == EPOCHS

    def test_early_stopping_then_keeps_its_hands_off_the_parameters(self):
        # The best epoch is long past when a learning rate this high goes on.
        parts = [EarlyStopping(patience=100), InterruptAfter(40)]
        interrupted = fitted(made(parts, optimizer=lambda: Adam(0.3)))
        left = fitted(made([InterruptAfter(40)], optimizer=lambda: Adam(0.3)))
        np.testing.assert_array_equal(interrupted.net.flat_parameters, left.net.flat_parameters)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"layers": [Standardize(), Dense(17, "relu"), Dropout(0.3), Dense(3)]}, "network.layers is .*units=16"),
            ({"layers": [Standardize(), Dense(16, "relu"), Dropout(0.2), Dense(3)]}, "network.layers is .*rate=0.3"),
            ({"optimizer": lambda: Adam(WarmUp(5, Constant(0.05)))}, "schedule.then.*ReduceOnPlateau"),
            (
                {"optimizer": lambda: Adam(0.05, weight_decay=0.01)},
                "schedule.name is 'WarmUp' there and 'Constant' her",
            ),
            ({"optimizer": lambda: Adam(adam().schedule)}, "optimizer.weight_decay is 0.01 there and 0.0 here"),
            ({"optimizer": sgd}, "optimizer.name is 'Adam' there and 'SGD' here"),
            ({"shuffle": False}, "trainer.shuffle is True there and False here"),
            ({"label_smoothing": 0.1}, "trainer.label_smoothing is 0.0 there and 0.1 here"),
            ({"class_weight": [1, 1, 2]}, r"trainer.class_weight is None there and \[1.0, 1.0, 2.0\] here"),
        ],
    )
    def test_a_checkpoint_of_another_training_says_what_differs(self, tmp_path, changed, message):
        broken_off(tmp_path, 11)
        other = made(**changed)
        before = other.net.flat_parameters.copy()
        with pytest.raises(DataError, match=f"is a checkpoint of another training: .*{message}"):
            fitted(other, resume=tmp_path)
        np.testing.assert_array_equal(other.net.flat_parameters, before)
        assert other.optimizer.steps == len(other.history) == 0

    @pytest.mark.parametrize(
        ("data", "options", "message"),
        [
            ((DATA[0][:-1], DATA[1][:-1]), {}, "data: .*training.rows is 230 there and 229 here"),
            ((DATA[0] + 1, DATA[1]), {}, "data: training.checksum"),
            ((DATA[0], 2 - DATA[1]), {}, "data: training.checksum"),
            (DATA, {"sample_weight": np.arange(1, 231)}, "data: training.checksum"),
            (DATA, {"validation": None}, "data: validation is .* here"),
            (
                DATA,
                {"validation": (HELD_OUT[0][:9], HELD_OUT[1][:9])},
                "data: .*validation.rows is 230 there and 9 here",
            ),
            (DATA, {"epochs": 1}, "epochs=1; expected at least 2: the checkpoint is that far"),
        ],
    )
    def test_a_checkpoint_of_other_data(self, tmp_path, data, options, message):
        broken_off(tmp_path, 11)
        with pytest.raises(ValueError, match=message):
            made().fit(*data, **{"epochs": EPOCHS, "validation": HELD_OUT, "resume": tmp_path, **options})

    def test_the_type_of_integers_makes_no_other_labels(self, tmp_path):
        broken_off(tmp_path, 11)
        made().fit(DATA[0], DATA[1].astype(np.int32), epochs=2, validation=HELD_OUT, resume=tmp_path)

    def test_a_checkpoint_of_other_callbacks(self, tmp_path):
        broken_off(tmp_path, 11)
        with pytest.raises(DataError, match="has states of the callbacks: none; this training has: EarlyStopping"):
            fitted(made([EarlyStopping()]), resume=tmp_path)

    def test_callbacks_that_remember_nothing_come_and_go(self, tmp_path):
        broken_off(tmp_path, 11)
        seen = []
        fitted(made([lambda _, record: seen.append(record.epoch)]), resume=tmp_path)
        assert seen == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("position",), None),
        (("position", "steps"), -1),
        (("position", "steps"), 10**30),
        (("position", "steps"), 1.5),
        (("position", "steps_in_epoch"), 9),
        (("position", "steps_in_epoch"), 2),
        (("position", "first_epoch"), 2),
        (("position", "cost"), "much"),
        (("position", "seconds"), None),
        (("random",), {}),
        (("random", "state", "state"), -1),
        (("random", "bit_generator"), "os.system"),
        (("history",), [{}]),
        (("history", 0, "loss"), "low"),
        (("history",), 3),
        (("schedule",), []),
        (("schedule", "current"), "fast"),
        (("schedule", "best"), "low"),
        (("schedule", "best"), float("nan")),
        (("schedule", "current"), 10**400),
        (("schedule", "current"), float("inf")),
        (("schedule", "epochs_since_best"), [1]),
        (("schedule", "epochs_since_best"), -1),
        (("callbacks",), [["EarlyStopping"]]),
        (("callbacks",), 1),
        (("settings",), None),
        (("data",), []),
    ],
    ids=str,
)
def test_a_header_that_makes_no_sense_is_an_error_of_ours_and_changes_nothing(tmp_path, place, value):
    training, arrays = broken_off(tmp_path / "a", 11).state_dict()
    entry = training
    for key in place[:-1]:
        entry = entry[key]
    entry[place[-1]] = value
    refused(tmp_path / "b", training, arrays, r"makes no training|is a checkpoint of")


ARRAYS = ["network.parameters", "network.2.counter", "optimizer.mean", "losses"]
CHANGES = ["gone", "short", "of another type", "with one more axis"]


# A training may well have no loss to read.
@pytest.mark.parametrize(("name", "change"), [pair for pair in product(ARRAYS, CHANGES) if pair != ("losses", "short")])
def test_arrays_that_do_not_fit_are_an_error_of_ours_and_change_nothing(tmp_path, name, change):
    training, arrays = broken_off(tmp_path / "a", 13).state_dict()
    changed = {
        "gone": lambda array: None,
        "short": lambda array: array[:0],
        "of another type": lambda array: array.astype(np.int16),
        "with one more axis": lambda array: array[None],
    }[change](arrays.pop(name))
    if changed is not None:
        arrays[name] = changed
    refused(tmp_path / "b", training, arrays, "makes no training")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("network.parameters", value) for value in (np.nan, np.inf, -np.inf)),
        *((f"optimizer.{name}", np.nan) for name in ("mean", "square")),
    ],
)
def test_arrays_that_are_not_finite_are_an_error_of_ours_and_change_nothing(tmp_path, name, value):
    training, arrays = broken_off(tmp_path / "a", 13).state_dict()
    arrays[name] = arrays[name].copy()
    arrays[name][-1] = value
    refused(tmp_path / "b", training, arrays, f"array {name} has NaN or infinite values")


def test_a_training_whose_squares_are_infinite_resumes(tmp_path):
    def far_off(*callbacks):
        trainer = made(callbacks, lambda: Adam(1e-3), [Dense(3)])
        return trainer, DATA[0] * 1e21

    whole, x = far_off()
    whole.fit(x, DATA[1], epochs=2)
    assert np.isinf(whole.optimizer.state["square"]).any()
    broken, x = far_off(Checkpoints(tmp_path, Trigger(steps=3)), InterruptAfter(12))
    broken.fit(x, DATA[1], epochs=2)
    resumed, x = far_off()
    resumed.fit(x, DATA[1], epochs=2, resume=tmp_path)
    np.testing.assert_array_equal(resumed.net.flat_parameters, whole.net.flat_parameters)


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before_and_says_so(tmp_path):
    whole = fitted(made())
    fitted(made([Checkpoints(tmp_path, Trigger(steps=5)), InterruptAfter(22)]))
    newest, before = (path for path in checkpoint.list_checkpoints(tmp_path).values())
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged: .*; the one before is used: {before.name}"):
        resumed = fitted(made([Checkpoints(tmp_path, Trigger(steps=5))]), resume=tmp_path)
    assert outcome(resumed) == outcome(whole)
    assert resumed.resumed_from == before
    # What the damaged one stood for came again; it does not come first once more.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint.read_newest(tmp_path)


def test_a_file_is_resumed_as_well_as_a_folder(tmp_path):
    broken_off(tmp_path, 11)
    (path,) = checkpoint.list_checkpoints(tmp_path).values()
    for source in (path, str(path), checkpoint.read(path)):
        assert outcome(fitted(made(), resume=source)) == outcome(fitted(made()))


def test_a_training_on_a_gpu_resumes_in_the_same_bits(tmp_path):
    data, held_out = blobs(40), blobs(10, seed=3)
    with emulated_device() as device:

        def fitted_there(*callbacks, net_seed=1, **options):
            layers = [Standardize(), InputNoise(0.1), Dense(4), BatchNorm("relu"), Dropout(0.3), LayerNorm(), Dense(3)]
            net = Network(layers, n_inputs=5, device="cuda", seed=net_seed)
            parts = [EarlyStopping(patience=1), *callbacks]
            trainer = Trainer(net, Adam(0.05), batch_size=16, callbacks=parts)
            trainer.fit(*data, epochs=3, validation=held_out, **options)
            arrays = {**net.state, "parameters": net.flat_parameters}
            return {name: device.to_host(array).tobytes() for name, array in arrays.items()}

        whole = fitted_there()
        fitted_there(Checkpoints(tmp_path), InterruptAfter(4))
        assert fitted_there(net_seed=9, resume=tmp_path) == whole


class Remembering(Callback):
    def __init__(self, **remembered):
        self.remembered = remembered

    def __call__(self, trainer, record):
        pass

    def state(self):
        return self.remembered

    def load_state(self, state):
        self.remembered = state


def test_numbers_and_arrays_of_numpy_may_be_remembered(tmp_path):
    given = {"array": np.arange(3), "number": np.float32(0.5), "nothing": None, "list": [1, np.int64(2)]}
    fitted(made([Remembering(**given), Checkpoints(tmp_path)]), epochs=1)
    again = Remembering()
    fitted(made([again]), epochs=2, resume=tmp_path)
    array = again.remembered.pop("array")
    np.testing.assert_array_equal(array, np.arange(3))
    assert again.remembered == {"number": 0.5, "nothing": None, "list": [1, 2]}


def test_a_state_that_no_file_holds_names_its_callback(tmp_path):
    with pytest.raises(TypeError, match=r"callback Remembering has a state that JSON does not hold: .*set"):
        fitted(made([Remembering(seen={1, 2}), Checkpoints(tmp_path)]))


def test_a_step_with_callbacks_waits_for_no_device(monkeypatch):
    read = []
    monkeypatch.setattr(Device, "to_host", lambda self, array: read.append(array.shape) or np.array(array))
    trainer = made([LearningRateMonitor(1), InterruptAfter(STEPS_AN_EPOCH - 1)], layers=[Dense(3)])
    fitted(trainer, validation=None)
    sample_of_the_data = [(230, 5), (230,)]
    assert read == sample_of_the_data


def test_the_latest_loss_is_read_when_asked_for():
    losses = []

    class Losses(Callback):
        every = Trigger(steps=1)

        def __call__(self, trainer, record):
            losses.append(trainer.latest_loss())

    trainer = fitted(made([Losses()], shuffle=False), epochs=1)
    sizes = np.array([32] * 7 + [6])
    assert trainer.history[0].loss == pytest.approx(sizes @ losses / 230)
