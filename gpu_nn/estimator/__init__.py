"""The classifier with scikit-learn's face. The only place of the package's core that needs scikit-learn."""

from gpu_nn.estimator._classifier import MLPClassifier
from gpu_nn.estimator._from_sklearn import from_sklearn

__all__ = ["MLPClassifier", "from_sklearn"]
