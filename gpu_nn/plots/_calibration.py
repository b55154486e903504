"""Calibration: accuracy against confidence."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import gpu_nn.plots._style as style
from gpu_nn.plots._style import BLACK, BLUE, GREY, ORANGE
from gpu_nn.plots._validation import check_classes, check_probabilities, check_row_count, class_indices
from gpu_nn.validation import check_int


def expected_calibration_error(
    y: Any, probabilities: Any, classes: Sequence[Any] | None = None, bins: int = 10
) -> float:
    """Σ_b n_b/n · |accuracy_b - confidence_b| over equal bins of the confidence, the predicted class's probability.

    In [0, 1]; Naeini, Cooper and Hauskrecht 2015. Arguments and errors as in `calibration`.
    """
    counts = CalibrationBins(classes, bins)
    counts.add(y, probabilities)
    return counts.error


def calibration(y: Any, probabilities: Any, classes: Sequence[Any] | None = None, bins: int = 10) -> Any:
    """A reliability diagram, the accuracy and the number of rows at each confidence: a Figure.

    y: (n,) labels. probabilities: (n, m), rows that sum to 1. classes: the labels of the columns, by default 0 … m-1;
    where they are names, labels may be indices. The confidence of a row is the probability of its predicted class, and
    `bins` equal bins divide it. Bars have 95 % intervals (Wilson's); the heading has the expected calibration error.

    Raises ValueError for arrays that are empty or do not fit each other, or for invalid probabilities; ImportError
    without Matplotlib.
    """
    counts = CalibrationBins(classes, bins)
    counts.add(y, probabilities)
    return counts.figure()


class CalibrationBins:
    """The counts for `calibration`, added batch by batch. classes, bins: as for `calibration`."""

    def __init__(self, classes: Sequence[Any] | None = None, bins: int = 10):
        check_int("bins", bins, 1)
        self._classes, self._edges = classes, np.linspace(0, 1, bins + 1)
        # For each bin: rows, correct rows, and the sum of confidences.
        self._rows, self._correct, self._confidence = np.zeros((3, bins))

    def add(self, y: Any, probabilities: Any) -> None:
        """Add rows: y (n,), probabilities (n, m). Raises ValueError as `calibration` does."""
        p = check_probabilities(probabilities, int(self._rows.sum()))
        true = class_indices("y", y, check_classes(self._classes, p.shape[1]))
        check_row_count("y", len(true), len(p), "probabilities")
        # Rounding may leave a probability just above 1.
        confidences = np.minimum(p.max(axis=1), 1)
        correct = p.argmax(axis=1) == true
        bins = len(self._rows)
        index = np.searchsorted(self._edges[1:-1], confidences)
        self._rows += np.bincount(index, minlength=bins)
        self._correct += np.bincount(index, correct, bins)
        self._confidence += np.bincount(index, confidences, bins)

    @property
    def error(self) -> float:
        """The expected calibration error of all rows."""
        return float(np.abs(self._correct - self._confidence).sum() / self._rows.sum())

    def figure(self) -> Any:
        """`calibration` of all rows. Raises ValueError where there are none."""
        n = int(self._rows.sum())
        if n == 0:
            raise ValueError("probabilities has no rows; expected at least 1")
        nonempty = self._rows > 0
        rows = self._rows[nonempty].astype(int)
        accuracy, confidence = self._correct[nonempty] / rows, self._confidence[nonempty] / rows
        middles = 100 * (self._edges[:-1] + self._edges[1:])[nonempty] / 2
        heading = f"Calibration: expected error {100 * self.error:.2f} percentage points on {n:,} rows"
        figure = style.new_figure(6.5, 7.0, heading)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        width = 100 / len(self._rows)
        low, high = _intervals(self._correct[nonempty].astype(int), rows)
        upper.plot([0, 100], [0, 100], color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), label="perfectly calibrated")
        upper.bar(middles, 100 * accuracy, width * 0.92, color=BLUE, alpha=0.75, label="share of right rows")
        bars = np.stack([100 * (accuracy - low), 100 * (high - accuracy)])
        line = {"fmt": "none", "ecolor": BLACK, "elinewidth": 1, "capsize": 2.5}
        upper.errorbar(middles, 100 * accuracy, bars, label="its 95 % interval", **line)
        upper.plot(
            100 * confidence, 100 * accuracy, "D", color=ORANGE, markersize=5, label="at the bin's mean confidence"
        )
        style.style_axes(upper, "", "right, % of the bin's rows")
        upper.set(xlim=(0, 100), ylim=(0, 104))
        style.draw_legend(upper, columns=2)
        lower.bar(middles, rows, width * 0.92, color=GREY)
        style.style_axes(lower, "confidence: probability of the predicted class, %", "rows")
        lower.set_xticks(np.linspace(0, 100, 11))
        if style.needs_log_scale(rows):
            lower.set_ylim(0.7, None)
            style.set_log_scale(lower)
        else:
            style.use_integer_ticks(lower.yaxis, 5)
        return figure


def _intervals(correct: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the 95 % intervals of correct / rows (Wilson 1927)."""
    from scipy.stats import binomtest

    intervals = [binomtest(int(k), int(n)).proportion_ci(0.95, "wilson") for k, n in zip(correct, rows, strict=True)]
    low, high = np.array([interval.low for interval in intervals]), np.array([interval.high for interval in intervals])
    return np.minimum(low, correct / rows), np.maximum(high, correct / rows)
