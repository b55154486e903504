"""Pictures of a training and of what a model says, as Figures of Matplotlib (the extra `plot`).

Of answers that are not all in memory ConfusionCounts, CalibrationBins and WorstMistakes make the same pictures: `add`
takes them piece by piece, `figure` draws. Nothing here touches pyplot: `figure.savefig("a.png")` writes a picture, and
a notebook shows what a cell returns.
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
