import json
import math

import pytest

from gpu_nn import schedules as S


def test_constant():
    assert [S.Constant(0.1)(step) for step in (0, 10)] == [0.1, 0.1]


def test_step_falls_by_the_factor_every_so_many_steps():
    assert [S.Step(1.0, every=10, factor=0.1)(s) for s in (0, 9, 10, 25)] == pytest.approx([1, 1, 0.1, 0.01])


def test_cosine_goes_from_lr_to_final_and_stays():
    cosine = S.Cosine(1.0, steps=100, final=0.2)
    assert [cosine(s) for s in (0, 50, 100, 500)] == pytest.approx([1, 0.6, 0.2, 0.2])
    assert all(cosine(s) > cosine(s + 1) for s in range(100))


def test_warm_up_rises_to_the_schedule_that_follows():
    warm = S.WarmUp(4, S.Constant(1.0))
    assert [warm(s) for s in (0, 1, 3, 4, 100)] == pytest.approx([0.25, 0.5, 1, 1, 1])


class TestReduceOnPlateau:
    def test_it_goes_on_from_its_state(self):
        metrics = (3, 2, 2, 2, 1, 1, 1)
        for at in range(len(metrics)):
            whole, first, second = (S.ReduceOnPlateau(1.0, patience=2) for _ in range(3))
            for metric in metrics:
                whole.observe(metric)
            for metric in metrics[:at]:
                first.observe(metric)
            second.load_state(json.loads(json.dumps(first.state())))
            for metric in metrics[at:]:
                second.observe(metric)
            assert second.state() == whole.state()

    @pytest.mark.parametrize("value", [None, "1", [], [1], True, -1, math.nan, 10**400])
    @pytest.mark.parametrize("name", ["current", "best", "epochs_since_best"])
    def test_a_state_that_is_none_is_refused_and_changes_nothing(self, name, value):
        plateau = S.ReduceOnPlateau(1.0)
        before = plateau.state()
        if (name, value) == ("best", -1):
            value = -math.inf
        with pytest.raises((ValueError, OverflowError)):
            plateau.load_state({"current": 0.5, "best": 2.0, "epochs_since_best": 1, name: value})
        assert plateau.state() == before

    def test_it_falls_after_patience_epochs_without_progress(self):
        plateau = S.ReduceOnPlateau(1.0, factor=0.5, patience=2)
        rates = []
        for metric in (3, 2, 2, 2, 1, 1, 1):
            plateau.observe(metric)
            rates.append(plateau(0))
        assert rates == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]

    def test_progress_below_min_delta_does_not_count(self):
        plateau = S.ReduceOnPlateau(1.0, patience=1, min_delta=0.1)
        plateau.observe(1.0)
        plateau.observe(0.95)
        assert plateau(0) == 0.5

    def test_it_stops_at_min_lr(self):
        plateau = S.ReduceOnPlateau(1.0, patience=1, min_lr=0.3)
        for _ in range(5):
            plateau.observe(1.0)
        assert plateau(0) == 0.3

    def test_a_metric_that_is_nan_is_no_progress(self):
        plateau = S.ReduceOnPlateau(1.0, patience=1)
        plateau.observe(math.nan)
        assert plateau(0) == 0.5

    def test_state_continues_it_through_a_warm_up(self):
        one, other = (S.WarmUp(1, S.ReduceOnPlateau(1.0, patience=2)) for _ in range(2))
        one.observe(1.0)
        one.observe(1.0)
        other.load_state(one.state())
        other.observe(1.0)
        assert other(10) == 0.5


@pytest.mark.parametrize(
    "make", [lambda: S.Step(1, every=0), lambda: S.Cosine(1, steps=0), lambda: S.WarmUp(0, S.Constant(1))]
)
def test_no_steps_are_refused(make):
    with pytest.raises(ValueError, match="expected a whole number ≥ 1"):
        make()


@pytest.mark.parametrize("lr", [-1, math.inf, math.nan, "0.1", None])
def test_a_learning_rate_that_is_none_is_refused(lr):
    with pytest.raises(ValueError, match="lr="):
        S.as_schedule(lr)
