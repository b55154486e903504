"""Whether a model is as often right as it says."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_nn.plots._style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    draw_legend,
    draw_lines,
    logarithmic,
    number_axis,
    set_logarithmic,
    sheet,
)
from gpu_nn.plots._validation import check_rows, classes_of, distributions, indices
from gpu_nn.validation import check_int


def expected_calibration_error(
    y: Any, probabilities: Any, classes: Sequence[Any] | None = None, bins: int = 10
) -> float:
    """Σ_b n_b/n · |accuracy_b - confidence_b| over equal bins of the confidence, the predicted class's probability.

    In [0, 1]; Naeini, Cooper and Hauskrecht 2015. Arguments and errors as in `calibration`.
    """
    found = CalibrationBins(classes, bins)
    found.add(y, probabilities)
    return found.error


def calibration(y: Any, probabilities: Any, classes: Sequence[Any] | None = None, bins: int = 10) -> Any:
    """A reliability diagram: the share of right rows at each confidence, and how many rows have it: a Figure.

    y: (n,) labels. probabilities: (n, m), rows that sum to 1. classes: what the columns stand for, by default 0 … m-1;
    where they are names, labels may be indices. The confidence of a row is the probability of its predicted class;
    rows fall into `bins` equal bins of it. Bars carry 95 % intervals (Wilson's); the heading has the expected
    calibration error.

    Raises ValueError for arrays that are empty or do not fit, or for probabilities that are none; ImportError without
    Matplotlib.
    """
    found = CalibrationBins(classes, bins)
    found.add(y, probabilities)
    return found.figure()


class CalibrationBins:
    """The rows by confidence, as they come piece by piece. classes, bins: as for `calibration`."""

    def __init__(self, classes: Sequence[Any] | None = None, bins: int = 10):
        check_int("bins", bins, 1)
        self._classes, self._edges = classes, np.linspace(0, 1, bins + 1)
        # Of each bin: its rows, those that are right, and the sum of their confidences.
        self._rows, self._right, self._confidence = np.zeros((3, bins))

    def add(self, y: Any, probabilities: Any) -> None:
        """Some more rows, (n,) labels and (n, m). Raises ValueError as `calibration` does."""
        p = distributions(probabilities, int(self._rows.sum()))
        true = indices("y", y, classes_of(self._classes, p.shape[1]))
        check_rows("y", len(true), len(p), "probabilities")
        # Sums that were rounded up may leave a probability just above 1.
        confidences = np.minimum(p.max(axis=1), 1)
        right = p.argmax(axis=1) == true
        bins = len(self._rows)
        place = np.searchsorted(self._edges[1:-1], confidences)
        self._rows += np.bincount(place, minlength=bins)
        self._right += np.bincount(place, right, bins)
        self._confidence += np.bincount(place, confidences, bins)

    @property
    def error(self) -> float:
        """The expected calibration error of all the rows."""
        return float(np.abs(self._right - self._confidence).sum() / self._rows.sum())

    def figure(self) -> Any:
        """`calibration` of all the rows. Raises ValueError where there are none."""
        n = int(self._rows.sum())
        if n == 0:
            raise ValueError("probabilities has no rows; expected at least 1")
        # Of the bins that have any.
        some = self._rows > 0
        rows = self._rows[some].astype(int)
        accuracy, confidence = self._right[some] / rows, self._confidence[some] / rows
        middles = 100 * (self._edges[:-1] + self._edges[1:])[some] / 2
        heading = f"Calibration: expected error {100 * self.error:.2f} percentage points on {n:,} rows"
        figure = sheet(6.5, 7.0, heading)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        width = 100 / len(self._rows)
        low, high = _intervals(self._right[some].astype(int), rows)
        upper.plot(
            [0, 100], [0, 100], color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), label="as often right as it says"
        )
        upper.bar(middles, 100 * accuracy, width * 0.92, color=BLUE, alpha=0.75, label="share of right rows")
        bars = np.stack([100 * (accuracy - low), 100 * (high - accuracy)])
        upper.errorbar(
            middles, 100 * accuracy, bars, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5, label="its 95 % interval"
        )
        upper.plot(
            100 * confidence, 100 * accuracy, "D", color=ORANGE, markersize=5, label="at the bin's mean confidence"
        )
        draw_lines(upper, "", "right, % of the bin's rows")
        upper.set(xlim=(0, 100), ylim=(0, 104))
        draw_legend(upper, columns=2)
        lower.bar(middles, rows, width * 0.92, color=GREY)
        draw_lines(lower, "confidence: probability of the predicted class, %", "rows")
        lower.set_xticks(np.linspace(0, 100, 11))
        if logarithmic(rows):
            lower.set_ylim(0.7, None)
            set_logarithmic(lower)
        else:
            number_axis(lower.yaxis, 5)
        return figure


def _intervals(right: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95 % intervals of the shares right / rows (Wilson 1927)."""
    from scipy.stats import binomtest

    found = [binomtest(int(k), int(n)).proportion_ci(0.95, "wilson") for k, n in zip(right, rows, strict=True)]
    low, high = np.array([interval.low for interval in found]), np.array([interval.high for interval in found])
    return np.minimum(low, right / rows), np.maximum(high, right / rows)
