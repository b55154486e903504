"""scikit-learn's fitted classifiers as ours: the same probabilities, classes and curves."""

import pickle

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier as Theirs
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler

from gpu_nn import MLPClassifier, from_sklearn, load, save
from tests.cuda_emulator.device import emulated_device
from tests.estimator.datasets import blobs, flags

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


def fitted(x, y, *scalers, dtype="float64", **parameters):
    settings = {"hidden_layer_sizes": (9, 7), "max_iter": 20, "random_state": 0, "learning_rate_init": 0.01}
    model = Theirs(**{**settings, **parameters})
    return (make_pipeline(*scalers, model) if scalers else model).fit(np.asarray(x, dtype), y)


def assert_same(net, theirs, x):
    expected = theirs.predict_proba(x)
    found = net.device.to_host(net.predict_proba(x))
    assert 0.01 < expected.max(axis=1).min() < 0.9999  # not all rows are beyond doubt
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[net.dtype.name])


class TestNetwork:
    @pytest.mark.parametrize("dtype", TOLERANCE)
    @pytest.mark.parametrize("classes", [2, 3])
    @pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
    def test_probabilities_are_scikit_learns(self, activation, classes, dtype):
        x, y = blobs(classes=classes)
        theirs = fitted(x, y, activation=activation, dtype=dtype)
        net = from_sklearn(theirs, device="cpu")
        assert (net.dtype.name, net.n_classes, net.classes) == (dtype, classes, list(range(classes)))
        assert_same(net, theirs, x.astype(dtype))

    @pytest.mark.parametrize("classes", [2, 3])
    @pytest.mark.parametrize("x", [np.zeros((1, 5)), np.full((1, 5), 1e4), np.eye(5) * -1e4, np.eye(5) * 1e-30])
    def test_extremes_are_scikit_learns(self, x, classes):
        theirs = fitted(*blobs(classes=classes))
        with np.errstate(over="ignore"):
            expected = theirs.predict_proba(x)
        np.testing.assert_allclose(from_sklearn(theirs).predict_proba(x), expected, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("sizes", [(), (3,), (8, 4, 2)])
    @pytest.mark.parametrize("solver", ["lbfgs", "sgd", "adam"])
    def test_any_solver_and_depth(self, solver, sizes):
        x, y = blobs()
        theirs = fitted(x, y, solver=solver, hidden_layer_sizes=sizes, alpha=1.0)
        net = from_sklearn(theirs, device="cpu")
        assert len(net.layers) == len(sizes) + 1
        assert_same(net, theirs, x)

    def test_the_type_is_that_of_the_coefficients_unless_another_is_asked_for(self):
        x, y = blobs()
        theirs = fitted(x, y)
        net = from_sklearn(theirs, dtype="float32", device="cpu")
        assert net.dtype == np.float32
        assert_same(net, theirs, x)
        with pytest.raises(ValueError, match="dtype='float16' is not one of float32, float64"):
            from_sklearn(theirs, dtype="float16")

    @pytest.mark.parametrize(
        "names",
        [
            np.array(["ant", "bee", "cat"]),
            np.array(["x", "y", "z"], object),
            np.array([30, -10, 20]),
            np.array([0.0, 5.0, -1.0]),
        ],
        ids=str,
    )
    def test_classes_are_kept_and_saved(self, names, tmp_path):
        x, y = blobs()
        theirs = fitted(x, names[y])
        net = from_sklearn(theirs, device="cpu")
        assert net.classes == theirs.classes_.tolist()
        save(net, tmp_path / "m")
        assert [load(tmp_path / "m", "cpu").classes[i] for i in net.predict(x)] == theirs.predict(x).tolist()

    def test_a_gpu_gives_the_same(self):
        x, y = blobs()
        theirs = fitted(x, y, StandardScaler(), dtype="float32")
        with emulated_device():
            net = from_sklearn(theirs)
            assert net.device.name == "cuda:0"
            assert_same(net, theirs, x.astype(np.float32))


class TestPipelines:
    @pytest.mark.parametrize(
        "scalers",
        [
            [StandardScaler()],
            [StandardScaler(with_mean=False)],
            [StandardScaler(with_std=False)],
            [StandardScaler(with_mean=False, with_std=False)],
            [MinMaxScaler()],
            [MinMaxScaler((-3, 5))],
            [MaxAbsScaler()],
            [MinMaxScaler(), "passthrough", None, StandardScaler(), MaxAbsScaler()],
        ],
        ids=str,
    )
    @pytest.mark.parametrize("classes", [2, 3])
    def test_scalers_become_one_layer(self, scalers, classes):
        x, y = blobs(classes=classes)
        x = x * [1e-3, 1, 1e3, 10, 1] + [0, 5, -1e4, 0, 3]
        x[:, 1] = 7  # a constant column
        theirs = fitted(x, y, *scalers)
        net = from_sklearn(theirs, device="cpu")
        assert [type(layer).__name__ for layer in net.layers] == ["Standardize", "Dense", "Dense", "Dense"]
        expected = theirs.predict_proba(x)
        # x itself, up to 1e4, is a number with 1e-12 of relative room.
        np.testing.assert_allclose(net.predict_proba(x), expected, rtol=0, atol=1e-10)
        tame = theirs[:-1].transform(x)
        shift, scale = net.state["0.shift"], net.state["0.scale"]
        np.testing.assert_allclose((x - shift) * scale, tame, rtol=1e-9, atol=1e-9)

    def test_a_pipeline_of_the_classifier_alone_has_no_such_layer(self):
        x, y = blobs()
        for theirs in (fitted(x, y, "passthrough"), Pipeline([("only", fitted(x, y))])):
            net = from_sklearn(theirs, device="cpu")
            assert len(net.layers) == 3
            assert_same(net, theirs, x)


class TestRefusals:
    def test_what_is_not_fitted(self):
        with pytest.raises(NotFittedError, match="MLPClassifier instance is not fitted"):
            from_sklearn(Theirs())
        with pytest.raises(NotFittedError, match="StandardScaler instance is not fitted"):
            from_sklearn(make_pipeline(StandardScaler(), fitted(*blobs())))
        with pytest.raises(NotFittedError):
            MLPClassifier.from_sklearn(make_pipeline(StandardScaler(), Theirs()))

    @pytest.mark.parametrize(
        ("other", "said"),
        [
            (MLPRegressor(), "a sklearn MLPRegressor"),
            (LogisticRegression(), "a sklearn LogisticRegression"),
            (MLPClassifier(), "a gpu_nn MLPClassifier"),
            (make_pipeline(StandardScaler(), LogisticRegression()), "a sklearn LogisticRegression"),
            (make_pipeline(StandardScaler()), "a sklearn StandardScaler"),
            (Pipeline([("nothing", "passthrough")]), "a builtins NoneType"),
            (None, "a builtins NoneType"),
            (3, "a builtins int"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_another_estimator(self, other, said):
        with pytest.raises(TypeError, match=r"expected a fitted sklearn\.neural_network\.MLPClassifier") as error:
            from_sklearn(other)
        assert f"ends in {said};" in str(error.value)

    def test_several_labels_a_row(self):
        with pytest.raises(ValueError, match=r"3 labels a row, each with a logistic output of its own; a softmax"):
            from_sklearn(fitted(*flags()))

    def test_a_single_class(self):
        with pytest.raises(ValueError, match=r"knows 1 class, \[7\]; a softmax needs at least 2"):
            from_sklearn(fitted(blobs()[0], np.full(120, 7)))

    def test_a_step_that_is_no_scaler(self):
        with pytest.raises(TypeError, match="the pipeline has a sklearn PCA before its classifier; expected Standard"):
            from_sklearn(fitted(*blobs(), PCA(3)))

    def test_a_scaler_that_clips(self):
        with pytest.raises(ValueError, match=r"MinMaxScaler\(clip=True\) clips .* expected clip=False"):
            from_sklearn(fitted(*blobs(), MinMaxScaler(clip=True)))


class TestClassifier:
    @pytest.mark.parametrize("names", [np.array(["ant", "bee"]), np.array([30, -10, 20])], ids=str)
    @pytest.mark.parametrize("scalers", [[], [StandardScaler()]], ids=str)
    def test_predictions_are_scikit_learns(self, names, scalers):
        x, y = blobs(classes=len(names))
        theirs = fitted(x, names[y], *scalers, activation="tanh")
        ours = MLPClassifier.from_sklearn(theirs, device="cpu")
        np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
        np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), rtol=0, atol=1e-12)
        np.testing.assert_array_equal(ours.classes_, theirs.classes_)
        assert ours.score(x, names[y]) == theirs.score(x, names[y])

    def test_parameters_and_curves_are_scikit_learns(self):
        parameters = {"alpha": 0.3, "beta_1": 0.8, "batch_size": 30, "early_stopping": True, "activation": "logistic"}
        theirs = fitted(*blobs(), **parameters)
        ours = MLPClassifier.from_sklearn(theirs, device="cpu")
        for name, value in theirs.get_params().items():
            assert name == "max_fun" or ours.get_params()[name] == value
        assert (ours.complement_weight, ours.standardize, ours.dtype) == (0.0, False, "float64")
        for name in ("loss_curve_", "loss_", "validation_scores_", "best_validation_score_", "n_iter_", "t_"):
            assert getattr(ours, name) == getattr(theirs, name)
        assert (ours.n_layers_, ours.n_outputs_, ours.n_features_in_) == (4, 3, 5)
        for kind in ("coefs_", "intercepts_"):
            for one, other in zip(getattr(ours, kind), getattr(theirs, kind), strict=True):
                np.testing.assert_array_equal(one, other)

    def test_names_of_columns_are_kept(self):
        pandas = pytest.importorskip("pandas")
        x, y = blobs()
        frame = pandas.DataFrame(x, columns=list("abcde"))
        for theirs in (
            Theirs(max_iter=3).fit(frame, y),
            make_pipeline(StandardScaler(), Theirs(max_iter=3)).fit(frame, y),
        ):
            ours = MLPClassifier.from_sklearn(theirs, device="cpu")
            assert list(ours.feature_names_in_) == list("abcde")
            ours.predict(frame)
            with pytest.raises(ValueError, match="feature names"):
                ours.predict(frame[list("edcba")])

    @pytest.mark.parametrize("solver", ["lbfgs", "sgd", "adam"])
    @pytest.mark.parametrize("scalers", [[], [MinMaxScaler()]], ids=str)
    def test_training_continues(self, solver, scalers):
        x, y = blobs()
        ours = MLPClassifier.from_sklearn(fitted(x, y, *scalers, max_iter=3, solver=solver), device="cpu")
        before = -np.log(ours.predict_proba(x)[np.arange(120), y]).mean()
        ours = pickle.loads(pickle.dumps(ours))
        for _ in range(20):
            ours.partial_fit(x, y)
        after = -np.log(ours.predict_proba(x)[np.arange(120), y]).mean()
        assert after < before
        assert ours.set_params(warm_start=True, max_iter=2).fit(x, y).n_iter_ == 2

    def test_it_learns_as_scikit_learn_does(self):
        x, y = blobs(classes=2)
        parameters = {"solver": "sgd", "momentum": 0.0, "shuffle": False, "batch_size": 120, "alpha": 0.0}
        theirs = fitted(x, y, **parameters, max_iter=1)
        ours = MLPClassifier.from_sklearn(theirs, device="cpu")
        # Two outputs of ±z/2 have each half of z's gradient and pass it on alike, so the hidden layers learn as there.
        theirs.partial_fit(x, y)
        ours.partial_fit(x, y)
        for found, expected in zip(ours.coefs_[:-1], theirs.coefs_[:-1], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9)

    def test_a_new_fit_forgets_the_import(self):
        x, y = blobs()
        ours = MLPClassifier.from_sklearn(fitted(x, y), device="cpu")
        anew = MLPClassifier(**ours.get_params()).fit(x, y)
        np.testing.assert_array_equal(ours.fit(x, y).predict_proba(x), anew.predict_proba(x))
        assert ours.loss_curve_ == anew.loss_curve_
