"""How a training went."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_nn.plots._style import (
    BLUE,
    GREY,
    ORANGE,
    draw_legend,
    draw_lines,
    logarithmic,
    number_axis,
    set_logarithmic,
    sheet,
)

if TYPE_CHECKING:
    from gpu_nn.training import History, LearningRates

# Up to here every epoch is a dot on its line.
_MOST_DOTS = 40


def learning_curves(history: "History") -> Any:
    """Loss, and validation loss and accuracy where there are any, over the epochs: a Figure.

    history: of a Trainer, or `history_` of an estimator. The best validation values are marked and said in the legend;
    epochs whose loss is not finite are shaded. The axis of the loss is logarithmic where its values spread over more
    than a factor of 30.

    Raises ValueError for a history without epochs, ImportError without Matplotlib.
    """
    epochs = _column(history, "epoch")
    training, validation = _column(history, "loss"), _column(history, "validation_loss")
    accuracy = 100 * _column(history, "validation_accuracy")
    # An epoch without validation is NaN here; one whose loss is NaN is an epoch that had one.
    validated = np.array([value is not None for value in history.column("validation_loss")])
    has_accuracy = bool(np.isfinite(accuracy).any())

    figure = sheet(7.5, 6.5 if has_accuracy else 4.2, "Learning curves")
    panels = figure.subplots(2 if has_accuracy else 1, 1, sharex=True, squeeze=False)[:, 0]
    _draw(panels[0], epochs, training, BLUE, "training, mean over the epoch")
    losses = [training]
    if validated.any():
        best, said = _best(epochs, validation, np.nanargmin, "lowest {:.4g} after epoch {}")
        _draw(panels[0], epochs, validation, ORANGE, f"validation{said}", best, dashes="--")
        losses.append(validation)
    _shade(panels[0], epochs[~np.isfinite(training) | (validated & ~np.isfinite(validation))])
    draw_lines(panels[0], "", "loss, nats a row")
    if not np.isfinite(losses).any():
        panels[0].set_yticks([])
    elif logarithmic(np.concatenate(losses)):
        set_logarithmic(panels[0])
    draw_legend(panels[0])
    if has_accuracy:
        best, said = _best(epochs, accuracy, np.nanargmax, "highest {:.2f} % after epoch {}")
        _draw(panels[1], epochs, accuracy, ORANGE, f"validation{said}", best, dashes="--")
        draw_lines(panels[1], "", "accuracy, % of the rows")
        draw_legend(panels[1])
    panels[-1].set_xlabel("epoch")
    _number(panels[-1], epochs)
    return figure


def learning_rates(history: "History | LearningRates") -> Any:
    """The learning rate over the optimizer's steps: a Figure.

    history: of a Trainer, one value an epoch, that of its last step; or the callback `LearningRates`, with as many as
    it recorded. The axis is logarithmic where the values spread over more than a factor of 30.

    Raises ValueError when there are none, ImportError without Matplotlib.
    """
    from gpu_nn.training import LearningRates

    if isinstance(history, LearningRates):
        steps, rates, said = np.asarray(history.steps), np.asarray(history.rates, np.float64), ""
        if not len(steps):
            raise ValueError("history has no learning rates; expected those of at least 1 step")
    else:
        steps, rates = _column(history, "steps"), _column(history, "learning_rate")
        said = "of the last step of each epoch"
    figure = sheet(7.5, 4.2, "Learning rate")
    axes = figure.subplots()
    _draw(axes, steps, rates, BLUE, said)
    draw_lines(axes, "optimizer step", "learning rate")
    if logarithmic(rates):
        set_logarithmic(axes)
    elif rates.size and np.nanmin(rates) >= 0:
        axes.set_ylim(0, max(np.nanmax(rates) * 1.08, 1e-12))
    if said:
        draw_legend(axes)
    _number(axes, steps)
    return figure


def _column(history: "History", name: str) -> np.ndarray:
    if not len(history):
        raise ValueError("history has no epochs; expected at least 1")
    return np.array(history.column(name), np.float64)


def _best(
    epochs: np.ndarray, values: np.ndarray, arg: Callable[[np.ndarray], Any], words: str
) -> tuple[tuple[float, float] | None, str]:
    """Where the best of `values` is, (epoch, value), and the legend's words for it; None, "" where none is finite."""
    finite = np.where(np.isfinite(values), values, np.nan)
    if np.isnan(finite).all():
        return None, ""
    i = int(arg(finite))
    return (epochs[i], values[i]), ", " + words.format(values[i], int(epochs[i]))


def _draw(
    axes: Any,
    x: np.ndarray,
    y: np.ndarray,
    colour: str,
    label: str,
    best: tuple[float, float] | None = None,
    dashes: str = "-",
) -> None:
    y = np.where(np.isfinite(y), y, np.nan)
    # A point between two that are not finite has no line to be seen by.
    dots = len(x) <= _MOST_DOTS or np.isnan(y).any()
    style = {"marker": "o" if dots else "", "markersize": 3, "linewidth": 1.8, "linestyle": dashes}
    axes.plot(x, y, color=colour, label=label, **style)
    if best is not None:
        axes.plot(*best, marker="o", markersize=8, markerfacecolor="none", markeredgewidth=1.8, color=colour)


def _shade(axes: Any, epochs: np.ndarray) -> None:
    for i, epoch in enumerate(epochs):
        axes.axvspan(
            epoch - 0.5, epoch + 0.5, color=GREY, alpha=0.25, linewidth=0, label="" if i else "loss not finite"
        )


def _number(axes: Any, x: np.ndarray) -> None:
    """Whole numbers along the x axis, with room beside a single one."""
    number_axis(axes.xaxis, 8)
    if len(x) == 1:
        axes.set_xlim(x[0] - 1, x[0] + 1)
