"""Parameters: invalid ones raise an error with a hint, valid ones mean what they mean in scikit-learn."""

import re
from itertools import pairwise

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier as Peer

from gpu_nn import MLPClassifier
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.schedules import Cosine, Step
from tests.estimator.datasets import blobs

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"activation": "rleu"}, "activation='rleu' is not one of .*logistic.* Did you mean 'relu'"),
        ({"solver": "adm"}, "solver='adm' is not one of adam, adamw, sgd. Did you mean 'adam'"),
        ({"solver": "lbfgs"}, "solver='lbfgs' is not one of .* Did you mean 'adam'"),
        ({"solver": ["adam"]}, "solver"),
        ({"learning_rate": "adaptiv"}, "learning_rate='adaptiv' .* Did you mean 'adaptive'"),
        ({"dtype": "float16"}, "dtype='float16' is not one of float32, float64"),
        ({"dtype": "flaot32"}, "dtype='flaot32' .* Did you mean 'float32'"),
        ({"device": "gpu"}, "device='gpu' .* Did you mean 'cuda'"),
        ({"alpha": -1}, "alpha=-1; expected a finite number ≥ 0"),
        ({"alpha": "much"}, "alpha='much'; expected a finite number"),
        ({"tol": float("nan")}, "tol=nan; expected a finite number ≥ 0"),
        ({"learning_rate_init": 0}, "learning_rate_init=0; expected a finite number above 0"),
        ({"momentum": 1}, "momentum=1; expected a finite number ≥ 0 and below 1"),
        ({"label_smoothing": 2}, "label_smoothing=2; expected a finite number ≥ 0 and ≤ 1"),
        ({"dropout": 1.0}, "dropout=1.0; expected"),
        ({"input_noise": -0.1}, "input_noise=-0.1; expected a finite number ≥ 0"),
        (
            {"normalisation": "batchnorm"},
            "normalisation='batchnorm' is not one of None, batch, layer. Did you mean 'batch'",
        ),
        ({"normalisation": ["layer"]}, "normalisation="),
        ({"max_norm": 0}, "max_norm=0; expected a finite number above 0 or None"),
        ({"max_iter": 0}, "max_iter=0; expected a whole number ≥ 1"),
        ({"max_iter": 2.5}, "max_iter=2.5; expected a whole number"),
        ({"batch_size": "atuo"}, "batch_size='atuo'; expected a whole number ≥ 1 or 'auto'"),
        ({"n_iter_no_change": 0}, "n_iter_no_change=0; expected a whole number ≥ 1 or infinity"),
        ({"hidden_layer_sizes": (10, 0)}, r"hidden_layer_sizes=\(10, 0\); expected whole numbers ≥ 1"),
        ({"hidden_layer_sizes": "100"}, "hidden_layer_sizes='100'"),
        ({"shuffle": "no"}, "shuffle='no'; expected True or False"),
        ({"early_stopping": True, "validation_fraction": 0.0}, "validation_fraction=0.0 of 120 rows leaves 0"),
        ({"class_weight": "balance"}, "class_weight='balance'; expected None, 'balanced' or a dict"),
        ({"class_weight": {7: 1.0}}, "class_weight names 7, which is not among the classes 0, 1, 2"),
        ({"class_weight": {0: -1.0}}, "expected finite weights ≥ 0"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_came_and_what_was_expected(parameters, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**{"device": "cpu", **parameters}).fit(*blobs())


def test_callbacks_that_are_no_list_are_refused():
    with pytest.raises(TypeError, match=r"callbacks=.*put it in brackets"):
        MLPClassifier(callbacks=print).fit(*blobs())


def test_a_class_weight_for_a_misspelt_name_points_to_the_right_one():
    x, y = blobs()
    with pytest.raises(ValueError, match=r"'helo', which is not among .* Did you mean 'hello'"):
        MLPClassifier(class_weight={"helo": 2.0}).fit(x, np.array(["hello", "world", "sun"])[y])


@pytest.mark.parametrize(
    ("names", "key", "hint"),
    [
        ([0, 1, 2], "0", "among the classes 0, 1, 2. The classes are numbers: did you mean 0?"),
        (["0", "1", "2"], 0, "among the classes '0', '1', '2'. The classes are text: did you mean '0'?"),
        ([10, 20, 30], 99, "among the classes 10, 20, 30."),
    ],
)
def test_a_class_weight_for_a_name_of_the_other_kind_says_which_kind_the_classes_are(names, key, hint):
    x, y = blobs()
    with pytest.raises(ValueError, match="class_weight names") as caught:
        MLPClassifier(class_weight={key: 2.0}).fit(x, np.array(names)[y])
    assert str(caught.value).endswith(hint)


@pytest.mark.parametrize("weight", ["a", "2", None, np.ones(2), float("nan"), -1, np.inf])
def test_a_class_weight_that_is_no_number_is_named(weight):
    with pytest.raises(ValueError, match=r"class_weight=\{0: .*\}; expected finite weights ≥ 0"):
        MLPClassifier(class_weight={0: weight}).fit(*blobs())


@pytest.mark.parametrize("name", ["class_weight", "batch_size", "max_norm", "n_iter_no_change", "alpha", "dropout"])
@pytest.mark.parametrize("value", [np.array([1.0, 2.0]), [1, 2]], ids=["array", "list"])
def test_a_parameter_that_is_an_array_is_named(name, value):
    with pytest.raises(ValueError, match=rf"{name}=.*; expected"):
        MLPClassifier(**{name: value}).fit(*blobs())


@pytest.mark.parametrize("activation", ["logistic", *ACTIVATIONS])
def test_every_activation_learns(activation):
    model = MLPClassifier((16,), activation, learning_rate_init=0.01, max_iter=40, random_state=0).fit(*blobs())
    assert model.score(*blobs()) > 0.9


@pytest.mark.parametrize("hidden", [(), 7, [7, 5], np.array([7, 5])])
def test_hidden_layers_are_a_number_or_numbers(hidden):
    model = MLPClassifier(hidden, max_iter=2).fit(*blobs())
    sizes = [5, *np.atleast_1d(np.array(hidden, int)).tolist(), 3]
    assert [coef.shape for coef in model.coefs_] == list(pairwise(sizes))
    assert model.n_layers_ == len(sizes)


def from_the_same_weights(parameters, epochs=12, sample_weight=None, **more):
    """Ours and scikit-learn's in float64, trained from the same initial weights without shuffling."""
    x, y = blobs()
    settings = {"hidden_layer_sizes": (6,), "random_state": 0, "shuffle": False, "warm_start": True, **parameters}
    peer = Peer(**settings, max_iter=1).fit(x, y)
    ours = MLPClassifier(**settings, max_iter=1, dtype="float64", complement_weight=0.0, device="cpu", **more).fit(x, y)
    for i, (coef, intercept) in enumerate(zip(peer.coefs_, peer.intercepts_, strict=True)):
        ours.net_.parameters[f"{i}.weight"][...] = coef
        ours.net_.parameters[f"{i}.bias"][...] = intercept
    for model in (ours, peer):
        model.set_params(max_iter=epochs).fit(x, y, sample_weight=sample_weight)
    return ours, peer


@pytest.mark.parametrize(
    "parameters",
    [
        {"solver": "sgd", "alpha": 0.5, "batch_size": 30},
        {"solver": "sgd", "alpha": 0.5, "batch_size": 30, "nesterovs_momentum": False, "momentum": 0.5},
        {"solver": "sgd", "batch_size": 40, "momentum": 0.0, "learning_rate": "invscaling", "power_t": 0.3},
        {"solver": "adam", "alpha": 0.5, "batch_size": 30, "epsilon": 1e-14},
        {"solver": "adam", "activation": "tanh", "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-14},
        {"solver": "adam", "activation": "logistic", "epsilon": 1e-14},
    ],
    ids=lambda parameters: "-".join(map(str, parameters.values())),
)
def test_training_takes_scikit_learns_steps(parameters):
    ours, peer = from_the_same_weights({"learning_rate_init": 0.02, **parameters})
    for found, expected in zip(ours.coefs_ + ours.intercepts_, peer.coefs_ + peer.intercepts_, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_weights_of_rows_and_the_penalty_are_scikit_learns():
    weight = np.random.default_rng(1).integers(0, 4, 120).astype(float)
    ours, peer = from_the_same_weights({"solver": "sgd", "alpha": 20.0, "momentum": 0.0}, sample_weight=weight)
    for found, expected in zip(ours.coefs_, peer.coefs_, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_loss_is_the_mean_cost_and_the_penalty():
    ours, peer = from_the_same_weights(
        {"solver": "sgd", "alpha": 5.0, "learning_rate_init": 1e-9, "n_iter_no_change": 50}
    )
    np.testing.assert_allclose(ours.loss_curve_[1:], peer.loss_curve_[1:], rtol=1e-6)


def test_alpha_of_adamw_is_the_decoupled_decay():
    settings = {"solver": "adamw", "learning_rate_init": 0.1, "max_iter": 1, "random_state": 0, "dtype": "float64"}
    plain, decayed = (MLPClassifier(**settings, alpha=alpha).fit(*blobs(n=20)).coefs_[0] for alpha in (0.0, 0.5))
    # One step of Adam moves every weight by 0.1, the decay by 0.1 · 0.5 of what it was.
    before = (plain - decayed) / (0.1 * 0.5)
    np.testing.assert_allclose(np.abs(plain - before), 0.1, rtol=1e-4)


def test_adaptive_divides_the_learning_rate_by_five_on_every_plateau_and_ends():
    model = MLPClassifier(
        solver="sgd", learning_rate="adaptive", learning_rate_init=1e-4, tol=10.0, n_iter_no_change=2, max_iter=50
    ).fit(*blobs())
    rates = model.history_.column("learning_rate")
    # The first epoch is better than none, the next three are not.
    assert rates[:4] == [1e-4] * 4
    np.testing.assert_allclose(rates[4::3], 1e-4 / 5.0 ** np.arange(1, len(rates[4::3]) + 1))
    assert rates[-1] <= 1e-6 < rates[-1] * 5
    assert model.n_iter_ < 50


def test_a_schedule_in_the_place_of_the_learning_rate_is_used_and_not_changed():
    schedule = Step(0.1, every=1, factor=0.5)
    model = MLPClassifier(learning_rate=schedule, max_iter=4).fit(*blobs())
    np.testing.assert_allclose(model.history_.column("learning_rate"), [0.1, 0.05, 0.025, 0.0125])
    assert model.learning_rate is schedule
    assert "Cosine" in repr(MLPClassifier(learning_rate=Cosine(0.1, 10)))


def test_max_norm_bounds_the_first_step():
    x, y = blobs()
    settings = {"solver": "sgd", "momentum": 0.0, "learning_rate_init": 1.0, "random_state": 0, "alpha": 0.0}
    moved = [
        MLPClassifier(**settings, max_norm=norm, max_iter=1, dtype="float64").fit(100 * x, y).net_.flat_parameters
        for norm in (1e-6, 1e-3)
    ]
    assert 0.9e-3 < np.linalg.norm(moved[0] - moved[1]) < 1.1e-3


def test_verbose_prints_each_epoch_and_the_reason_for_the_end(capsys):
    MLPClassifier(verbose=True, tol=10.0, n_iter_no_change=1, device="cpu").fit(*blobs())
    printed = capsys.readouterr().out
    assert printed.count("epoch ") == 3
    assert re.search(r"no better by tol=10 for 1 epochs", printed)
    MLPClassifier(max_iter=2).fit(*blobs())
    assert capsys.readouterr().out == ""
