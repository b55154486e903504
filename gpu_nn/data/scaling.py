"""The shift and scale that bring inputs to the same size, from rows that come in parts."""

from typing import Any

import numpy as np

from gpu_nn.data.sources import LARGEST


class Scaling:
    """Takes the rows, (n, inputs) of one type, part by part.

    Whole numbers that are not negative, such as pixels and counts, are divided by the largest one. Other numbers are
    standardised column by column, with the moments of all parts merged in float64 (Chan, Golub and LeVeque 1983).
    """

    def __init__(self) -> None:
        self._least, self._most = 0.0, 1.0
        self._scaler: Any = None
        self._shape = 0
        self._kind = "f"

    def add(self, x: np.ndarray) -> None:
        """One more part, with at least one row."""
        self._shape, self._kind = x.shape[1], x.dtype.kind
        if self._kind in "iub":
            self._least, self._most = min(self._least, float(x.min())), max(self._most, float(x.max()))
        if self._kind in "fi":
            from sklearn.preprocessing import StandardScaler

            self._scaler = self._scaler or StandardScaler()
            self._scaler.partial_fit(x)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """(shift, scale), (inputs,) each, for a Standardize layer."""
        if self._kind in "ub" or (self._kind == "i" and self._least >= 0):
            return np.zeros(self._shape), np.full(self._shape, 1 / self._most)
        return self._scaler.mean_, np.minimum(1 / self._scaler.scale_, LARGEST)


def scaling(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(shift, scale) of all rows at once; see `Scaling`."""
    found = Scaling()
    found.add(x)
    return found.result()
