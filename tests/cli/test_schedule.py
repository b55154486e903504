"""--schedule, --warm-up and --class-weight of gpu-nn train."""

import json
import math
import os
import shlex
import tomllib
from argparse import Namespace

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_sample_weight

from gpu_nn import Trainer
from gpu_nn.cli import training_setup
from gpu_nn.cli.arguments import SCHEDULES
from gpu_nn.cli.training_setup import make_schedule
from gpu_nn.training import History
from tests.cli.test_resume import Raise, outcome, with_callback  # noqa: F401

# 72 rows to train are 6 batches of 12.
RUN = ("--hidden", 6, "--batch-size", 12, "--epochs", 9, "--lr", 0.01, "--device", "cpu")


def rates(folder):
    return History.from_json((folder / "history.json").read_text()).column("learning_rate")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [0.01] * 9),
        ("cosine", [0.005 * (1 + math.cos(math.pi * (6 * i + 5) / 54)) for i in range(9)]),
        ("step", [0.01] * 3 + [0.001] * 3 + [0.0001] * 3),
        ("exponential", [0.01 * 100 ** (-(6 * i + 5) / 54) for i in range(9)]),
    ],
)
def test_the_learning_rate_follows_the_schedule_to_the_end_of_the_run(command, data, tmp_path, name, expected):
    assert command("train", "--data", data, *RUN, "--schedule", name, "--out", tmp_path).code == 0
    np.testing.assert_allclose(rates(tmp_path), expected, rtol=1e-12)
    assert tomllib.loads((tmp_path / "config.toml").read_text())["schedule"] == name


def test_plateau_halves_where_the_loss_no_longer_falls(command, data, tmp_path):
    options = ("--schedule", "plateau", "--validation-fraction", 0.2, "--epochs", 60)
    command("train", "--data", data, *RUN, *options, "--optimizer", "sgd", "--lr", 0.3, "--out", tmp_path)
    history = History.from_json((tmp_path / "history.json").read_text())
    rate, best, waited, expected = 0.3, math.inf, 0, []
    for record in history.epochs:
        expected.append(rate)
        waited = 0 if record.validation_loss < best else waited + 1
        best = min(best, record.validation_loss)
        if waited == 5:
            rate, waited = rate / 2, 0
    assert history.column("learning_rate") == expected
    assert expected[-1] < 0.3


@pytest.mark.parametrize("length", ["2", "12steps", "2epochs"])
def test_a_warm_up_is_in_epochs_or_steps(command, data, tmp_path, length):
    command("train", "--data", data, *RUN, "--warm-up", length, "--out", tmp_path / "a")
    np.testing.assert_allclose(rates(tmp_path / "a"), [0.005] + [0.01] * 8, rtol=1e-12)
    command("train", "--config", tmp_path / "a" / "config.toml", "--out", tmp_path / "b")
    assert rates(tmp_path / "a") == rates(tmp_path / "b")


@pytest.mark.parametrize("length", ["0", "30s", "x", "-1"])
def test_another_warm_up_is_refused(refused, data, length):
    line = refused(2, "train", "--data", data, f"--warm-up={length}")
    assert f"argument --warm-up: {length!r}; expected epochs or steps, such as 2, 500steps" in line


def test_a_run_of_no_epochs_has_any_schedule():
    for name in SCHEDULES:
        settings = Namespace(schedule=name, lr=0.5, batch_size=3, epochs=0, warm_up=None)
        assert make_schedule(settings, 10)(0) == 0.5


def test_a_run_of_before_there_were_schedules_has_a_constant_one():
    settings = Namespace(schedule=None, lr=0.5, batch_size=3, epochs=7, warm_up=None)
    assert [make_schedule(settings, 10)(step) for step in (0, 27)] == [0.5, 0.5]


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_with_a_schedule_resumes_to_the_same_bits(command, data, tmp_path, with_callback, name):  # noqa: F811
    options = ("--schedule", name, "--warm-up", "8steps", "--class-weight", "balanced", "--validation-fraction", 0.2)
    run = ("--data", data, *RUN, *options, "--checkpoint-every", "5steps", "--out")
    command("train", *run, tmp_path / "whole")
    with_callback(Raise(28, ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        command("train", *run, tmp_path / "parts")
    with_callback(None)
    assert os.listdir(tmp_path / "parts") != []
    assert command("train", "--resume", tmp_path / "parts").code == 0
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("name", SCHEDULES)
def test_only_a_schedule_that_does_not_depend_on_the_epochs_resumes_to_more(command, refused, data, tmp_path, name):
    command("train", "--data", data, *RUN, "--schedule", name, "--out", tmp_path / "a")
    more = ("train", "--resume", tmp_path / "a", "--epochs", 12)
    if name in ("constant", "plateau"):
        command("train", "--data", data, *RUN, "--schedule", name, "--epochs", 12, "--out", tmp_path / "b")
        assert command(*more).code == 0
        assert outcome(tmp_path / "a") == outcome(tmp_path / "b")
    else:
        line = refused(2, *more)
        assert f"--epochs 12: the {name} schedule of the run in {tmp_path / 'a'} is made for 9 epochs; " in line
        assert (
            f"gpu-nn train --config {tmp_path / 'a' / 'config.toml'} --out FOLDER --epochs 12 starts a new run" in line
        )


def test_the_settings_of_an_unfinished_run_are_named_where_they_are(refused, command, data, tmp_path, with_callback):  # noqa: F811
    run = ("--data", data, *RUN, "--schedule", "cosine", "--checkpoint-every", "5steps", "--out", tmp_path / "a run")
    with_callback(Raise(28, ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        command("train", *run)
    with_callback(None)
    line = refused(2, "train", "--resume", tmp_path / "a run", "--epochs", 12)
    hint = shlex.split(line.partition("; ")[2].removesuffix(" starts a new run\n"))
    hint[hint.index("FOLDER")] = str(tmp_path / "b")
    assert command(*hint[1:]).code == 0


def test_a_dry_run_says_it(command, data):
    options = ("--schedule", "cosine", "--warm-up", "2", "--class-weight", "balanced", "--dry-run")
    said = command("train", "--data", data, *RUN, *options).out
    assert "adam with learning rate 0.01 (cosine, warm-up of 2 epochs) in batches of 12" in said
    result = json.loads(command("train", "--data", data, *RUN, *options, "--json").out)
    assert (result["schedule"], result["warm_up"], result["class_weight"]) == ("cosine", "2 epochs", "balanced")


# Class weights


def test_balanced_weights_are_those_of_scikit_learn(command, arrays, tmp_path, monkeypatch):
    labels, given = np.repeat([0, 1, 2], [50, 30, 10]), []
    np.savez(tmp_path / "a.npz", x=arrays["x"], y=labels)

    class Kept(Trainer):
        def fit(self, x, y, *, sample_weight, **options):
            given.append((y, sample_weight))
            return super().fit(x, y, sample_weight=sample_weight, **options)

    monkeypatch.setattr(training_setup, "Trainer", Kept)
    options = ("--test-last", 7, "--class-weight", "balanced")
    assert command("train", "--data", tmp_path / "a.npz", *options, *RUN, "--out", tmp_path / "run").code == 0
    y, weight = given[0]
    np.testing.assert_allclose(weight, compute_sample_weight("balanced", y), rtol=1e-12)
    assert 'class-weight = "balanced"\n' in (tmp_path / "run" / "config.toml").read_text()


def test_streams_have_no_balanced_weights(refused, arrays, tmp_path):
    np.save(tmp_path / "x.npy", arrays["x"])
    np.save(tmp_path / "y.npy", np.arange(90) % 3)
    data = ("--data", tmp_path / "x.npy", "--target", tmp_path / "y.npy", "--stream", "--class-weight", "balanced")
    for dry in ((), ("--dry-run",)):
        line = refused(2, "train", *data, *dry, "--out", tmp_path / "new")
        assert "--class-weight balanced needs the rows in memory, to weight them; --stream never" in line


def test_a_rare_class_is_found_with_balanced_weights_and_missed_without(command, tmp_path):
    random = np.random.default_rng(0)
    y = np.array([0] * 380 + [1] * 20)
    x = random.normal(size=(400, 2)) + 1.5 * y[:, None]
    np.savez(tmp_path / "a.npz", x=x, y=y, x_test=x, y_test=y)
    recall = {}
    for name, options in (("plain", ()), ("balanced", ("--class-weight", "balanced"))):
        fit = ("--epochs", 60, "--hidden", "", "--device", "cpu", "--lr", 0.01)
        command("train", "--data", tmp_path / "a.npz", *fit, *options, "--out", tmp_path / name)
        model = tmp_path / name / "model.safetensors"
        result = json.loads(command("evaluate", model, "--data", tmp_path / "a.npz", "--json", "--device", "cpu").out)
        recall[name] = result["classes"][1]["recall"]
    assert recall["plain"] < 0.5
    assert recall["balanced"] > 0.7


def test_another_class_weight_is_refused(refused, data):
    line = refused(2, "train", "--data", data, "--class-weight", "balance")
    assert "argument --class-weight: 'balance' is not one of balanced. Did you mean 'balanced'?" in line
