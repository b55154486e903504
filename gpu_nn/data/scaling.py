"""The shift and scale that bring inputs to the same size, from rows that come in parts."""

from typing import Any

import numpy as np

from gpu_nn.data.sources import LARGEST

# Of what is standardised at once.
_VALUES = 1 << 20


class Scaling:
    """Takes the rows, (n, inputs) of one type, part by part.

    Whole numbers of one byte that are not negative, such as pixels, are divided by the largest one. Other numbers are
    standardised column by column, whatever sizes these have, with the moments of all parts merged in float64 (Chan,
    Golub and LeVeque 1983).
    """

    def __init__(self) -> None:
        self._least, self._most = 0.0, 1.0
        self._scaler: Any = None
        self._shape = 0
        self._dtype = np.dtype(np.float32)

    def add(self, x: np.ndarray) -> None:
        """One more part, with at least one row."""
        self._shape, self._dtype = x.shape[1], x.dtype
        if self._dtype.itemsize == 1:
            self._least, self._most = min(self._least, float(x.min())), max(self._most, float(x.max()))
        if self._dtype.itemsize > 1 or self._dtype.kind == "i":
            from sklearn.preprocessing import StandardScaler

            self._scaler = self._scaler or StandardScaler()
            # It takes several times the memory of what it gets.
            rows = max(_VALUES // x.shape[1], 1)
            for start in range(0, len(x), rows):
                self._scaler.partial_fit(x[start : start + rows])

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """(shift, scale), (inputs,) each, for a Standardize layer."""
        if self._dtype.itemsize == 1 and self._least >= 0:
            return np.zeros(self._shape), np.full(self._shape, 1 / self._most)
        return self._scaler.mean_, np.minimum(1 / self._scaler.scale_, LARGEST)


def shift_and_scale(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(shift, scale) of all rows at once; see `Scaling`."""
    found = Scaling()
    found.add(x)
    return found.result()
