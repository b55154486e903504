"""Held-out rows scored by scikit-learn's scorers while the classifier learns."""

import pickle

import numpy as np
import pandas
import pytest
from sklearn.metrics import f1_score, get_scorer, make_scorer

from gpu_nn import MLPClassifier
from tests.cuda_emulator import cupy_proxy as cupy
from tests.cuda_emulator.device import emulated_device
from tests.estimator.datasets import blobs, flags

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def model(**parameters):
    settings = {"hidden_layer_sizes": (6,), "max_iter": 12, "learning_rate_init": 0.02, "random_state": 0}
    return MLPClassifier(**{**settings, "device": "cpu", **parameters})


def rare():
    """One row of eight is of the class that matters; the majority alone is right in seven of eight."""
    random = np.random.default_rng(0)
    x = random.standard_normal((400, 3))
    return x, np.where(x[:, 0] + 0.3 * random.standard_normal(400) > 1.15, "yes", "no")


@pytest.mark.parametrize("scoring", ["neg_log_loss", "balanced_accuracy", "roc_auc_ovr"])
def test_the_last_score_is_that_of_the_scorer_on_the_fitted_classifier(scoring):
    x, y = blobs()
    fitted = model(scoring=scoring).fit(x, y, validation=(x, y))
    assert fitted.validation_scores_[-1] == pytest.approx(get_scorer(scoring)(fitted, x, y), rel=1e-12)
    assert len(set(fitted.validation_scores_)) > 3
    assert fitted.best_validation_score_ == max(fitted.validation_scores_)


def test_early_stopping_keeps_the_best_by_the_scorer():
    x, y = rare()
    of_yes = make_scorer(f1_score, pos_label="yes", zero_division=0)
    fitted = model(scoring=of_yes, early_stopping=True, n_iter_no_change=50, max_iter=40, alpha=0.0).fit(
        x, y, validation=(x[:200], y[:200])
    )
    assert of_yes(fitted, x[:200], y[:200]) == pytest.approx(max(fitted.validation_scores_))
    accuracy = fitted.history_.column("validation_accuracy")
    assert fitted.validation_scores_[0] < 0.5 < accuracy[0]


def test_none_is_the_accuracy():
    x, y = blobs()
    assert model().scoring is None
    fitted = [model(scoring=scoring, early_stopping=True).fit(x, y) for scoring in (None, "accuracy")]
    np.testing.assert_allclose(fitted[0].validation_scores_, fitted[1].validation_scores_, rtol=1e-6)
    np.testing.assert_allclose(fitted[0].coefs_[0], fitted[1].coefs_[0])


def test_a_callable_gets_the_held_out_rows_as_they_came():
    x, y = blobs()
    names, seen = np.array(["a", "b", "c"])[y], []

    def scorer(estimator, x_held, y_held, sample_weight=None):
        seen.append((x_held, y_held, sample_weight))
        return float((estimator.predict(x_held) == y_held).mean())

    weight = np.linspace(1, 2, 120)
    frame = pandas.DataFrame(x, columns=list("pqrst"))
    model(scoring=scorer, early_stopping=True, max_iter=2).fit(frame, pandas.Series(names), sample_weight=weight)
    x_held, y_held, weight_held = seen[0]
    rows = [int(np.flatnonzero((x.astype(np.float32) == row).all(axis=1))[0]) for row in x_held]
    assert len(rows) == 12
    np.testing.assert_array_equal(y_held, names[rows])
    np.testing.assert_array_equal(weight_held, weight[rows])


def test_rows_of_probabilities_and_several_labels_are_scored_as_labels_and_flags():
    x, y = blobs()
    fitted = model(scoring="balanced_accuracy").fit(x, np.eye(3)[y] * 0.8 + 0.2 / 3, validation=(x, y))
    assert fitted.validation_scores_[-1] == pytest.approx(get_scorer("balanced_accuracy")(fitted, x, y))
    x, y = flags()
    fitted = model(scoring="f1_macro", early_stopping=True).fit(x, y, validation=(x, y))
    assert max(fitted.validation_scores_) == pytest.approx(f1_score(y, fitted.predict(x), average="macro"))


def test_rows_on_a_gpu_are_scored_on_the_host():
    x, y = blobs()
    with emulated_device():
        settings = {"device": "cuda", "scoring": "f1_macro", "early_stopping": True, "max_iter": 3}
        fitted = model(**settings).fit(cupy.asarray(x), cupy.asarray(y))
    assert len(fitted.validation_scores_) == 3


def test_a_fitted_classifier_keeps_no_half_fitted_one():
    x, y = blobs()
    fitted = model(scoring="f1_macro", early_stopping=True).fit(x, y)
    assert len(pickle.dumps(fitted)) < len(pickle.dumps(model(early_stopping=True).fit(x, y))) + 500


@pytest.mark.parametrize(
    ("scoring", "kind", "message"),
    [
        ("f1_micr", ValueError, "scoring='f1_micr' is not one of .* Did you mean 'f1_micro'?"),
        (3, TypeError, "scoring=3; expected None, the name of a scorer"),
        (["f1"], TypeError, r"scoring=\['f1'\]; expected None"),
        (lambda estimator, x, y: float("nan"), ValueError, "gave nan on the held-out rows"),
        (lambda estimator, x, y: [0.5, 0.7], ValueError, r"gave \[0.5, 0.7\] on the held-out rows; expected a number"),
        (lambda estimator, x, y: None, ValueError, "gave None on the held-out rows"),
    ],
)
def test_scorers_that_return_no_finite_number_are_errors(scoring, kind, message):
    with pytest.raises(kind, match=message):
        model(scoring=scoring, early_stopping=True).fit(*blobs())
