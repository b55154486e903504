import math

import numpy as np
import pytest

from gpu_nn.plots import learning_curves, learning_rates
from gpu_nn.training import EpochRecord, History, LearningRateMonitor
from tests.plots.figure_contents import drawn, legend

NAN = math.nan


def record(epoch, loss, validation_loss=None, validation_accuracy=None, rate=1e-3):
    return EpochRecord(epoch, 45 * epoch, loss, validation_loss, validation_accuracy, rate, 1.0)


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.get_lines() if not line.get_label().startswith("_")}


def test_losses_and_accuracy_are_drawn_over_the_epochs_and_the_best_are_marked():
    history = History([record(1, 3.0, 2.0, 0.5), record(2, 2.0, 1.0, 0.75), record(3, 1.0, 1.5, 0.7)])
    figure = drawn(learning_curves(history))
    losses, accuracies = figure.axes
    found = lines(losses)
    np.testing.assert_array_equal(found["training, mean over the epoch"], [[1, 3], [2, 2], [3, 1]])
    np.testing.assert_array_equal(found["validation, lowest 1 after epoch 2"], [[1, 2], [2, 1], [3, 1.5]])
    (accuracy,) = lines(accuracies).items()
    assert accuracy[0] == "validation, highest 75.00 % after epoch 2"
    np.testing.assert_allclose(accuracy[1], [[1, 50], [2, 75], [3, 70]])
    marks = [line.get_xydata().tolist() for line in losses.get_lines() if len(line.get_xydata()) == 1]
    assert marks == [[[2, 1]]]
    assert (losses.get_ylabel(), accuracies.get_ylabel()) == ("loss, nats a row", "accuracy, % of the rows")
    assert accuracies.get_xlabel() == "epoch"


def test_without_validation_there_is_one_panel_and_one_line():
    figure = drawn(learning_curves(History([record(1, 3.0), record(2, 2.0)])))
    (axes,) = figure.axes
    assert legend(axes) == ["training, mean over the epoch"]
    assert axes.get_xlabel() == "epoch"


def test_a_single_epoch_is_a_dot_with_whole_numbers_beside_it():
    (axes,) = drawn(learning_curves(History([record(1, 3.0)]))).axes
    assert axes.get_lines()[0].get_marker() == "o"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "2"]


def test_losses_that_are_not_finite_are_gaps_and_shaded():
    history = History([record(1, 3.0, 3.0, 0.1), record(2, NAN, 2.0, 0.2), record(3, 2.0, math.inf, 0.3)])
    axes = drawn(learning_curves(history)).axes[0]
    found = lines(axes)
    np.testing.assert_array_equal(found["training, mean over the epoch"][:, 1], [3, NAN, 2])
    np.testing.assert_array_equal(found["validation, lowest 2 after epoch 2"][:, 1], [3, 2, NAN])
    assert legend(axes)[-1] == "loss not finite"
    assert sorted(patch.get_x() for patch in axes.patches) == [1.5, 2.5]
    assert axes.get_yscale() == "linear"


def test_without_a_finite_value_the_figure_says_so():
    (axes,) = drawn(learning_curves(History([record(1, NAN, NAN, NAN), record(2, math.inf, NAN, NAN)]))).axes
    assert legend(axes) == ["training, mean over the epoch", "validation", "loss not finite"]
    assert not axes.get_yticks().size


@pytest.mark.parametrize(("last", "scale"), [(0.2, "linear"), (0.02, "log"), (0.0, "linear")])
def test_the_loss_is_logarithmic_where_it_spreads_far(last, scale):
    (axes,) = drawn(learning_curves(History([record(1, 3.0), record(2, last)]))).axes
    assert axes.get_yscale() == scale
    if scale == "log":
        shown = {text.get_text() for text in axes.get_yticklabels() if text.get_text()}
        assert {"0.1", "1"} <= shown


def test_validation_that_began_later_is_no_missing_loss():
    (axes, _) = drawn(learning_curves(History([record(1, 3.0), record(2, 2.0, 1.0, 0.5)]))).axes
    assert "loss not finite" not in legend(axes)


def test_no_epochs_are_refused():
    for draw in (learning_curves, learning_rates):
        with pytest.raises(ValueError, match="history has no epochs; expected at least 1"):
            draw(History())
    with pytest.raises(ValueError, match="history has no learning rates"):
        learning_rates(LearningRateMonitor())


def test_learning_rates_are_drawn_over_the_steps():
    (axes,) = drawn(learning_rates(History([record(1, 1.0, rate=0.1), record(2, 1.0, rate=0.05)]))).axes
    np.testing.assert_array_equal(axes.get_lines()[0].get_xydata(), [[45, 0.1], [90, 0.05]])
    assert (axes.get_xlabel(), axes.get_ylim()[0], axes.get_yscale()) == ("optimizer step", 0, "linear")


def test_the_callbacks_learning_rates_are_drawn_step_by_step():
    rates = LearningRateMonitor()
    rates.load_state({"steps": np.arange(1, 5), "rates": np.array([1e-1, 1e-2, 1e-3, 1e-4])})
    (axes,) = drawn(learning_rates(rates)).axes
    np.testing.assert_array_equal(axes.get_lines()[0].get_xydata()[:, 1], rates.rates)
    assert axes.get_yscale() == "log"


def test_rates_that_are_all_zero_have_an_axis():
    (axes,) = drawn(learning_rates(History([record(1, 1.0, rate=0.0), record(2, 1.0, rate=0.0)]))).axes
    assert axes.get_ylim()[1] > 0
