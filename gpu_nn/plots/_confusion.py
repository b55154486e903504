"""Which classes are taken for which."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_nn.plots._style import FAINT, INK, SMALL, TEXT, Names, draw_lines, label_ticks, sheet
from gpu_nn.plots._validation import check_rows, indices, on_host

# More classes than this are told apart by nobody: those of the most frequent mistakes are shown.
_MOST_CLASSES = 120
_OF_TOO_MANY = 60

# Up to here a cell says its share below its count; its count; and each class its rows.
_WITH_SHARES, _WITH_COUNTS, _WITH_ROWS = 12, 25, 40

_MISTAKES_LISTED = 15


def confusion_matrix(y: Any, predicted: Any, classes: Sequence[Any] | None = None) -> Any:
    """How often each class was taken for each: a Figure, whose colours are shares of the true class's rows.

    y, predicted: (n,) labels, true and predicted. classes: all classes, in the order of the axes; where they are names,
    labels may be indices into them. By default the classes are the labels there are. A class without rows in `y` is
    hatched. More than 12 classes come with a list of the most frequent mistakes; of more than 120, 60 are shown, those
    of the most frequent mistakes.

    Raises ValueError for a label that is no class, or for arrays that are empty or do not fit each other; ImportError
    without Matplotlib.
    """
    if classes is None:
        classes = _found(on_host(y), on_host(predicted))
    counts = ConfusionCounts(classes)
    counts.add(y, predicted)
    return counts.figure()


class ConfusionCounts:
    """How often each class was taken for each, of rows that come piece by piece. classes: as for `confusion_matrix`."""

    def __init__(self, classes: Sequence[Any]):
        self.classes = classes
        self.rows = np.zeros(len(classes), np.int64)
        # Only the pairs that there are: of many classes a matrix would not fit in memory.
        self._pairs, self._counts = np.empty(0, np.int64), np.empty(0, np.int64)

    def add(self, y: Any, predicted: Any) -> None:
        """Some more rows, true and predicted, (n,) each. Raises ValueError as `confusion_matrix` does."""
        true, said = indices("y", y, self.classes), indices("predicted", predicted, self.classes)
        check_rows("predicted", len(said), len(true), "y")
        m = len(self.classes)
        self.rows += np.bincount(true, minlength=m)
        pairs, counts = np.unique(true * m + said, return_counts=True)
        self._pairs, places = np.unique(np.concatenate([self._pairs, pairs]), return_inverse=True)
        # As floats they are exact up to 2⁵³ rows.
        self._counts = np.bincount(places, np.concatenate([self._counts, counts])).astype(np.int64)

    def figure(self) -> Any:
        """`confusion_matrix` of all the rows. Raises ValueError where there are none."""
        m, n = len(self.classes), int(self.rows.sum())
        if n == 0:
            raise ValueError("y has no rows; expected a label for each of at least 1 row")
        true, said = np.divmod(self._pairs, m)
        wrong = true != said
        order = np.argsort(-self._counts[wrong], kind="stable")
        mistakes, often = np.stack([true, said], axis=1)[wrong][order], self._counts[wrong][order]
        right = (n - int(often.sum())) / n
        shown = _shown(mistakes, self.rows)
        counts = self._matrix(true, said, shown)
        shares = counts / np.maximum(self.rows[shown], 1)[:, None]

        m = len(shown)
        side = float(np.clip(0.55 * m, 4, 6.5) if m <= _WITH_SHARES else np.clip(0.38 * m, 6.5, 15))
        of_all = f", {m} of {len(self.classes):,} classes: those of the most frequent mistakes"
        of = of_all if m < len(self.classes) else ""
        heading = f"Confusion matrix: {100 * right:.2f} % of {n:,} rows right{of}"
        width = side + 1.8 + (0 if m <= _WITH_SHARES else 3.2)
        figure = sheet(width, side + 1.2, heading)
        names = Names(self.classes)
        if m <= _WITH_SHARES:
            axes = figure.subplots()
        else:
            axes, beside = figure.subplots(1, 2, width_ratios=[side, 3.0])
            _list_mistakes(beside, mistakes, often, self.rows, names)
        _draw_matrix(figure, axes, counts, shares, self.rows[shown], [names.texts[i] for i in shown], names.family)
        return figure

    def _matrix(self, true: np.ndarray, said: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """The counts of the shown classes, which are ascending."""
        place = np.full(len(self.classes), -1)
        place[shown] = np.arange(len(shown))
        there = (place[true] >= 0) & (place[said] >= 0)
        counts = np.zeros((len(shown), len(shown)), np.int64)
        counts[place[true[there]], place[said[there]]] = self._counts[there]
        return counts


def _found(y: np.ndarray, predicted: np.ndarray) -> list[Any]:
    """The labels that there are. Raises ValueError for names beside numbers, which have no order."""
    if (y.dtype.kind in "US") != (predicted.dtype.kind in "US"):
        raise ValueError(f"y is of {y.dtype}, predicted of {predicted.dtype}; expected labels of one kind, or classes")
    return np.unique(np.concatenate([y.ravel(), predicted.ravel()])).tolist()


def _shown(mistakes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The indices of the classes to show, ascending: of too many, those of the most frequent mistakes.

    mistakes: pairs of a true class and another that it was taken for, (k, 2), the most frequent first.
    """
    if len(rows) <= _MOST_CLASSES:
        return np.arange(len(rows))
    # Classes in the order in which the pairs name them, then, where there are not enough, those with the most rows.
    order = np.concatenate([mistakes.ravel(), np.argsort(-rows, kind="stable")])
    _, first = np.unique(order, return_index=True)
    return np.sort(order[np.sort(first)[:_OF_TOO_MANY]])


def _draw_matrix(
    figure: Any,
    axes: Any,
    counts: np.ndarray,
    shares: np.ndarray,
    rows: np.ndarray,
    texts: list[str],
    family: list[str],
) -> None:
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import PercentFormatter

    m = len(counts)
    # The square root lets a mistake of 1 % be seen beside a diagonal near 100 %.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    axes.hlines(np.arange(m - 1) + 0.5, -0.5, m - 0.5, color=FAINT, linewidth=0.4)
    axes.vlines(np.arange(m - 1) + 0.5, -0.5, m - 0.5, color=FAINT, linewidth=0.4)
    for i in np.flatnonzero(rows == 0):
        axes.axhspan(i - 0.5, i + 0.5, facecolor="white", edgecolor=FAINT, hatch="////", linewidth=0)
    draw_lines(axes, "predicted class", "true class" + (" (rows)" if m <= _WITH_ROWS else ""), grid=None)
    for spine in axes.spines.values():
        spine.set_visible(False)
    size = SMALL if m <= _WITH_ROWS else 6.5
    upright = max(map(len, texts)) > (7 if m <= _WITH_SHARES else 3) or m > _WITH_ROWS
    label_ticks(axes.xaxis, texts, family, size=size, rotation=90 if upright else 0)
    with_rows = [f"{text} ({n:,})" for text, n in zip(texts, rows.tolist(), strict=True)]
    label_ticks(axes.yaxis, with_rows if m <= _WITH_ROWS else texts, family, size=size)
    if m <= _WITH_COUNTS:
        for i, j in zip(*np.nonzero(counts), strict=True):
            said = f"{counts[i, j]:,}" + (f"\n{100 * shares[i, j]:.3g} %" if m <= _WITH_SHARES else "")
            colour = "white" if shares[i, j] > 0.35 else INK
            axes.text(j, i, said, ha="center", va="center", color=colour, fontsize=7.5)
    bar = figure.colorbar(
        image, ax=axes, fraction=0.04, pad=0.02, aspect=20 if m <= _WITH_SHARES else 40, format=PercentFormatter(1, 0)
    )
    bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 1])
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL, color=FAINT, labelcolor=INK)
    bar.set_label("share of the true class's rows", fontsize=SMALL, color=INK)


def _list_mistakes(axes: Any, pairs: np.ndarray, counts: np.ndarray, rows: np.ndarray, names: Names) -> None:
    axes.set_axis_off()
    lines = ["Most frequent mistakes" if len(pairs) else "No mistakes", ""]
    for (of, taken_for), count in zip(pairs[:_MISTAKES_LISTED], counts, strict=False):
        lines += [f"{names.texts[of]} → {names.texts[taken_for]}", f"    {count:,} of {rows[of]:,} rows"]
    text = "\n".join(lines)
    axes.text(0, 1, text, va="top", fontsize=TEXT, color=INK, family=names.family, parse_math=False)
