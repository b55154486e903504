"""A fit resumed from a checkpoint has the bits of an uninterrupted one."""

import subprocess
import sys

import numpy as np
import pytest

from gpu_nn import DataError, MLPClassifier
from gpu_nn.training import Callback, Checkpoints, Trigger, checkpoint
from tests.cuda_emulator import cupy_proxy as cupy
from tests.cuda_emulator.device import emulated_device
from tests.estimator.datasets import blobs, flags

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SETTINGS = {
    "adam": {"dropout": 0.2, "standardize": True, "input_noise": 0.1},
    "early stopping": {
        "early_stopping": True,
        "n_iter_no_change": 2,
        "dropout": 0.4,
        "learning_rate_init": 0.01,
        "validation_fraction": 0.3,
        "max_iter": 40,
        "normalisation": "batch",
    },
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "momentum": 0.5, "dtype": "float64"},
}


def model(**parameters):
    settings = {"hidden_layer_sizes": (6,), "max_iter": 14, "batch_size": 30, "learning_rate_init": 0.05}
    return MLPClassifier(**{**settings, "random_state": 3, "device": "cpu", **parameters})


class Breaks(Callback):
    """Ends the training after so many steps, as a signal would."""

    def __init__(self, steps):
        self.every = Trigger(steps=steps)

    def __call__(self, trainer, record):
        trainer.interrupt()


def broken(folder, after, x, y, **parameters):
    callbacks = [Checkpoints(folder), Breaks(after)]
    with pytest.warns(UserWarning, match="training was interrupted"):
        return model(callbacks=callbacks, **parameters).fit(x, y)


def outcome(fitted):
    """All that a fit leaves behind, but the seconds."""
    curves = fitted.loss_curve_, fitted.validation_scores_, fitted.loss_, fitted.best_loss_
    counts = fitted.best_validation_score_, fitted.n_iter_, fitted.t_
    records = [fitted.history_.column(name) for name in ("epoch", "steps", "loss", "learning_rate")]
    arrays = {**fitted.net_.parameters, **fitted.net_.state}
    return curves, counts, records, {name: np.asarray(array).tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("after", [13, 28, 43])
def test_a_resumed_fit_has_the_bits_of_an_uninterrupted_one(tmp_path, name, after):
    x, y = blobs()
    whole = model(**SETTINGS[name]).fit(x, y)
    assert broken(tmp_path, after, x, y, **SETTINGS[name]).n_iter_ < whole.n_iter_
    resumed = model(callbacks=[Checkpoints(tmp_path)], **SETTINGS[name]).fit(x, y, resume=tmp_path)
    assert outcome(resumed) == outcome(whole)
    for either in (whole, resumed):
        either.set_params(early_stopping=False).partial_fit(x, y)
    assert outcome(resumed) == outcome(whole)


def test_the_settings_meet_what_they_are_for():
    x, y = blobs()
    rates = {name: model(**SETTINGS[name]).fit(x, y).history_.column("learning_rate") for name in SETTINGS}
    assert len(set(rates["adaptive"])) > 1
    assert len(set(rates["invscaling"])) == 14
    assert len(rates["early stopping"]) > 3
    stopped = model(**SETTINGS["early stopping"]).fit(x, y)
    assert int(np.argmax(stopped.validation_scores_)) < stopped.n_iter_ - 1


def test_another_process_resumes(tmp_path):
    code = f"""
import warnings
warnings.simplefilter("ignore")
from tests.estimator.test_resume import model, Breaks, Checkpoints, blobs
model(callbacks=[Checkpoints({str(tmp_path)!r}), Breaks(17)]).fit(*blobs())
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    file = next(iter(checkpoint.list_checkpoints(tmp_path).values()))
    assert outcome(model().fit(*blobs(), resume=file)) == outcome(model().fit(*blobs()))


def test_the_warning_of_a_damaged_checkpoint_is_given_where_fit_is_called(tmp_path):
    x, y = blobs()
    broken(tmp_path, 17, x, y)
    newest = next(iter(checkpoint.list_checkpoints(tmp_path).values()))
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="the one before is used") as told:
        model().fit(x, y, resume=tmp_path)
    assert {warning.filename for warning in told} == {__file__}


def test_the_advice_of_the_folder_error_works(tmp_path):
    x, y = blobs()
    broken(tmp_path, 17, x, y)
    again = model(callbacks=[Checkpoints(tmp_path)])
    with pytest.raises(DataError, match=r"resume=.* resumes it"):
        again.fit(x, y)
    assert outcome(again.fit(x, y, resume=tmp_path)) == outcome(model().fit(x, y))


def test_several_labels_and_the_callers_validation_data_are_resumed(tmp_path):
    x, y = flags(120)
    settings = {"early_stopping": True, "random_state": None, "max_iter": 5}
    callbacks = [Checkpoints(tmp_path), Breaks(9)]
    with pytest.warns(UserWarning, match="training was interrupted"):
        model(callbacks=callbacks, **settings).fit(x, y, validation=(x, y))
    resumed = model(**settings).fit(x, y, validation=(x, y), resume=tmp_path)
    assert resumed.n_iter_ == len(resumed.loss_curve_) == len(resumed.validation_scores_) == 5


def test_a_gpu_resumes(tmp_path):
    x, y = blobs()
    settings = SETTINGS["early stopping"]
    with emulated_device():
        found = []
        for resumes in (False, True):
            if resumes:
                broken(tmp_path, 13, cupy.asarray(x), cupy.asarray(y), device="cuda", **settings)
            fitted = model(device="cuda", **settings)
            fitted.fit(cupy.asarray(x), cupy.asarray(y), resume=tmp_path if resumes else None)
            found.append((fitted.loss_curve_, fitted.validation_scores_, [w.tobytes() for w in fitted.coefs_]))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["number", "RandomState", "None"])
def test_the_rows_that_were_held_out_are_held_out_again(tmp_path, monkeypatch, kind):
    x, y = blobs()
    settings = SETTINGS["early stopping"]
    monkeypatch.setattr(np.random.mtrand, "_rand", np.random.RandomState(3))
    settings = {**settings, "random_state": {"number": 3, "RandomState": np.random.RandomState(3), "None": None}[kind]}
    broken(tmp_path, 13, x, y, **settings)
    # A RandomState, and NumPy's own for None, has gone on meanwhile; a number may be another.
    again = {**settings, "random_state": 4} if kind == "number" else settings
    with_seed_3 = model(**{**settings, "random_state": 3}).fit(x, y)
    assert outcome(model(**again).fit(x, y, resume=tmp_path)) == outcome(with_seed_3)


def test_of_a_checkpoint_that_does_not_say_which_rows_were_held_out_a_number_does(tmp_path):
    x, y = blobs()
    settings = SETTINGS["early stopping"]
    broken(tmp_path / "a", 13, x, y, **settings)
    whole = checkpoint.read(next(iter(checkpoint.list_checkpoints(tmp_path / "a").values())))
    path = tmp_path / "b.safetensors"
    for seed in (None, -1, 2**31, 1.5, "3", True):
        name, state = whole.training["callbacks"][0]
        told = {**whole.training, "callbacks": [[name, {**state, "split_seed": seed}]]}
        checkpoint.write(path, told, whole.arrays)
        assert outcome(model(**settings).fit(x, y, resume=path)) == outcome(model(**settings).fit(x, y))
        for chance in (None, np.random.RandomState(3)):
            with pytest.raises(ValueError, match=r"which .*b\.safetensors does not say and random_state=.* draws anew"):
                model(**{**settings, "random_state": chance}).fit(x, y, resume=path)


@pytest.mark.parametrize("callbacks", [None, 3, [3], [["EpochEnd"]], [["EpochEnd", 3]], {"EpochEnd": {}}], ids=str)
def test_callbacks_that_are_none_are_an_error(tmp_path, callbacks):
    x, y = blobs()
    settings = SETTINGS["early stopping"]
    broken(tmp_path / "a", 13, x, y, **settings)
    whole = checkpoint.read(next(iter(checkpoint.list_checkpoints(tmp_path / "a").values())))
    checkpoint.write(tmp_path / "b.safetensors", {**whole.training, "callbacks": callbacks}, whole.arrays)
    with pytest.raises(DataError, match="makes no training"):
        model(**settings).fit(x, y, resume=tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 0.5}, "another training: optimizer.weight_decay"),
        ({"hidden_layer_sizes": (7,)}, "another training: network.layers"),
        ({"standardize": True}, "another training: network.layers"),
    ],
)
def test_another_training_is_refused_and_leaves_the_classifier_unfitted(tmp_path, changes, message):
    x, y = blobs()
    broken(tmp_path, 13, x, y)
    classifier = model(**changes)
    with pytest.raises(DataError, match=message):
        classifier.fit(x, y, resume=tmp_path)
    assert not hasattr(classifier, "net_")


@pytest.mark.parametrize(("after", "least"), [(13, 4), (12, 3)])
def test_fewer_epochs_than_the_checkpoint_has_are_refused_by_their_name(tmp_path, after, least):
    x, y = blobs()
    broken(tmp_path, after, x, y)
    said = f"max_iter={least - 1}; expected at least {least}: the checkpoint is that far"
    with pytest.raises(ValueError, match=said):
        model(max_iter=least - 1).fit(x, y, resume=tmp_path)
    assert model(max_iter=least).fit(x, y, resume=tmp_path).n_iter_ == least


def test_an_interrupt_before_the_first_epochs_end_leaves_a_checkpoint_to_go_on_from(tmp_path):
    x, y = blobs()
    with pytest.raises(KeyboardInterrupt):
        model(callbacks=[Checkpoints(tmp_path), Breaks(2)]).fit(x, y)
    assert outcome(model().fit(x, y, resume=tmp_path)) == outcome(model().fit(x, y))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("losses", np.zeros((2, 2))),
        ("losses", np.zeros(2, np.int32)),
        ("scores", np.full(2, np.nan)),
        ("best_score", "high"),
        ("best_loss", [1]),
        ("best_loss", float("inf")),
        ("waited", -1),
        ("rows_seen", 1.5),
        ("epochs", None),
        ("kept.parameters", np.zeros(3)),
    ],
    ids=str,
)
def test_a_state_that_no_classifier_has_is_an_error_of_ours(tmp_path, key, value):
    x, y = blobs()
    settings = SETTINGS["early stopping"]
    broken(tmp_path / "a", 13, x, y, **settings)
    whole = checkpoint.read(next(iter(checkpoint.list_checkpoints(tmp_path / "a").values())))
    name, state = whole.training["callbacks"][0]
    assert name == "EpochEnd"
    assert "callback.0.kept.parameters" in whole.arrays
    arrays = dict(whole.arrays)
    if isinstance(value, np.ndarray):
        arrays[f"callback.0.{key}"] = value
    else:
        state[key] = value
    checkpoint.write(tmp_path / "b.safetensors", whole.training, arrays)
    with pytest.raises(DataError, match="a state that callback EpochEnd cannot take"):
        model(**settings).fit(x, y, resume=tmp_path / "b.safetensors")
