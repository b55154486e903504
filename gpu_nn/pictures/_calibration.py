"""Whether a model is as often right as it says."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_nn.pictures._answers import check_rows, classes_of, distributions, indices
from gpu_nn.pictures._sheet import (
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


def expected_calibration_error(
    y: Any, probabilities: Any, classes: Sequence[Any] | None = None, bins: int = 10
) -> float:
    """Σ_b n_b/n · |accuracy_b - confidence_b| over equal bins of the confidence, the predicted class's probability.

    In [0, 1]; Naeini, Cooper and Hauskrecht 2015. Arguments and errors as in `calibration`.
    """
    return _Bins(y, probabilities, classes, bins).error


def calibration(y: Any, probabilities: Any, classes: Sequence[Any] | None = None, bins: int = 10) -> Any:
    """A reliability diagram: the share of right rows at each confidence, and how many rows have it: a Figure.

    y: (n,) labels. probabilities: (n, m), rows that sum to 1. classes: what the columns stand for, by default 0 … m-1;
    where they are names, labels may be indices. The confidence of a row is the probability of its predicted class;
    rows fall into `bins` equal bins of it. Bars carry 95 % intervals (Wilson's); the heading has the expected
    calibration error.

    Raises ValueError for arrays that are empty or do not fit, or for probabilities that are none; ImportError without
    Matplotlib.
    """
    b = _Bins(y, probabilities, classes, bins)
    n = int(b.rows.sum())
    heading = f"Calibration: expected error {100 * b.error:.2f} percentage points on {n:,} rows"
    figure = sheet(6.5, 7.0, heading)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    width = 100 / bins
    low, high = b.intervals()
    upper.plot([0, 100], [0, 100], color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), label="as often right as it says")
    upper.bar(b.middles, 100 * b.accuracy, width * 0.92, color=BLUE, alpha=0.75, label="share of right rows")
    bars = np.stack([100 * (b.accuracy - low), 100 * (high - b.accuracy)])
    upper.errorbar(
        b.middles, 100 * b.accuracy, bars, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5, label="its 95 % interval"
    )
    upper.plot(
        100 * b.confidence, 100 * b.accuracy, "D", color=ORANGE, markersize=5, label="at the bin's mean confidence"
    )
    draw_lines(upper, "", "right, % of the bin's rows")
    upper.set(xlim=(0, 100), ylim=(0, 104))
    draw_legend(upper, columns=2)
    lower.bar(b.middles, b.rows, width * 0.92, color=GREY)
    draw_lines(lower, "confidence: probability of the predicted class, %", "rows")
    lower.set_xticks(np.linspace(0, 100, 11))
    if logarithmic(b.rows):
        lower.set_ylim(0.7, None)
        set_logarithmic(lower)
    else:
        number_axis(lower.yaxis, 5)
    return figure


class _Bins:
    """The rows by confidence. Of each bin that has any: middle, in %, rows, accuracy, mean confidence in [0, 1]."""

    def __init__(self, y: Any, probabilities: Any, classes: Sequence[Any] | None, bins: int):
        from sklearn.calibration import calibration_curve

        if not (isinstance(bins, int | np.integer) and bins >= 1):
            raise ValueError(f"bins={bins!r}; expected a whole number ≥ 1")
        p = distributions(probabilities)
        true = indices("y", y, classes_of(classes, p.shape[1]))
        check_rows("y", len(true), len(p), "probabilities")
        # Sums that were rounded up may leave a probability just above 1.
        confidences = np.minimum(p.max(axis=1), 1)
        right = p.argmax(axis=1) == true
        self.accuracy, self.confidence = calibration_curve(right.astype(int), confidences, n_bins=bins)
        # scikit-learn leaves empty bins out and counts none: these are its own edges.
        edges = np.linspace(0, 1, bins + 1)
        counts = np.bincount(np.searchsorted(edges[1:-1], confidences), minlength=bins)
        self.rows = counts[counts > 0]
        self.middles = 100 * (edges[:-1] + edges[1:])[counts > 0] / 2
        self.error = float(self.rows @ np.abs(self.accuracy - self.confidence) / len(p))

    def intervals(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the 95 % intervals of the accuracies (Wilson 1927)."""
        from scipy.stats import binomtest

        right = np.rint(self.accuracy * self.rows).astype(int)
        found = [binomtest(int(k), int(n)).proportion_ci(0.95, "wilson") for k, n in zip(right, self.rows, strict=True)]
        low, high = np.array([interval.low for interval in found]), np.array([interval.high for interval in found])
        return np.minimum(low, self.accuracy), np.maximum(high, self.accuracy)
