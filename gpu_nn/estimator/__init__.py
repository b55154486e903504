"""The classifier with scikit-learn's face. The only place of the package's core that needs scikit-learn."""

from gpu_nn.estimator._classifier import MLPClassifier

__all__ = ["MLPClassifier"]
