"""The wrong predictions with the lowest probability of the true class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_nn.plots._style import BLACK, FONT_SIZE, GREY, SMALL_SIZE, ClassNames, new_figure
from gpu_nn.plots._validation import check_classes, check_probabilities, check_row_count, class_indices, to_host
from gpu_nn.validation import check_int

_IMAGES_PER_ROW = 6
_IMAGE_INCHES = 1.55  # wide enough for "not " and a name of _MAX_NAME_WIDTH font sizes
_MAX_NAME_WIDTH = 10.0


def worst_mistakes(
    x: Any,
    y: Any,
    probabilities: Any,
    image_shape: Sequence[int] | None = None,
    classes: Sequence[Any] | None = None,
    count: int = 24,
) -> Any:
    """The wrongly predicted images with the lowest probability of the true class, the worst first: a Figure.

    x: (n, pixels) or (n, height, width[, 3 or 4]). y: (n,) labels. probabilities: (n, m). image_shape: (height, width),
    or (height, width, 3 or 4) for colours; by default that of x, or a square. classes: the labels of the columns, by
    default 0 … m-1; where they are names, labels may be indices. count: the largest number of images. Each image has
    its true class, the predicted one with its probability, and its row.

    Raises ValueError for arrays that are empty or do not fit each other, or rows that are not images of that shape;
    ImportError without Matplotlib.
    """
    mistakes = WorstMistakes(image_shape, classes, count)
    mistakes.add(x, y, probabilities)
    return mistakes.figure()


@dataclass(frozen=True)
class _Mistake:
    row: int
    true: int
    predicted: int
    p_true: float
    p_predicted: float
    image: np.ndarray


class WorstMistakes:
    """Keeps the worst mistakes of rows that are added batch by batch. Arguments: as for `worst_mistakes`."""

    def __init__(self, image_shape: Sequence[int] | None = None, classes: Sequence[Any] | None = None, count: int = 24):
        check_int("count", count, 1)
        self._image_shape, self._classes, self._count = image_shape, classes, count
        self._worst: list[_Mistake] = []
        self._shape: tuple[int, ...] = ()
        self._rows = self._wrong = 0
        self._low, self._high, self._bytes = np.inf, -np.inf, True

    def add(self, x: Any, y: Any, probabilities: Any) -> None:
        """Add rows. Raises ValueError as `worst_mistakes` does."""
        p = check_probabilities(probabilities, self._rows)
        self._classes = check_classes(self._classes, p.shape[1])
        true, predicted = class_indices("y", y, self._classes), p.argmax(axis=1)
        pixels = to_host(x)
        check_row_count("y", len(true), len(p), "probabilities")
        check_row_count("x", len(pixels), len(p), "probabilities")
        self._shape = image_shape_of(pixels.shape[1:], self._image_shape)
        self._bytes &= pixels.dtype == np.uint8
        self._low, self._high = min(self._low, float(pixels.min())), max(self._high, float(pixels.max()))

        wrong = np.flatnonzero(predicted != true)
        p_true, p_predicted = p[wrong, true[wrong]], p[wrong, predicted[wrong]]
        # With equal probabilities of the true class, more confidence in the predicted one is worse.
        for i in np.lexsort((-p_predicted, p_true))[: self._count]:
            row = wrong[i]
            image = pixels[row].reshape(self._shape).copy()  # a view would keep the batch in memory
            self._worst.append(_Mistake(self._rows + row, true[row], predicted[row], p_true[i], p_predicted[i], image))
        # Equal ones stay in the order of their rows.
        self._worst = sorted(self._worst, key=lambda found: (found.p_true, -found.p_predicted))[: self._count]
        self._rows += len(p)
        self._wrong += len(wrong)

    def figure(self) -> Any:
        """`worst_mistakes` of all rows. Raises ValueError where there are none."""
        if self._classes is None or not self._rows:
            raise ValueError("probabilities has no rows; expected at least 1")
        shown = len(self._worst)
        if not shown:
            figure = new_figure(6, 2, "Worst mistakes")
            figure.text(
                0.5, 0.4, f"none: all {self._rows:,} rows are right", ha="center", fontsize=FONT_SIZE, color=BLACK
            )
            return figure

        columns = min(_IMAGES_PER_ROW, shown)
        rows = math.ceil(shown / columns)
        shown_of = f"{self._wrong:,} of" if self._wrong == shown else f"{shown} of the {self._wrong:,} among"
        height = float(np.clip(_IMAGE_INCHES * self._shape[0] / self._shape[1], 0.3, 3 * _IMAGE_INCHES))
        heading = f"Worst mistakes: {shown_of} {self._rows:,} rows"
        figure = new_figure(max(_IMAGE_INCHES * columns, 6.2) + 0.2, (height + 0.55) * rows + 0.7, heading)
        grid = figure.subplots(rows, columns, squeeze=False)
        low, high = self._value_range()
        names = ClassNames(self._classes, _MAX_NAME_WIDTH)
        for axes in grid.flat:
            axes.set_axis_off()
        for mistake, axes in zip(self._worst, grid.flat, strict=False):
            image = np.clip((mistake.image.astype(np.float64) - low) / (high - low), 0, 1)
            axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            title = f"{names.texts[mistake.true]}\nnot {names.texts[mistake.predicted]}"
            axes.set_title(title, fontsize=SMALL_SIZE, color=BLACK, family=names.family, parse_math=False, pad=3)
            below = f"row {mistake.row}: {_percent(mistake.p_predicted)} sure"
            axes.text(0.5, -0.03, below, transform=axes.transAxes, ha="center", va="top", fontsize=7, color=GREY)
        return figure

    def _value_range(self) -> tuple[float, float]:
        """The values of black and white, the same for all images."""
        if self._bytes and self._high > 127:
            return 0.0, 255.0
        return self._low, self._high if self._high > self._low else self._low + 1


def image_shape_of(shape: tuple[int, ...], image_shape: Sequence[int] | None = None) -> tuple[int, ...]:
    """The shape of an image whose row of x has `shape`. Raises ValueError where there is none."""
    size = math.prod(shape)
    expected = "(height, width) or (height, width, 3 or 4)"
    if image_shape is not None:
        found = tuple(int(length) for length in image_shape)
        fits = len(found) in (2, 3) and min(found) >= 1 and math.prod(found) == size
        if not fits or (len(found) == 3 and found[2] not in (3, 4)):
            raise ValueError(f"image_shape={found}; expected {expected} with {size} values, as a row of x has")
        return found
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4)):
        return shape
    side = math.isqrt(size)
    if len(shape) != 1 or side * side != size or side < 2:
        raise ValueError(f"rows of x have shape {shape}, which is not an image; expected image_shape={expected}")
    return side, side


def _percent(p: float) -> str:
    """The percentage, rounded down near 100 %."""
    return f"{100 * p:.0f} %" if p < 0.995 else f"{min(math.floor(1e4 * p) / 100, 100):g} %"
