"""Shift and scale that bring the inputs to a common size, computed batch by batch."""

from typing import Any

import numpy as np

from gpu_nn.data.sources import MAX_INPUT

# Values that are standardised at once: StandardScaler allocates several times the memory of a batch.
_VALUES = 1 << 20


class InputScaler:
    """Computes the shift and scale of rows, (n, inputs) of one dtype, from one batch after the other.

    Non-negative one-byte integers, such as pixels, are divided by the largest. Other inputs are standardised by column,
    with the moments of all batches merged in float64 (Chan, Golub and LeVeque 1983).
    """

    def __init__(self) -> None:
        self._min, self._max = 0.0, 1.0
        self._scaler: Any = None
        self._n_inputs = 0
        self._dtype = np.dtype(np.float32)

    def partial_fit(self, x: np.ndarray) -> None:
        """Add a batch of at least one row."""
        self._n_inputs, self._dtype = x.shape[1], x.dtype
        if self._dtype.itemsize == 1:
            self._min, self._max = min(self._min, float(x.min())), max(self._max, float(x.max()))
        if self._dtype.itemsize > 1 or self._dtype.kind == "i":
            from sklearn.preprocessing import StandardScaler

            self._scaler = self._scaler or StandardScaler()
            rows = max(_VALUES // x.shape[1], 1)
            for start in range(0, len(x), rows):
                self._scaler.partial_fit(x[start : start + rows])

    def shift_and_scale(self) -> tuple[np.ndarray, np.ndarray]:
        """(shift, scale), (inputs,) each, for a Standardize layer."""
        if self._dtype.itemsize == 1 and self._min >= 0:
            return np.zeros(self._n_inputs), np.full(self._n_inputs, 1 / self._max)
        return self._scaler.mean_, np.minimum(1 / self._scaler.scale_, MAX_INPUT)


def shift_and_scale(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(shift, scale) of all rows at once, as `InputScaler` computes them."""
    scaler = InputScaler()
    scaler.partial_fit(x)
    return scaler.shift_and_scale()
