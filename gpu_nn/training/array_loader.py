"""A data set that lies on the device as a whole."""

import math
import zlib
from collections.abc import Generator
from typing import Any

import numpy as np

from gpu_nn.cost import check_values, targets, weights
from gpu_nn.device import Array
from gpu_nn.network import Network

# The fingerprint reads this many rows, spread evenly over the data set.
_SAMPLED_ROWS = 1024


class ArrayLoader:
    """A `Loader` of arrays: one window of all rows, uploaded once and checked on the device.

    name: errors put it in front of x and y.
    """

    def __init__(self, net: Network, x: Any, y: Any, sample_weight: Any = None, name: str = ""):
        """Raises ValueError or TypeError for data that do not fit the network."""
        self._net, device = net, net.device
        x_name, y_name, shape = f"{name}x", f"{name}y", np.shape(x)
        if len(shape) != 2 or shape[1] != net.n_inputs:
            raise ValueError(f"{x_name} has shape {shape}; expected (n, {net.n_inputs}), one column for each input")
        if shape[0] == 0:
            raise ValueError(f"{x_name} has no rows; training needs at least 1")
        self.x: Array = device.asarray(x, net.dtype, x_name)
        finite = device.xp.isfinite(self.x)
        if not bool(finite.all()):
            row, column = (int(places[0]) for places in device.xp.logical_not(finite).nonzero())
            raise ValueError(
                f"{x_name}[{row}, {column}] is NaN or infinite; expected finite numbers: impute or drop it"
            )
        self.y: Array = targets(y, shape[0], net.n_classes, None, device.xp, net.dtype, name=y_name)
        check_values(y_name, self.y, net.n_classes)
        self.rows: int = shape[0]
        self.weight = None if sample_weight is None else self._of_mean_1(sample_weight)

    def _of_mean_1(self, sample_weight: Any) -> Array:
        weight = weights("sample_weight", sample_weight, self.rows, "rows", self._net.device.xp, np.float64)
        mean = float(weight.mean())
        # `weights` does not check the values of an array on a GPU.
        if not (math.isfinite(mean) and float(weight.min()) >= 0):
            raise ValueError("sample_weight has negative, NaN or infinite values; expected finite numbers ≥ 0")
        if mean == 0:
            raise ValueError("sample_weight is 0 everywhere; expected at least one row with a weight")
        return (weight / mean).astype(self._net.dtype)

    def fingerprint(self) -> dict[str, Any]:
        """Rows, columns, and a checksum of rows spread over the data; to be called before `prepare`."""
        device, n = self._net.device, self.rows
        rows = np.unique(np.linspace(0, n - 1, min(n, _SAMPLED_ROWS)).astype(np.int64))
        checksum = 0
        for array in (self.x, self.y, self.weight):
            if array is not None:
                sample = device.to_host(array[device.asarray(rows)])
                if array is self.weight:
                    # Each device adds up the mean in its own order: the last digits differ.
                    sample = sample.astype(np.float32)
                # Labels have the same checksum in every integer type.
                checksum = zlib.crc32(np.ascontiguousarray(sample, np.float64).data, checksum)
        return {"rows": n, "columns": self.x.shape[1], "targets": list(self.y.shape[1:]), "checksum": checksum}

    def prepare(self) -> None:
        self.x = self._net.prepare(self.x)

    def epoch(self, random: np.random.Generator | None, first_row: int, order: Array) -> Generator[tuple[int, int]]:
        numbers = np.arange(self.rows) if random is None else random.permutation(self.rows)
        order[...] = self._net.device.asarray(numbers)
        yield 0, self.rows
