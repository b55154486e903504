"""fit, partial_fit and warm_start: when they stop, what they keep, what they continue from."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gpu_nn import MLPClassifier, TrainingDiverged, load, save
from gpu_nn.training import EarlyStopping, JsonLinesLog
from tests.estimator.datasets import blobs
from tests.training.steps import recorded_steps

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def model(**parameters):
    return MLPClassifier(
        **{"hidden_layer_sizes": (8,), "max_iter": 10, "random_state": 0, "device": "cpu", **parameters}
    )


def weights(fitted):
    return fitted.net_.flat_parameters.copy()


class TestEnd:
    def test_it_stops_when_the_loss_is_no_better_by_tol(self):
        fitted = model(tol=10.0, n_iter_no_change=4, max_iter=100).fit(*blobs())
        # The first epoch is the best so far; the fifth that is not better by tol ends it.
        assert fitted.n_iter_ == len(fitted.loss_curve_) == 6
        assert fitted.t_ == 6 * 120
        assert fitted.loss_ == fitted.loss_curve_[-1]
        assert fitted.best_loss_ == min(fitted.loss_curve_)
        assert fitted.validation_scores_ is fitted.best_validation_score_ is None

    def test_max_iter_warns_and_a_stopping_callback_does_not(self):
        with pytest.warns(ConvergenceWarning, match="max_iter=3 epochs did not .* raise max_iter"):
            model(max_iter=3).fit(*blobs())

        def stop(trainer, record):
            trainer.stopping = record.epoch == 3

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert model(max_iter=3, callbacks=[stop]).fit(*blobs()).n_iter_ == 3

    def test_early_stopping_restores_the_best_weights(self):
        seen = []
        fitted = model(
            early_stopping=True,
            validation_fraction=0.5,
            max_iter=60,
            learning_rate_init=0.3,
            callbacks=[lambda trainer, record: seen.append(trainer.net.flat_parameters.copy())],
        ).fit(*blobs())
        best = int(np.argmax(fitted.validation_scores_))
        assert best < fitted.n_iter_ - 1
        np.testing.assert_array_equal(weights(fitted), seen[best])
        assert fitted.best_validation_score_ == max(fitted.validation_scores_)
        assert fitted.best_loss_ is None
        assert fitted.t_ == 60 * fitted.n_iter_

    def test_early_stopping_holds_out_rows_of_every_class_and_learns_from_the_others(self):
        x, y = blobs()
        with recorded_steps() as steps:
            model(early_stopping=True, validation_fraction=0.25, max_iter=1).fit(x, y)
        np.testing.assert_allclose(np.bincount(steps[0].loader.y), 0.75 * np.bincount(y), atol=1)

    def test_a_class_with_one_row_does_not_hinder_early_stopping(self):
        x, y = blobs()
        y[0] = 7
        model(early_stopping=True).fit(x, y)

    def test_the_callers_validation_data_are_scored_and_decide(self):
        x, y = blobs()
        other = blobs(n=30, seed=1)
        watched = model().fit(x, y, validation=other)
        assert watched.validation_scores_[-1] == pytest.approx(watched.score(*other))
        assert watched.best_loss_ is not None
        np.testing.assert_array_equal(weights(watched), weights(model().fit(x, y)))
        stopped = model(early_stopping=True, tol=2.0, n_iter_no_change=2, max_iter=50).fit(x, y, validation=other)
        assert stopped.n_iter_ == 4
        assert stopped.t_ == 4 * 120
        assert stopped.best_validation_score_ == pytest.approx(stopped.score(*other))

    @pytest.mark.parametrize("validation", [3, (1, 2, 3)])
    def test_validation_is_a_pair(self, validation):
        with pytest.raises(ValueError, match=r"validation is a .*; expected a pair \(X, y\)"):
            model().fit(*blobs(), validation=validation)

    def test_labels_of_the_validation_data_are_known_ones(self):
        x, y = blobs()
        with pytest.raises(ValueError, match="validation y has labels that are not classes of the classifier: 9"):
            model().fit(x, y, validation=(x[:1], [9]))

    def test_the_score_of_held_out_rows_heeds_their_weights(self):
        x, y = blobs()
        wrong = np.where(np.arange(120) < 60, y, (y + 1) % 3)
        settings = {"early_stopping": True, "validation_fraction": 0.5, "max_iter": 80, "learning_rate_init": 0.02}
        fitted = model(**settings).fit(x, wrong, sample_weight=np.where(np.arange(120) < 60, 1.0, 0.0))
        assert fitted.best_validation_score_ > 0.9

    def test_held_out_rows_without_any_weight_are_refused(self):
        weight = np.zeros(120)
        weight[:3] = 1
        with pytest.raises(ValueError, match="sample_weight is zero on all rows that early_stopping holds out"):
            model(early_stopping=True, validation_fraction=0.02).fit(*blobs(), sample_weight=weight)

    def test_an_interrupt_keeps_what_was_learned(self):
        def interrupt(trainer, record):
            if record.epoch == 2:
                raise KeyboardInterrupt

        with pytest.warns(UserWarning, match="training was interrupted"):
            fitted = model(callbacks=[interrupt]).fit(*blobs())
        assert fitted.n_iter_ == 2
        assert fitted.predict(blobs()[0]).shape == (120,)

    def test_a_training_that_diverges_leaves_no_fitted_classifier(self):
        diverging = model(solver="sgd", learning_rate_init=1e6, max_iter=300)
        with pytest.raises(TrainingDiverged):
            diverging.fit(1e3 * blobs()[0], blobs()[1])
        with pytest.raises(NotFittedError):
            diverging.predict(blobs()[0])


class TestWeightsOfRows:
    @pytest.mark.parametrize("parameters", [{}, {"class_weight": "balanced", "standardize": True}])
    def test_a_weight_of_two_is_the_row_twice(self, parameters):
        x, y = blobs()
        weight = np.random.default_rng(0).integers(0, 4, 120)
        settings = {"dtype": "float64", "alpha": 1.0, "batch_size": 1000, "shuffle": False, "max_iter": 50}
        weighted = model(**settings, **parameters).fit(x, y, sample_weight=weight)
        repeated = model(**settings, **parameters).fit(x.repeat(weight, axis=0), y.repeat(weight))
        np.testing.assert_allclose(weighted.predict_proba(x), repeated.predict_proba(x), rtol=1e-9)
        np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-9)

    def test_only_ratios_of_weights_matter_but_for_the_penalty(self):
        x, y = blobs()
        one, ten = (model(alpha=0.0).fit(x, y, sample_weight=np.full(120, weight)) for weight in (1.0, 10.0))
        np.testing.assert_allclose(weights(one), weights(ten), rtol=1e-4, atol=1e-6)


class TestStandardize:
    def test_columns_of_any_size_are_brought_to_the_same(self):
        x, y = blobs()
        wild = x * [1e-3, 1, 1e3, 10, 1] + [0, 5, -1e4, 0, 3]
        tame = StandardScaler().fit_transform(wild)
        ours, by_hand = model(standardize=True, dtype="float64").fit(wild, y), model(dtype="float64").fit(tame, y)
        np.testing.assert_allclose(ours.predict_proba(wild), by_hand.predict_proba(tame), rtol=1e-7)
        np.testing.assert_allclose(ours.net_.state["0.shift"], wild.mean(axis=0))

    def test_a_constant_column_is_shifted_only(self):
        x, y = blobs()
        x[:, 2] = 0.1
        fitted = model(standardize=True).fit(x, y)
        assert fitted.net_.state["0.scale"][2] == 1

    def test_held_out_rows_do_not_count(self):
        x, y = blobs()
        fitted = model(standardize=True, early_stopping=True, validation_fraction=0.5, dtype="float64").fit(x, y)
        assert np.abs(fitted.net_.state["0.shift"] - x.mean(axis=0)).max() > 1e-3


class TestGoingOn:
    def test_the_same_random_state_gives_the_same_bits_and_another_does_not(self):
        one, same, other = (weights(model(random_state=seed, dropout=0.3).fit(*blobs())) for seed in (0, 0, 1))
        np.testing.assert_array_equal(one, same)
        assert (one != other).any()

    def test_a_random_state_object_is_drawn_from(self):
        states = [np.random.RandomState(3), np.random.RandomState(3)]
        one, same = (weights(model(random_state=state).fit(*blobs())) for state in states)
        np.testing.assert_array_equal(one, same)
        assert states[0].randint(1000) == states[1].randint(1000) != np.random.RandomState(3).randint(1000)

    def test_fit_starts_again_and_warm_start_continues(self):
        fitted = model().fit(*blobs())
        first = weights(fitted)
        np.testing.assert_array_equal(weights(fitted.fit(*blobs())), first)
        fitted.set_params(warm_start=True).fit(*blobs())
        assert fitted.loss_curve_[10] < fitted.loss_curve_[0]
        assert len(fitted.loss_curve_) == 20 == len(fitted.history_)
        assert fitted.n_iter_ == 10
        assert fitted.t_ == 20 * 120

    def test_warm_start_refuses_another_network_and_unknown_classes(self):
        x, y = blobs()
        fitted = model(warm_start=True).fit(x, y)
        with pytest.raises(ValueError, match=r"the parameters describe .*units=9.* fitted network has .*units=8"):
            fitted.set_params(hidden_layer_sizes=9).fit(x, y)
        with pytest.raises(ValueError, match="not classes of the classifier: 5, 6, 7"):
            fitted.set_params(hidden_layer_sizes=8).fit(x, y + 5)
        with pytest.raises(ValueError, match="X has 4 features"):
            fitted.fit(x[:, :4], y)

    def test_parts_are_one_training(self):
        x, y = blobs()
        whole = model(max_iter=6, dropout=0.2).fit(x, y)
        parts = model(dropout=0.2)
        for _ in range(6):
            parts.partial_fit(x, y, classes=[0, 1, 2])
        np.testing.assert_array_equal(weights(parts), weights(whole))
        np.testing.assert_array_equal(parts.loss_curve_, whole.loss_curve_)
        assert parts.history_.column("epoch") == [1, 2, 3, 4, 5, 6]
        assert parts.n_iter_ == 1

    def test_partial_fit_continues_a_fit(self):
        x, y = blobs()
        fitted = model(max_iter=5).fit(x, y).partial_fit(x, y)
        np.testing.assert_array_equal(weights(fitted), weights(model(max_iter=6).fit(x, y)))

    def test_parts_may_lack_classes_but_not_bring_new_ones(self):
        x, y = blobs()
        names = np.array(["a", "b", "c", "d"])
        fitted = model().partial_fit(x[y < 2], names[y[y < 2]], classes=["d", "c", "b", "a"])
        np.testing.assert_array_equal(fitted.classes_, names)
        fitted.partial_fit(x, names[y])
        with pytest.raises(ValueError, match="not classes of the classifier: 'e', 'f'; expected 'a', 'b', 'c', 'd'"):
            fitted.partial_fit(x[:2], ["e", "f"])
        with pytest.raises(ValueError, match="but the first call had"):
            fitted.partial_fit(x, names[y], classes=["a", "b"])

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({}, "classes must be passed on the first call to partial_fit"),
            ({"early_stopping": True}, "does not support early_stopping=True"),
            ({"class_weight": "balanced"}, "class_weight='balanced' needs all of y"),
        ],
    )
    def test_what_partial_fit_cannot_do_is_refused(self, parameters, message):
        with pytest.raises(ValueError, match=message):
            model(**parameters).partial_fit(*blobs())


class TestCompany:
    def test_it_works_in_a_pipeline_under_a_grid_search(self):
        search = GridSearchCV(
            make_pipeline(StandardScaler(), model(learning_rate_init=0.02, max_iter=30)),
            {"mlpclassifier__alpha": [1e-4, 100.0], "mlpclassifier__dropout": [0.0, 0.1]},
            cv=2,
        ).fit(*blobs())
        assert search.best_score_ > 0.9
        assert search.best_params_["mlpclassifier__alpha"] == 1e-4
        assert search.best_estimator_[-1].net_.n_inputs == 5

    def test_a_search_in_several_processes_finds_the_same_with_callbacks(self, tmp_path):
        callbacks = [EarlyStopping("loss", patience=3, min_delta=0.01), JsonLinesLog(tmp_path / "log.jsonl")]
        found = []
        for n_jobs in (1, 2):
            searched = GridSearchCV(
                model(callbacks=callbacks, max_iter=60, learning_rate_init=0.02, device="cpu"),
                {"alpha": [1e-4, 1.0]},
                scoring="neg_log_loss",
                cv=2,
                n_jobs=n_jobs,
                refit=n_jobs == 2,
            ).fit(*blobs())
            found.append(searched.cv_results_["mean_test_score"].tolist())
        assert found[0] == pytest.approx(found[1], rel=1e-6)
        best = searched.best_estimator_
        assert 3 < best.callbacks[0].best_epoch + 3 == best.n_iter_ < 60
        assert callbacks[0].best_epoch is None

    @pytest.mark.parametrize("scoring", ["roc_auc", "neg_log_loss", "neg_brier_score"])
    def test_scorers_get_what_they_need(self, scoring):
        x, y = blobs(classes=2)
        assert np.isfinite(cross_val_score(model(), x, y, cv=2, scoring=scoring)).all()

    def test_a_clone_has_the_parameters_and_nothing_learned(self):
        fitted = model(class_weight={0: 2.0}, callbacks=[print]).set_params(callbacks=None).fit(*blobs())
        copy = clone(fitted)
        assert copy.get_params() == fitted.get_params()
        with pytest.raises(NotFittedError):
            copy.predict(blobs()[0])

    def test_callbacks_see_every_epoch_after_the_classifier_did(self):
        records = []
        fitted = model(callbacks=[lambda trainer, record: records.append(record)]).fit(*blobs())
        assert [record.epoch for record in records] == list(range(1, 11))
        assert fitted.history_.epochs == records

    def test_coefs_are_read_only_copies_in_the_order_of_the_layers(self):
        fitted = model(hidden_layer_sizes=(8, 4), dropout=0.1, standardize=True).fit(*blobs())
        assert [coef.shape for coef in fitted.coefs_] == [(5, 8), (8, 4), (4, 3)]
        assert [intercept.shape for intercept in fitted.intercepts_] == [(8,), (4,), (3,)]
        with pytest.raises(ValueError, match="read-only"):
            fitted.coefs_[0][0, 0] = 1
        assert (fitted.n_layers_, fitted.n_outputs_, fitted.out_activation_) == (4, 3, "softmax")

    @pytest.mark.parametrize("normalisation", ["layer", "batch"])
    def test_coefs_are_those_of_the_dense_layers_whatever_lies_between(self, normalisation):
        options = {"normalisation": normalisation, "input_noise": 0.1, "dtype": "float64", "learning_rate_init": 0.05}
        x, y = blobs()
        fitted = model(hidden_layer_sizes=(8, 4), activation="tanh", **options).fit(x, y)
        assert [coef.shape for coef in fitted.coefs_] == [(5, 8), (8, 4), (4, 3)]
        assert [intercept.shape for intercept in fitted.intercepts_] == [(8,), (4,), (3,)]
        assert fitted.n_layers_ == 4
        a = x
        for i, (coef, intercept) in enumerate(zip(fitted.coefs_, fitted.intercepts_, strict=True)):
            a = a @ coef + intercept
            if i < 2:
                name = str(2 + 2 * i)  # 0 is the noise, 1 the first Dense
                p, state = fitted.net_.parameters, fitted.net_.state
                if normalisation == "batch":
                    assert not intercept.any()
                    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
                else:
                    mean, variance = a.mean(axis=1, keepdims=True), a.var(axis=1, keepdims=True)
                a = np.tanh(p[f"{name}.weight"] * (a - mean) / np.sqrt(variance + 1e-5) + p[f"{name}.bias"])
        np.testing.assert_allclose(fitted.net_.forward(x), a, rtol=1e-9, atol=1e-12)
        assert fitted.score(x, y) > 0.8

    def test_early_stopping_restores_the_running_statistics_of_the_best_epoch(self):
        """A prediction after the fit scores as the best epoch did, though the training went on behind it."""
        x, y = blobs()
        options = {"normalisation": "batch", "early_stopping": True, "n_iter_no_change": 4, "max_iter": 40}
        kept = {}

        def keep(trainer, record):
            scores = [r.validation_accuracy for r in trainer.history.epochs[:-1]]
            if record.validation_accuracy > max(scores, default=-1):
                kept.update({name: np.array(array) for name, array in trainer.net.inference_state.items()})

        fitted = model(learning_rate_init=0.3, callbacks=[keep], **options).fit(x, y)
        assert fitted.n_iter_ > 1 + int(np.argmax(fitted.validation_scores_))
        assert set(kept) == {"parameters", "1.running_mean", "1.running_var"}
        for name, array in kept.items():
            np.testing.assert_array_equal(fitted.net_.inference_state[name], array)

    def test_the_network_can_be_saved_with_its_classes(self, tmp_path):
        x, y = blobs()
        fitted = model(standardize=True).fit(x, np.array(["a", "b", "c"])[y])
        save(fitted.net_, tmp_path / "model.safetensors")
        net = load(tmp_path / "model.safetensors", device="cpu")
        assert net.classes == ["a", "b", "c"]
        np.testing.assert_array_equal(net.predict_proba(x.astype(np.float32)), fitted.predict_proba(x))

    def test_importing_the_package_does_not_import_scikit_learn(self):
        import subprocess
        import sys

        code = "import sys, gpu_nn; assert 'MLPClassifier' in dir(gpu_nn); sys.exit('sklearn' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
