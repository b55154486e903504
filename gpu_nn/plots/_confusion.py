"""The confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_nn.plots._style import (
    BLACK,
    FONT_SIZE,
    LIGHT_GREY,
    SMALL_SIZE,
    ClassNames,
    label_ticks,
    new_figure,
    style_axes,
)
from gpu_nn.plots._validation import check_row_count, class_indices, to_host

# Of more classes only _SHOWN_CLASSES are shown, those of the most frequent mistakes.
_MAX_CLASSES = 120
_SHOWN_CLASSES = 60

# The largest matrices with a share in each cell, with a count in each cell, and with the rows of each class.
_MAX_WITH_SHARES, _MAX_WITH_COUNTS, _MAX_WITH_ROWS = 12, 25, 40

_LISTED_MISTAKES = 15


def confusion_matrix(y: Any, predicted: Any, classes: Sequence[Any] | None = None) -> Any:
    """The confusion matrix, coloured by the share of the true class's rows: a Figure.

    y, predicted: (n,) labels, true and predicted. classes: all classes, in the order of the axes; where they are names,
    labels may be indices into them. By default the labels in y and predicted. A class without rows in `y` is hatched.
    Beside more than 12 classes stands a list of the most frequent mistakes; of more than 120 the plot shows 60, those
    of the most frequent mistakes.

    Raises ValueError for a label that is not a class, or for arrays that are empty or do not fit each other;
    ImportError without Matplotlib.
    """
    if classes is None:
        classes = _unique_labels(to_host(y), to_host(predicted))
    counts = ConfusionCounts(classes)
    counts.add(y, predicted)
    return counts.figure()


class ConfusionCounts:
    """The counts for `confusion_matrix`, added batch by batch. classes: as for `confusion_matrix`."""

    def __init__(self, classes: Sequence[Any]):
        self.classes = classes
        self.rows = np.zeros(len(classes), np.int64)
        # Only the pairs that occur: a matrix of many classes would not fit in memory.
        self._pairs, self._counts = np.empty(0, np.int64), np.empty(0, np.int64)

    def add(self, y: Any, predicted: Any) -> None:
        """Add rows: y and predicted, (n,) each. Raises ValueError as `confusion_matrix` does."""
        true = class_indices("y", y, self.classes)
        indices = class_indices("predicted", predicted, self.classes)
        check_row_count("predicted", len(indices), len(true), "y")
        m = len(self.classes)
        self.rows += np.bincount(true, minlength=m)
        pairs, counts = np.unique(true * m + indices, return_counts=True)
        self._pairs, inverse = np.unique(np.concatenate([self._pairs, pairs]), return_inverse=True)
        # bincount adds in float64, exact up to 2⁵³ rows.
        self._counts = np.bincount(inverse, np.concatenate([self._counts, counts])).astype(np.int64)

    def figure(self) -> Any:
        """`confusion_matrix` of all rows. Raises ValueError where there are none."""
        m, n = len(self.classes), int(self.rows.sum())
        if n == 0:
            raise ValueError("y has no rows; expected a label for each of at least 1 row")
        true, predicted = np.divmod(self._pairs, m)
        wrong = true != predicted
        order = np.argsort(-self._counts[wrong], kind="stable")
        mistakes, frequencies = np.stack([true, predicted], axis=1)[wrong][order], self._counts[wrong][order]
        right = (n - int(frequencies.sum())) / n
        shown = _classes_to_show(mistakes, self.rows)
        counts = self._matrix(true, predicted, shown)
        shares = counts / np.maximum(self.rows[shown], 1)[:, None]

        m = len(shown)
        side = float(np.clip(0.55 * m, 4, 6.5) if m <= _MAX_WITH_SHARES else np.clip(0.38 * m, 6.5, 15))
        heading = f"Confusion matrix: {100 * right:.2f} % of {n:,} rows right"
        if m < len(self.classes):
            heading += f", {m} of {len(self.classes):,} classes: those of the most frequent mistakes"
        width = side + 1.8 + (0 if m <= _MAX_WITH_SHARES else 3.2)
        figure = new_figure(width, side + 1.2, heading)
        names = ClassNames(self.classes)
        if m <= _MAX_WITH_SHARES:
            axes = figure.subplots()
        else:
            axes, beside = figure.subplots(1, 2, width_ratios=[side, 3.0])
            _list_mistakes(beside, mistakes, frequencies, self.rows, names)
        _draw_matrix(axes, counts, shares, self.rows[shown], [names.texts[i] for i in shown], names.family)
        return figure

    def _matrix(self, true: np.ndarray, predicted: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """The counts of the shown classes. shown: ascending class indices."""
        both = np.isin(true, shown) & np.isin(predicted, shown)
        counts = np.zeros((len(shown), len(shown)), np.int64)
        counts[np.searchsorted(shown, true[both]), np.searchsorted(shown, predicted[both])] = self._counts[both]
        return counts


def _unique_labels(y: np.ndarray, predicted: np.ndarray) -> list[Any]:
    """The distinct labels. Raises ValueError for names beside numbers, which cannot be sorted."""
    if (y.dtype.kind in "US") != (predicted.dtype.kind in "US"):
        raise ValueError(f"y is of {y.dtype}, predicted of {predicted.dtype}; expected labels of one kind, or classes")
    return np.unique(np.concatenate([y.ravel(), predicted.ravel()])).tolist()


def _classes_to_show(mistakes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The ascending indices of the classes to show: of too many, those of the most frequent mistakes.

    mistakes: pairs of a true and a predicted class, (k, 2), the most frequent first.
    """
    if len(rows) <= _MAX_CLASSES:
        return np.arange(len(rows))
    # Classes in the order of the mistakes, then in the order of their rows.
    order = np.concatenate([mistakes.ravel(), np.argsort(-rows, kind="stable")])
    _, first = np.unique(order, return_index=True)
    return np.sort(order[np.sort(first)[:_SHOWN_CLASSES]])


def _draw_matrix(
    axes: Any, counts: np.ndarray, shares: np.ndarray, rows: np.ndarray, texts: list[str], family: list[str]
) -> None:
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import PercentFormatter

    m = len(counts)
    # The square root makes a share of 1 % visible beside a diagonal near 100 %.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    axes.hlines(np.arange(m - 1) + 0.5, -0.5, m - 0.5, color=LIGHT_GREY, linewidth=0.4)
    axes.vlines(np.arange(m - 1) + 0.5, -0.5, m - 0.5, color=LIGHT_GREY, linewidth=0.4)
    for i in np.flatnonzero(rows == 0):
        axes.axhspan(i - 0.5, i + 0.5, facecolor="white", edgecolor=LIGHT_GREY, hatch="////", linewidth=0)
    style_axes(axes, "predicted class", "true class" + (" (rows)" if m <= _MAX_WITH_ROWS else ""), grid=None)
    for spine in axes.spines.values():
        spine.set_visible(False)
    size = SMALL_SIZE if m <= _MAX_WITH_ROWS else 6.5
    vertical = max(map(len, texts)) > (7 if m <= _MAX_WITH_SHARES else 3) or m > _MAX_WITH_ROWS
    label_ticks(axes.xaxis, texts, family, size=size, rotation=90 if vertical else 0)
    with_rows = [f"{text} ({n:,})" for text, n in zip(texts, rows.tolist(), strict=True)]
    label_ticks(axes.yaxis, with_rows if m <= _MAX_WITH_ROWS else texts, family, size=size)
    if m <= _MAX_WITH_COUNTS:
        for i, j in zip(*np.nonzero(counts), strict=True):
            text = f"{counts[i, j]:,}" + (f"\n{100 * shares[i, j]:.3g} %" if m <= _MAX_WITH_SHARES else "")
            colour = "white" if shares[i, j] > 0.35 else BLACK
            axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=7.5)
    aspect = 20 if m <= _MAX_WITH_SHARES else 40
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, aspect=aspect, format=PercentFormatter(1, 0))
    bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 1])
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL_SIZE, color=LIGHT_GREY, labelcolor=BLACK)
    bar.set_label("share of the true class's rows", fontsize=SMALL_SIZE, color=BLACK)


def _list_mistakes(axes: Any, pairs: np.ndarray, counts: np.ndarray, rows: np.ndarray, names: ClassNames) -> None:
    axes.set_axis_off()
    lines = ["Most frequent mistakes" if len(pairs) else "No mistakes", ""]
    for (true, predicted), count in zip(pairs[:_LISTED_MISTAKES], counts, strict=False):
        lines += [f"{names.texts[true]} → {names.texts[predicted]}", f"    {count:,} of {rows[true]:,} rows"]
    text = "\n".join(lines)
    axes.text(0, 1, text, va="top", fontsize=FONT_SIZE, color=BLACK, family=names.family, parse_math=False)
