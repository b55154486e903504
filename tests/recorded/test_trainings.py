"""Trainings end in the bits that are on record, and files of an earlier gpu_nn are read.

The files beside this module were written before the modules of training and communication got their present names.
"""

import json

import pytest

import gpu_nn
from gpu_nn.cli import main
from tests.recorded import trainings
from tests.recorded.trainings import MODEL, RESUMED, TRAININGS, check


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_ends_in_the_bits_on_record(name):
    check(name, TRAININGS[name]())


@pytest.mark.parametrize("name", RESUMED)
def test_a_checkpoint_of_before_resumes_to_the_bits_on_record(name):
    expected, resume = RESUMED[name]
    check(expected, resume())


def test_a_model_file_of_before_predicts_what_it_predicted():
    net = gpu_nn.load(MODEL, device="cpu")
    assert (net.classes, net.target_name) == (list("abcde"), "letter")
    assert net.feature_names == [f"column {i}" for i in range(trainings.INPUTS)]
    x, _ = trainings.rows()
    check("model_probabilities", {"probabilities": net.predict_proba(x)})


def test_the_command_says_what_a_model_file_of_before_is_of(capsys):
    assert main(["info", str(MODEL), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == list("abcde")
