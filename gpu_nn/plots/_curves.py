"""Learning curves and learning rates of a training."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

import gpu_nn.plots._style as style

if TYPE_CHECKING:
    from gpu_nn.training import History, LearningRateMonitor

# The most points of a line that has a marker at each.
_MAX_MARKERS = 40


def learning_curves(history: "History") -> Any:
    """Loss, and validation loss and accuracy if any, over the epochs: a Figure.

    history: of a Trainer, or `history_` of an estimator. The plot marks the best validation values, which the legend
    names, and shades epochs whose loss is not finite. The axis of the loss is logarithmic where its values spread over
    more than a factor of 30.

    Raises ValueError for a history without epochs, ImportError without Matplotlib.
    """
    epochs = _column(history, "epoch")
    training, validation = _column(history, "loss"), _column(history, "validation_loss")
    accuracy = 100 * _column(history, "validation_accuracy")
    # An epoch without validation is NaN in `validation`, as is an epoch with a validation loss of NaN.
    validated = np.array([value is not None for value in history.column("validation_loss")])
    has_accuracy = bool(np.isfinite(accuracy).any())

    figure = style.new_figure(7.5, 6.5 if has_accuracy else 4.2, "Learning curves")
    panels = figure.subplots(2 if has_accuracy else 1, 1, sharex=True, squeeze=False)[:, 0]
    _draw_line(panels[0], epochs, training, style.BLUE, "training, mean over the epoch")
    losses = [training]
    if validated.any():
        _draw_validation(panels[0], epochs, validation, np.nanargmin, "lowest {:.4g} after epoch {}")
        losses.append(validation)
    _shade_epochs(panels[0], epochs[~np.isfinite(training) | (validated & ~np.isfinite(validation))])
    style.style_axes(panels[0], "", "loss, nats a row")
    if not np.isfinite(losses).any():
        panels[0].set_yticks([])
    elif style.needs_log_scale(np.concatenate(losses)):
        style.set_log_scale(panels[0])
    style.draw_legend(panels[0])
    if has_accuracy:
        _draw_validation(panels[1], epochs, accuracy, np.nanargmax, "highest {:.2f} % after epoch {}")
        style.style_axes(panels[1], "", "accuracy, % of the rows")
        style.draw_legend(panels[1])
    panels[-1].set_xlabel("epoch")
    _set_integer_limits(panels[-1], epochs)
    return figure


def learning_rates(history: "History | LearningRateMonitor") -> Any:
    """The learning rate over the optimizer's steps: a Figure.

    history: of a Trainer, one value an epoch, that of its last step; or the callback `LearningRateMonitor`, with as
    many as it recorded. The axis is logarithmic where the values spread over more than a factor of 30.

    Raises ValueError when there are none, ImportError without Matplotlib.
    """
    from gpu_nn.training import LearningRateMonitor

    if isinstance(history, LearningRateMonitor):
        steps, rates, label = np.asarray(history.steps), np.asarray(history.rates, np.float64), ""
        if not len(steps):
            raise ValueError("history has no learning rates; expected those of at least 1 step")
    else:
        steps, rates = _column(history, "steps"), _column(history, "learning_rate")
        label = "of the last step of each epoch"
    figure = style.new_figure(7.5, 4.2, "Learning rate")
    axes = figure.subplots()
    _draw_line(axes, steps, rates, style.BLUE, label)
    style.style_axes(axes, "optimizer step", "learning rate")
    if style.needs_log_scale(rates):
        style.set_log_scale(axes)
    elif rates.size and np.nanmin(rates) >= 0:
        axes.set_ylim(0, max(np.nanmax(rates) * 1.08, 1e-12))
    if label:
        style.draw_legend(axes)
    _set_integer_limits(axes, steps)
    return figure


def _column(history: "History", name: str) -> np.ndarray:
    if not len(history):
        raise ValueError("history has no epochs; expected at least 1")
    return np.array(history.column(name), np.float64)


def _draw_validation(
    axes: Any, epochs: np.ndarray, values: np.ndarray, arg: Callable[[np.ndarray], Any], template: str
) -> None:
    """The line of validation values, with a circle at the best, which the legend names where one is finite."""
    finite = np.where(np.isfinite(values), values, np.nan)
    best = None if np.isnan(finite).all() else int(arg(finite))
    label = "validation" if best is None else f"validation, {template.format(values[best], int(epochs[best]))}"
    _draw_line(axes, epochs, finite, style.ORANGE, label, linestyle="--")
    if best is not None:
        circle = {"marker": "o", "markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.8}
        axes.plot(epochs[best], values[best], color=style.ORANGE, **circle)


def _draw_line(axes: Any, x: np.ndarray, y: np.ndarray, colour: str, label: str, linestyle: str = "-") -> None:
    y = np.where(np.isfinite(y), y, np.nan)
    # A point between two that are not finite is on no line segment.
    marker = "o" if len(x) <= _MAX_MARKERS or np.isnan(y).any() else ""
    axes.plot(x, y, color=colour, label=label, marker=marker, markersize=3, linewidth=1.8, linestyle=linestyle)


def _shade_epochs(axes: Any, epochs: np.ndarray) -> None:
    for i, epoch in enumerate(epochs):
        axes.axvspan(
            epoch - 0.5, epoch + 0.5, color=style.GREY, alpha=0.25, linewidth=0, label="" if i else "loss not finite"
        )


def _set_integer_limits(axes: Any, x: np.ndarray) -> None:
    """Integer ticks on the x axis, with room beside a single point."""
    style.use_integer_ticks(axes.xaxis, 8)
    if len(x) == 1:
        axes.set_xlim(x[0] - 1, x[0] + 1)
