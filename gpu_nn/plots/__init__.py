"""Plots of a training and of a model's predictions, as Figures of Matplotlib (the extra `plot`).

ConfusionCounts, CalibrationBins and WorstMistakes make the same plots from predictions that are not all in memory:
`add` takes a batch, `figure` draws. The functions do not use pyplot: `figure.savefig("a.png")` writes a file, and a
notebook shows a Figure that a cell returns.
"""

from gpu_nn.plots._calibration import CalibrationBins, calibration, expected_calibration_error
from gpu_nn.plots._confusion import ConfusionCounts, confusion_matrix
from gpu_nn.plots._curves import learning_curves, learning_rates
from gpu_nn.plots._mistakes import WorstMistakes, worst_mistakes
from gpu_nn.plots._style import require_matplotlib

__all__ = [
    "CalibrationBins",
    "ConfusionCounts",
    "WorstMistakes",
    "calibration",
    "confusion_matrix",
    "expected_calibration_error",
    "learning_curves",
    "learning_rates",
    "require_matplotlib",
    "worst_mistakes",
]
