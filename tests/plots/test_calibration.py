import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve

from gpu_nn.plots import CalibrationBins, calibration, expected_calibration_error
from tests.plots.figure_contents import drawn, heading, legend


def answers(n, m, seed=0, sharpness=1.0):
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.full(m, 1 / sharpness), n)
    return random.integers(0, m, n), p


def bars(axes):
    """Height by left edge, of the bars."""
    return {round(float(bar.get_center()[0]), 6): float(bar.get_height()) for bar in axes.patches}


def test_the_expected_error_is_its_definition():
    y, p = answers(500, 4, sharpness=4)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    expected = 0.0
    for low in range(10):
        inside = (confidence > low / 10) & (confidence <= (low + 1) / 10)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(y, p) == pytest.approx(expected, rel=1e-12)


def test_a_model_that_is_sure_and_right_has_no_error_and_one_that_is_wrong_has_all():
    p = np.eye(3)[[0, 1, 2]]
    assert expected_calibration_error([0, 1, 2], p) == 0
    assert expected_calibration_error([1, 2, 0], p) == 1


def test_a_model_that_is_as_often_right_as_it_says_has_a_small_error():
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(3), 20_000)
    y = (p.cumsum(axis=1) > random.random((20_000, 1))).argmax(axis=1)
    assert expected_calibration_error(y, p) < 0.015
    assert expected_calibration_error(y, np.eye(3)[p.argmax(axis=1)]) > 0.2


def test_bars_are_shares_of_right_rows_and_counts_under_them():
    p = np.array([[0.55, 0.45], [0.55, 0.45], [0.95, 0.05], [0.93, 0.07]])
    upper, lower = drawn(calibration([0, 1, 0, 0], p)).axes
    assert bars(upper) == {55.0: 50.0, 95.0: 100.0}
    assert bars(lower) == {55.0: 2.0, 95.0: 2.0}
    diamonds = next(line for line in upper.get_lines() if line.get_marker() == "D")
    np.testing.assert_allclose(diamonds.get_xydata(), [[55, 50], [94, 100]])
    assert lower.get_xlabel() == "confidence: probability of the predicted class, %"
    assert "its 95 % interval" in legend(upper)


def test_intervals_are_wilsons():
    y, p = answers(300, 2)
    upper = drawn(calibration(y, p, bins=1)).axes[0]
    (segments,) = [collection.get_segments() for collection in upper.collections if collection.get_segments()]
    right = int((p.argmax(axis=1) == y).sum())
    interval = binomtest(right, 300).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(segments[0][:, 1], [100 * interval.low, 100 * interval.high])


def test_the_heading_has_the_error_and_the_rows():
    figure = drawn(calibration([0, 1, 1], np.eye(2)[[0, 1, 0]]))
    assert heading(figure) == "Calibration: expected error 33.33 percentage points on 3 rows"


@pytest.mark.parametrize(("y", "rows"), [([0], 1), ([1], 1), ([0, 0, 0], 3)])
def test_one_outcome_only_is_no_problem(y, rows):
    _, lower = drawn(calibration(y, np.tile([0.8, 0.2], (rows, 1)))).axes
    assert bars(lower) == {75.0: rows}


def test_counts_that_spread_far_are_logarithmic():
    p = np.vstack([np.tile([0.99, 0.01], (1000, 1)), [[0.55, 0.45]]])
    _, lower = drawn(calibration(np.zeros(1001, int), p)).axes
    assert lower.get_yscale() == "log"


def test_a_class_that_never_comes_and_a_hundred_classes_are_drawn():
    y, p = answers(200, 100, sharpness=50)
    y[y == 3] = 4
    figure = drawn(calibration(y, p, [f"class {i}" for i in range(100)]))
    assert sum(bars(figure.axes[1]).values()) == 200


def test_float32_sums_above_one_are_probabilities():
    p = np.float32([[1.0000001, 0], [0.5, 0.5]])
    assert expected_calibration_error([0, 0], p) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("y", "p", "options", "message"),
    [
        ([0], [[0.5, np.nan]], {}, r"probabilities\[0\] sums to nan"),
        ([0, 0], [[0.5, 0.5], [3.0, -2.0]], {}, r"probabilities\[1\] sums to 1, with a least value of -2"),
        ([0], [[2.0, 3.0]], {}, r"probabilities\[0\] sums to 5"),
        ([0], [0.5, 0.5], {}, r"probabilities has shape \(2,\)"),
        ([], np.ones((0, 2)), {}, r"probabilities has shape \(0, 2\)"),
        ([0], [[1.0]], {}, "at least 1 row and 2 classes"),
        ([0, 1], [[0.5, 0.5]], {}, "y has 2 rows, probabilities 1"),
        ([2], [[0.5, 0.5]], {}, r"y\[0\] is .*2"),
        ([0], [[0.5, 0.5]], {"classes": ["a"]}, "classes has 1 entries; probabilities has 2 columns"),
        ([0], [[0.5, 0.5]], {"bins": 0}, "bins=0; expected a whole number ≥ 1"),
    ],
)
def test_invalid_probabilities_are_errors(y, p, options, message):
    with pytest.raises(ValueError, match=message):
        calibration(y, p, **options)


def test_batches_give_the_diagram_of_the_whole():
    random = np.random.default_rng(0)
    y, p = random.integers(0, 3, 1000), random.dirichlet([0.4] * 3, 1000)
    found = CalibrationBins()
    for piece in np.array_split(np.arange(1000), 7):
        found.add(y[piece], p[piece])
    assert found.error == pytest.approx(expected_calibration_error(y, p), rel=1e-12)
    accuracy, confidence = calibration_curve(p.argmax(axis=1) == y, p.max(axis=1), n_bins=10)
    some = found._rows > 0
    np.testing.assert_allclose(found._correct[some] / found._rows[some], accuracy)
    np.testing.assert_allclose(found._confidence[some] / found._rows[some], confidence)
    assert heading(drawn(found.figure())) == heading(drawn(calibration(y, p)))
    with pytest.raises(ValueError, match=r"probabilities\[1002\] sums to"):
        found.add([0, 0, 0], [[1, 0, 0], [1, 0, 0], [2, 0, 0]])


def test_no_rows_are_an_error():
    with pytest.raises(ValueError, match="probabilities has no rows"):
        CalibrationBins().figure()
