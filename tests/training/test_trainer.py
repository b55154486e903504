import re

import numpy as np
import pytest

from gpu_nn import SGD, Adam, Dense, Network, Standardize, Trainer, TrainingDiverged
from gpu_nn import functional as F
from gpu_nn.data import digits
from gpu_nn.schedules import ReduceOnPlateau
from gpu_nn.training import Callback, Checkpoints, Trigger
from tests.training.blobs import blobs


def trained(epochs=3, batch_size=32, seed=0, **options):
    net = Network([5, 8, 3], device="cpu", seed=1)
    fit_options = {name: options.pop(name) for name in ("validation", "sample_weight") if name in options}
    trainer = Trainer(net, Adam(1e-2), batch_size=batch_size, seed=seed, **options)
    trainer.fit(*blobs(), epochs=epochs, **fit_options)
    return net, trainer


def batches_of(net, monkeypatch):
    """A list to which every training step of `net` adds the first column of its batch."""
    seen, step = [], net.train_step

    def spy(x, *arguments, **options):
        seen.append(x[:, 0].copy())
        return step(x, *arguments, **options)

    monkeypatch.setattr(net, "train_step", spy)
    return seen


def mean_cost(net, x, y):
    return float(F.softmax_cross_entropy(net.forward(x), y, reduction="mean"))


class TestFit:
    def test_each_epoch_visits_every_row_once_the_last_short_batch_included(self, monkeypatch):
        net = Network([1, 2], device="cpu")
        seen = batches_of(net, monkeypatch)
        x = np.arange(70, dtype=np.float32)[:, None]
        Trainer(net, SGD(0.0), batch_size=32).fit(x, np.zeros(70, int), epochs=2)
        assert [len(rows) for rows in seen] == [32, 32, 6] * 2
        first, second = np.concatenate(seen[:3]), np.concatenate(seen[3:])
        for epoch in (first, second):
            np.testing.assert_array_equal(np.sort(epoch), x[:, 0])
        assert (first != second).any()
        assert (first != x[:, 0]).any()

    def test_an_epoch_of_more_steps_than_losses_are_kept_at_a_time(self, monkeypatch):
        net = Network([2, 3], device="cpu", seed=1)
        costs, step = [], net.train_step

        def spy(*arguments, **options):
            losses = step(*arguments, **options)
            costs.append(float(losses.sum()))
            return losses

        monkeypatch.setattr(net, "train_step", spy)
        x = np.random.default_rng(0).standard_normal((1301, 2))
        trainer = Trainer(net, SGD(0.1), batch_size=2)
        trainer.fit(x, (x[:, 0] > 0).astype(int), epochs=2)
        for epoch, record in enumerate(trainer.history):
            of_epoch = np.array(costs[epoch * 651 : (epoch + 1) * 651])
            assert record.loss == pytest.approx((of_epoch[:-1].sum() * 2 + of_epoch[-1]) / 1301, rel=1e-6)

    def test_without_shuffle_rows_keep_their_order(self, monkeypatch):
        net = Network([1, 2], device="cpu")
        seen = batches_of(net, monkeypatch)
        x = np.arange(50, dtype=np.float32)[:, None]
        Trainer(net, SGD(0.0), batch_size=32, shuffle=False).fit(x, np.zeros(50, int), epochs=1)
        np.testing.assert_array_equal(np.concatenate(seen), x[:, 0])

    def test_one_full_batch_step_is_gradient_descent_on_the_mean_cost(self):
        net, by_hand = (Network([5, 8, 3], device="cpu", seed=1, dtype="float64") for _ in range(2))
        x, y = blobs()
        Trainer(net, SGD(0.1), batch_size=1000, shuffle=False).fit(x, y, epochs=1)
        loss = by_hand.loss_and_grad(x, y, reduction="mean")
        np.testing.assert_allclose(net.flat_parameters, by_hand.flat_parameters - 0.1 * by_hand.flat_grads, rtol=1e-12)
        assert np.isfinite(loss)

    def test_the_same_seed_gives_the_same_bits_and_another_does_not(self):
        one, same, other = (trained(seed=seed)[0].flat_parameters for seed in (0, 0, 1))
        np.testing.assert_array_equal(one, same)
        assert (one != other).any()

    def test_fit_twice_goes_on_where_it_was(self):
        net, trainer = trained(epochs=2)
        trainer.fit(*blobs(), epochs=1)
        whole, _ = trained(epochs=3)
        np.testing.assert_array_equal(net.flat_parameters, whole.flat_parameters)
        assert trainer.history.column("epoch") == [1, 2, 3]

    def test_inputs_are_standardized_once_and_the_gradient_is_the_same(self):
        x, y = blobs()
        nets = []
        for layers in ([Standardize(), Dense(3)], [Dense(3)]):
            net = Network(layers, n_inputs=5, device="cpu", seed=1)
            given = x
            if len(layers) == 2:
                net.state["0.shift"][...], net.state["0.scale"][...] = 1, 2
            else:
                given = (x - 1) * 2
            Trainer(net, SGD(0.1), batch_size=32).fit(given, y, epochs=2)
            nets.append(net)
        np.testing.assert_allclose(nets[0].parameters["1.weight"], nets[1].parameters["0.weight"], rtol=1e-5)

    def test_a_weight_of_two_is_the_row_twice(self):
        x, y = blobs(60)
        weight = np.where(np.arange(60) < 20, 2.0, 1.0)
        twice = np.concatenate([np.arange(60), np.arange(20)])
        nets = []
        for rows, given in ((np.arange(60), weight), (twice, None)):
            net = Network([5, 3], device="cpu", seed=1, dtype="float64")
            trainer = Trainer(net, SGD(0.1), batch_size=100, shuffle=False)
            trainer.fit(x[rows], y[rows], epochs=5, sample_weight=given)
            nets.append(net)
        np.testing.assert_allclose(nets[0].flat_parameters, nets[1].flat_parameters, rtol=1e-10, atol=1e-12)

    def test_dense_targets_train_as_the_indices_they_stand_for(self):
        x, y = blobs()
        nets = []
        for given in (y, np.eye(3)[y]):
            net = Network([5, 3], device="cpu", seed=1, dtype="float64")
            Trainer(net, SGD(0.1)).fit(x, given, epochs=2)
            nets.append(net)
        np.testing.assert_allclose(nets[0].flat_parameters, nets[1].flat_parameters, rtol=1e-9)


class InterruptAfterAStep(Callback):
    every = Trigger(steps=1)

    def __call__(self, trainer, record):
        trainer.interrupt()


@pytest.mark.parametrize("batch_size", [230, 231, 10**17, 2**62 + 1, 10**30])
class TestABatchOfAllRows:
    def test_its_loss_is_the_mean_of_the_rows_costs_however_large_it_is(self, batch_size):
        net, (x, y) = Network([5, 8, 3], device="cpu", seed=1), blobs()
        expected = mean_cost(net, x, y)
        history = Trainer(net, SGD(0.1), batch_size=batch_size).fit(x, y, epochs=2)
        assert history[0].loss == pytest.approx(expected, rel=1e-6)
        assert 0 < history[1].loss < expected

    def test_it_goes_on_after_its_only_step(self, batch_size, tmp_path):
        def made(*callbacks):
            net = Network([5, 8, 3], device="cpu", seed=1)
            return Trainer(net, SGD(0.1), batch_size=batch_size, callbacks=[*callbacks, Checkpoints(tmp_path)])

        broken = made(InterruptAfterAStep())
        broken.fit(*blobs(), epochs=2)
        assert (broken.interrupted, broken.step_record().step) == (True, 1)
        resumed = made()
        resumed.fit(*blobs(), epochs=2, resume=tmp_path)
        whole = Trainer(Network([5, 8, 3], device="cpu", seed=1), SGD(0.1), batch_size=batch_size)
        whole.fit(*blobs(), epochs=2)
        np.testing.assert_array_equal(resumed.net.flat_parameters, whole.net.flat_parameters)
        assert resumed.history.column("loss") == whole.history.column("loss")


class TestHistory:
    def test_a_record_holds_losses_and_accuracy_of_that_epoch(self):
        validation = blobs(seed=5)
        net, trainer = trained(validation=validation)
        record = trainer.history[-1]
        assert record.validation_loss == pytest.approx(mean_cost(net, *validation))
        assert record.validation_accuracy == pytest.approx((net.predict(validation[0]) == validation[1]).mean())
        assert record.steps == 3 * 8
        assert record.learning_rate == 1e-2
        assert trainer.history.column("loss") == sorted(trainer.history.column("loss"), reverse=True)

    def test_the_loss_of_an_epoch_is_the_mean_over_its_rows(self):
        x, y = blobs()
        net = Network([5, 3], device="cpu", dtype="float64")
        trainer = Trainer(net, SGD(0.0), batch_size=32)
        trainer.fit(x, y, epochs=1)
        assert trainer.history[0].loss == pytest.approx(mean_cost(net, x, y))

    def test_a_callback_sees_each_epoch_and_may_stop(self):
        def stop(trainer, record):
            trainer.stopping = record.epoch == 2

        assert len(trained(epochs=9, callbacks=[stop])[1].history) == 2

    def test_a_plateau_of_the_validation_loss_lowers_the_learning_rate(self):
        net = Network([5, 3], device="cpu")
        trainer = Trainer(net, SGD(ReduceOnPlateau(0.0, patience=1)))
        trainer.optimizer.schedule._current = 1e-9
        trainer.fit(*blobs(), epochs=4, validation=blobs(seed=5))
        assert trainer.optimizer.learning_rate < 1e-9


class TestRefusals:
    @pytest.mark.parametrize(
        ("x", "y", "message"),
        [
            (np.zeros((0, 5)), [], "x has no rows"),
            (np.zeros((3, 4)), [0, 1, 2], r"x has shape \(3, 4\); expected \(n, 5\)"),
            (np.full((3, 5), np.nan), [0, 1, 2], r"x\[0, 0\] is NaN or infinite"),
            (np.zeros((3, 5)), [0, 1, 3], r"y\[2\] = 3; expected 0 to 2"),
            (np.zeros((3, 5)), [0, 1], r"y has shape \(2,\)"),
            (np.zeros((3, 5)), np.full((3, 3), -1.0), "expected targets from 0 to 1"),
        ],
    )
    def test_data(self, x, y, message):
        net = Network([5, 3], device="cpu")
        before = net.flat_parameters.copy()
        with pytest.raises(ValueError, match=message):
            Trainer(net, SGD()).fit(x, y)
        with pytest.raises(ValueError, match=rf"validation (x|y).*{message.removeprefix('x').removeprefix('y')}"):
            Trainer(net, SGD()).fit(*blobs(), epochs=1, validation=(x, y))
        np.testing.assert_array_equal(net.flat_parameters, before)

    def test_arguments(self):
        net = Network([5, 3], device="cpu")
        with pytest.raises(ValueError, match="batch_size=0; expected a whole number ≥ 1"):
            Trainer(net, SGD(), batch_size=0)
        for epochs in (-1, 1.5, 2.0, "2", None, np.float64(3)):
            with pytest.raises(ValueError, match=re.escape(f"epochs={epochs!r}; expected a whole number ≥ 0")):
                Trainer(net, SGD()).fit(*blobs(), epochs=epochs)
        assert len(Trainer(net, SGD()).fit(*blobs(), epochs=np.int64(2))) == 2
        x, y = blobs()
        for validation, came in (
            ((x, y, y), "a tuple of 3"),
            ([x], "a list of 1"),
            (x[:2], "a ndarray of 2"),
            ("xy", "a str of 2"),
            (3, "a int"),
        ):
            with pytest.raises(TypeError, match=rf"validation is {came}; expected \(x, y\), or a StreamDataset"):
                Trainer(net, SGD()).fit(x, y, epochs=1, validation=validation)
        with pytest.raises(ValueError, match="sample_weight is 0 everywhere"):
            Trainer(net, SGD()).fit(*blobs(), sample_weight=np.zeros(230))

    def test_a_loss_that_is_not_finite_stops_with_the_number_of_the_step(self):
        x, y = blobs()
        net = Network([5, 3], device="cpu")
        net.parameters["0.weight"][...] = 3e38
        with pytest.raises(TrainingDiverged, match="step 1;") as caught:
            Trainer(net, SGD(), batch_size=32).fit(x * 100, y, epochs=1)
        assert caught.value.step == 1
        healthy = Network([5, 3], device="cpu")
        with np.errstate(all="ignore"), pytest.raises(TrainingDiverged) as caught:
            Trainer(healthy, SGD(1e38), batch_size=32).fit(x, y, epochs=3)
        assert 1 < caught.value.step <= 8


class TestDigits:
    def test_digits_are_learned_to_97_percent_in_seconds(self):
        x, y = digits()
        order = np.random.default_rng(0).permutation(len(x))
        x, y = (x / 16)[order].astype(np.float32), y[order]
        net = Network([64, 128, 10], device="cpu")
        trainer = Trainer(net, Adam(1e-3), batch_size=32)
        trainer.fit(x[:1437], y[:1437], epochs=30)
        accuracy = (net.predict(x[1437:]) == y[1437:]).mean()
        assert accuracy >= 0.97
        assert sum(trainer.history.column("seconds")) < 10

    def test_training_far_past_zero_error_stays_finite(self):
        """20,000 Adam steps on separable data: the logits grow without bound, as the compositions' end in NaN."""
        random = np.random.default_rng(0)
        y = random.integers(0, 4, 64)
        x = (np.eye(4)[y] * 4 + random.standard_normal((64, 4)) * 0.1).astype(np.float32)
        net = Network([4, 16, 4], device="cpu")
        trainer = Trainer(net, Adam(1e-3), batch_size=64)
        trainer.fit(x, y, epochs=20_000)
        assert trainer.optimizer.steps == 20_000
        assert np.isfinite(trainer.history.column("loss")).all()
        assert np.isfinite(net.flat_parameters).all()
        assert trainer.history[-1].loss < 1e-6
        assert (net.predict(x) == y).all()
