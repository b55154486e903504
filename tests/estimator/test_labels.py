"""y in all its forms: labels of any type, several labels a row, probabilities, and the classes' weights."""

import numpy as np
import pytest
from sklearn.exceptions import DataConversionWarning

from gpu_nn import MLPClassifier
from gpu_nn.estimator._labels import LabelEncoder
from tests.cuda_emulator import cupy_proxy as cupy
from tests.cuda_emulator.device import emulated_device
from tests.estimator.datasets import blobs, flags

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def model(**parameters):
    return MLPClassifier(
        **{"learning_rate_init": 0.01, "max_iter": 30, "random_state": 0, "device": "cpu", **parameters}
    )


class TestLabels:
    @pytest.mark.parametrize(
        "names",
        [
            np.array(["cat", "dog", "ant"]),
            np.array(["cat", "dog", "ant"], object),
            np.array([30, -10, 20]),
            np.array([0.0, 5.0, -1.0]),
        ],
        ids=["text", "objects", "integers", "floats"],
    )
    def test_predictions_are_labels_as_they_came(self, names):
        x, y = blobs()
        fitted = model().fit(x, names[y])
        np.testing.assert_array_equal(fitted.classes_, np.sort(names))
        found = fitted.predict(x)
        assert found.dtype == names.dtype
        assert (found == names[y]).mean() > 0.9
        np.testing.assert_array_equal(fitted.classes_[fitted.predict_proba(x).argmax(axis=1)], found)

    @pytest.mark.parametrize(
        ("classes", "names"),
        [
            (np.array(["a", "b"]), ["a", "b"]),
            (np.array(["a", "b"], object), ["a", "b"]),
            (np.array([2, 3], np.uint8), [2, 3]),
            (np.array([0.0, 5.0]), [0.0, 5.0]),
            (np.array([False, True]), [False, True]),
            (np.array([("a", 1), ("b", 2)], "O,O"), None),
            (np.array(["1970", "1971"], "datetime64[Y]"), None),
        ],
        ids=str,
    )
    def test_a_network_has_the_classes_that_a_file_can_hold(self, classes, names):
        assert LabelEncoder("labels", classes).names == names

    @pytest.mark.parametrize("kind", ["object", "string", "category", "list"])
    def test_names_may_be_a_column_of_pandas_or_a_list(self, kind):
        pandas = pytest.importorskip("pandas")
        x, y = blobs()
        names = np.array(["cat", "dog", "ant"])[y]
        fitted = model().fit(x, names.tolist() if kind == "list" else pandas.Series(names, dtype=kind))
        assert fitted.net_.classes == fitted.classes_.tolist() == ["ant", "cat", "dog"]
        assert (fitted.predict(x) == names).mean() > 0.9

    def test_a_label_that_is_missing_is_refused(self):
        x, y = blobs()
        names = np.array(["cat", "dog", "ant"], object)[y]
        names[5] = None
        with pytest.raises(ValueError, match="y contains None instead of a label, first in row 5"):
            model().fit(x, names)
        with pytest.raises(ValueError, match="validation y contains None instead of a label, first in row 5"):
            model().fit(x, y, validation=(x, names))
        with pytest.raises(ValueError, match="NaN"):
            model().fit(x, np.where(np.arange(120) == 5, np.nan, y))

    @pytest.mark.parametrize("kind", ["list", "object", "string"])
    def test_a_label_of_pandas_that_is_missing_is_refused(self, kind):
        pandas = pytest.importorskip("pandas")
        x, y = blobs()
        names = np.array(["cat", "dog", "ant"], object)[y]
        names[7] = pandas.NA
        with pytest.raises(ValueError, match="y contains <NA> instead of a label, first in row 7"):
            model().fit(x, names.tolist() if kind == "list" else pandas.Series(names, dtype=kind))

    @pytest.mark.parametrize("kind", [list, tuple, np.array], ids=["list", "tuple", "array"])
    def test_labels_of_two_kinds_are_refused(self, kind):
        x, y = blobs()
        names = np.array(["cat", 1, "ant"], object)
        message = "mixes labels of the types int, str; expected text alone or numbers"
        with pytest.raises(TypeError, match=f"^y {message}"):
            model().fit(x, names[y] if kind is np.array else kind(names[y]))
        with pytest.raises(TypeError, match=f"^classes {message}"):
            model().partial_fit(x, y, classes=names if kind is np.array else kind(names))

    @pytest.mark.parametrize(
        ("classes", "message"),
        [([[0, 1, 2]], r"classes has shape \(1, 3\); expected \(m,\)"), ([0, None], "classes contains None")],
    )
    def test_classes_that_are_no_list_of_labels_are_refused(self, classes, message):
        with pytest.raises(ValueError, match=message):
            model().partial_fit(*blobs(), classes=classes)

    def test_a_column_needs_the_classes_that_a_vector_needs(self):
        x, y = blobs()
        few = y < 2
        with pytest.raises(ValueError, match="classes must be passed on the first call"):
            model().partial_fit(x[few], y[few, None])
        with pytest.warns(DataConversionWarning):
            fitted = model().partial_fit(x[few], y[few, None], classes=[0, 1, 2])
        np.testing.assert_array_equal(fitted.partial_fit(x, y).classes_, [0, 1, 2])

    @pytest.mark.parametrize("classes", [["a", "b", "c"], [1, 2, 3], [0, 1], [0, 1, 2, 3]])
    @pytest.mark.parametrize("kind", ["probabilities", "flags"])
    def test_the_classes_of_columns_are_their_numbers(self, kind, classes):
        x, y = blobs()
        y = np.eye(3)[y] if kind == "flags" else 0.7 * np.eye(3)[y] + 0.1
        with pytest.raises(ValueError, match=r"classes=\[.*\]; expected the numbers of the 3 columns of y: leave them"):
            model().partial_fit(x, y, classes=classes)
        assert model().partial_fit(x, y, classes=[2, 0, 1]).classes_.tolist() == [0, 1, 2]

    def test_a_gpu_scores_a_column_as_the_host_does_and_refuses_other_shapes(self):
        x, y = blobs()
        with emulated_device():
            fitted = model(device="cuda", max_iter=8).fit(cupy.asarray(x), cupy.asarray(y))
            score = fitted.score(x, y)
            assert score > 0.5
            for column in (cupy.asarray(y), cupy.asarray(y[:, None]), y, y[:, None]):
                assert fitted.score(cupy.asarray(x), column) == score
            # Of as many rows as classes: compared with each other they would make a square.
            for wrong in (np.eye(3)[y[:3]], np.stack([y[:3]] * 3, axis=1)):
                with pytest.raises(ValueError, match=r"y has shape \(3, 3\); expected \(3,\), as predict gives it"):
                    fitted.score(cupy.asarray(x[:3]), cupy.asarray(wrong))

    def test_booleans_are_two_classes(self):
        x, y = blobs(classes=2)
        fitted = model().fit(x, y == 1)
        assert fitted.predict(x).dtype == bool
        assert fitted.score(x, y == 1) > 0.9

    def test_two_classes_have_two_outputs_and_one_decision(self):
        x, y = blobs(classes=2)
        fitted = model().fit(x, y)
        decision, p = fitted.decision_function(x), fitted.predict_proba(x)
        assert decision.shape == (120,)
        assert p.shape == (120, 2)
        np.testing.assert_allclose(np.log(p[:, 1] / p[:, 0]), decision, rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(fitted.predict(x), (decision > 0).astype(int))

    def test_log_probabilities_are_finite_where_probabilities_vanish(self):
        x, y = blobs()
        fitted = model().fit(x, y)
        logs = fitted.predict_log_proba(1e4 * x)
        assert (fitted.predict_proba(1e4 * x) == 0).any()
        assert np.isfinite(logs).all()
        np.testing.assert_allclose(np.exp(fitted.predict_log_proba(x)), fitted.predict_proba(x), rtol=1e-4, atol=1e-7)

    def test_a_single_class_is_refused(self):
        with pytest.raises(ValueError, match="y has 1 class, \\['a'\\]; a classifier needs at least 2"):
            model().fit(blobs()[0], ["a"] * 120)

    def test_numbers_that_are_no_classes_are_refused(self):
        with pytest.raises(ValueError, match="Unknown label type: continuous"):
            model().fit(*(array + 0.25 for array in blobs()))

    def test_another_number_of_labels_than_rows_is_refused(self):
        x, y = blobs()
        with pytest.raises(ValueError, match="y has 119 rows; expected 120"):
            model().fit(x, y[:-1])


class TestSeveralLabels:
    def test_each_label_is_learned_whether_a_row_has_none_some_or_all(self):
        x, y = flags()
        fitted = model(max_iter=100).fit(x, y)
        found = fitted.predict(x)
        assert found.shape == y.shape
        assert found.dtype == np.int64
        assert {0, 3} <= set(found.sum(axis=1).tolist())
        assert (found == y).mean() > 0.97
        assert fitted.score(x, y) == (found == y).all(axis=1).mean()

    def test_decision_probability_and_prediction_agree(self):
        x, y = flags()
        fitted = model().fit(x, y)
        found = fitted.predict(x).astype(bool)
        np.testing.assert_array_equal(fitted.decision_function(x) > 0, found)
        p = fitted.predict_proba(x)
        assert ((p >= 0) & (p < 1)).all()
        np.testing.assert_array_equal(p > 0.5, found)
        np.testing.assert_array_equal(np.exp(fitted.predict_log_proba(x)) > 0.5, found)

    def test_frequencies_are_learned_as_probabilities(self):
        random = np.random.default_rng(0)
        x = np.repeat(np.eye(2), 1000, axis=0)
        chance = np.array([[0.8, 0.3, 0.1], [0.4, 0.6, 0.9]]).repeat(1000, axis=0)
        y = (random.random(chance.shape) < chance).astype(int)
        fitted = model(hidden_layer_sizes=(), max_iter=150, alpha=0.0, batch_size=500).fit(x, y)
        frequencies = y.reshape(2, 1000, 3).mean(axis=1)
        np.testing.assert_allclose(fitted.predict_proba(np.eye(2)), frequencies, atol=0.03)

    def test_early_stopping_scores_rows_with_all_labels_right(self):
        x, y = flags()
        fitted = model(early_stopping=True, validation_fraction=0.5).fit(x, y)
        scores = np.array(fitted.validation_scores_) * 200
        np.testing.assert_allclose(scores, scores.round(), atol=1e-4)
        own = model(max_iter=3).fit(x, y, validation=(x, y))
        assert own.validation_scores_[-1] == pytest.approx(own.score(x, y))

    def test_class_weight_and_other_widths_are_refused(self):
        x, y = flags()
        with pytest.raises(ValueError, match="class_weight goes with one label a row"):
            model(class_weight="balanced").fit(x, y)
        fitted = model().partial_fit(x, y)
        with pytest.raises(ValueError, match="y has 2 columns; expected 3"):
            fitted.partial_fit(x, y[:, :2])
        with pytest.raises(ValueError, match="y holds labels, but the classifier was fitted with multilabel"):
            fitted.partial_fit(x, y[:, 0])


class TestProbabilities:
    def test_rows_of_probabilities_are_learned(self):
        random = np.random.default_rng(0)
        p = random.dirichlet(np.ones(3), 4)
        x = np.eye(4)
        fitted = model(hidden_layer_sizes=(), max_iter=600, alpha=0.0, learning_rate_init=0.05).fit(x, p)
        np.testing.assert_allclose(fitted.predict_proba(x), p, atol=0.02)
        np.testing.assert_array_equal(fitted.classes_, [0, 1, 2])
        np.testing.assert_array_equal(fitted.predict(x), p.argmax(axis=1))
        assert fitted.score(x, p) == fitted.score(x, p.argmax(axis=1)) == 1

    def test_labels_and_one_hot_rows_validate_what_probabilities_trained(self):
        x, y = blobs()
        soft = np.full((120, 3), 0.1)
        soft[np.arange(120), y] = 0.8
        hard = np.eye(3)[y]
        for targets in (y, soft, hard):
            fitted = model(max_iter=3).fit(x, soft, validation=(x, targets))
            assert fitted.validation_scores_[-1] == pytest.approx(fitted.score(x, y))

    def test_class_weights_are_expected_weights(self):
        encoder = LabelEncoder("probabilities", np.arange(2))
        rows = np.array([[0.25, 0.75], [1.0, 0.0]])
        np.testing.assert_allclose(encoder.class_weights({0: 3.0}, rows, None), [1.5, 3.0])

    @pytest.mark.parametrize(
        "y", [np.full((120, 3), 0.5), np.full((120, 3), 2), np.array([["a", "b"]] * 120), np.full((120, 2), -0.5)]
    )
    def test_other_rows_are_refused(self, y):
        with pytest.raises(ValueError, match=r"Unknown label type.*flags of 0 and 1"):
            model().fit(blobs()[0], y)


class TestClassWeight:
    def test_balanced_gives_every_class_the_same_weight(self):
        encoder = LabelEncoder("labels", np.array([0, 1]))
        weight = encoder.class_weights("balanced", np.array([0, 0, 0, 1]), None)
        np.testing.assert_allclose(weight, [2 / 3, 2 / 3, 2 / 3, 2])
        weight = encoder.class_weights("balanced", np.array([0, 0, 1]), np.array([1.0, 2.0, 1.0]))
        np.testing.assert_allclose(weight, [2 / 3, 4 / 3, 2])

    def test_a_dict_multiplies_sample_weights_and_leaves_unnamed_classes_alone(self):
        encoder = LabelEncoder("labels", np.array(["a", "b"]))
        weight = encoder.class_weights({"b": 5}, np.array([0, 1]), np.array([2.0, 3.0]))
        np.testing.assert_allclose(weight, [2, 15])

    def test_a_class_that_this_part_of_the_data_lacks_may_be_named(self):
        model(class_weight={0: 1, 1: 2, 2: 1, 9: 4}, max_iter=1).fit(*blobs())

    def test_a_rare_class_is_found_when_weights_are_balanced(self):
        random = np.random.default_rng(0)
        y = (random.random(1000) < 0.05).astype(int)
        x = random.standard_normal((1000, 2)) + y[:, None]
        plain, balanced = (model(class_weight=weight).fit(x, y) for weight in (None, "balanced"))
        recall = [fitted.predict(x[y == 1]).mean() for fitted in (plain, balanced)]
        assert recall[0] < 0.5 < recall[1]
