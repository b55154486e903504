"""Losses that stay on the device until the host reads them."""

from typing import Any, Self

import numpy as np

from gpu_nn.device import Array, Device
from gpu_nn.errors import TrainingDiverged
from gpu_nn.network import Network

# Losses stay on the device for at most this many steps, after which a diverged training stops. On a GPU the host waits
# when it reads them, so there it mostly reads once an epoch. Several ranks on GPUs learn only then of an interrupt.
_READ_EVERY, _READ_EVERY_ON_A_GPU = 256, 1 << 16


class PendingLosses:
    """The losses of the latest steps, on the device until the host reads all of them at once; and the batch's place.

    values: (capacity,) of the network's dtype.  count: the number of pending losses.  counters: (2,) of int64 on the
    device: where in the order of a window the next batch begins, and where in `values` its loss goes.
    """

    def __init__(self, device: Device, dtype: Any, capacity: int):
        self._device = device
        self.values: Array = device.empty((capacity,), dtype)
        self.counters: Array = device.zeros((2,), np.int64)
        self.count = 0

    def start_window(self, place: int) -> None:
        """The next batch begins at that place of the order."""
        self.counters[...] = self._device.asarray(np.array([place, self.count]))

    @classmethod
    def of_fit(cls, net: Network, steps_per_epoch: int, ranks: int) -> Self:
        """Of the capacity after which the host reads them in a fit on that many ranks."""
        every = _READ_EVERY if net.device.kind == "cpu" or ranks > 1 else _READ_EVERY_ON_A_GPU
        return cls(net.device, net.dtype, min(every, steps_per_epoch))

    @property
    def is_full(self) -> bool:
        return self.count == len(self.values)

    def to_host(self) -> np.ndarray:
        """The pending losses in float64. On a GPU this waits for the device."""
        return self._device.to_host(self.values[: self.count]).astype(np.float64)

    def read(self, steps: int) -> np.ndarray:
        """As `to_host`. Raises TrainingDiverged where one is not finite. steps: of the optimizer so far."""
        losses = self.to_host()
        wrong = np.flatnonzero(~np.isfinite(losses))
        if len(wrong):
            raise TrainingDiverged(steps - len(losses) + int(wrong[0]) + 1, float(losses[wrong[0]]))
        return losses

    def clear(self) -> None:
        self.count = 0
        self.counters[1] = 0

    def latest(self) -> float:
        """The loss of the latest step. On a GPU this waits for the device."""
        return float(self.values[self.count - 1])

    def load(self, losses: np.ndarray, steps_per_epoch: int) -> None:
        """Go on with the pending losses of a checkpoint."""
        if len(losses) >= len(self.values):
            # The checkpoint is of a device on which they are read less often.
            self.values = self._device.empty((steps_per_epoch,), self.values.dtype)
        self.values[: len(losses)] = self._device.asarray(losses, self.values.dtype)
        self.count = len(losses)
