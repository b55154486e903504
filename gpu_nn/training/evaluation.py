"""Mean cost and accuracy over data that are not trained on."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_nn.data.stream import StreamDataset
from gpu_nn.device import Array
from gpu_nn.distributed.communicator import Communicator
from gpu_nn.network import Network
from gpu_nn.training.array_loader import ArrayLoader


@dataclass(frozen=True)
class Evaluation:
    """Evaluates `net` as it is at the call.

    options: of the kernel `softmax_cross_entropy`.  communicator: its ranks share the rows, and each returns the
    figures of all rows.
    """

    net: Network
    options: dict[str, Any]
    communicator: Communicator

    def of(self, data: ArrayLoader | StreamDataset | None) -> tuple[float | None, float | None]:
        """Mean cost and accuracy over the validation data of a fit; None where there is none."""
        if data is None:
            return None, None
        return self.of_stream(data) if isinstance(data, StreamDataset) else self.of_arrays(data.x, data.y)

    def of_arrays(self, x: Array, y: Array) -> tuple[float, float]:
        """Mean cost and accuracy over prepared data. For targets (n, m) accuracy counts their largest as the label."""
        own = self.communicator.shard(len(x))
        sums = self._sums(x[own], y[own])
        self.communicator.all_reduce(sums)
        loss, right = (sums / len(x)).tolist()
        return loss, right

    def of_stream(self, stream: StreamDataset) -> tuple[float, float]:
        """As `of_arrays`, over the rows of a stream as they are read. Each rank reads its shard."""
        net, sums, own = self.net, np.zeros(2), self.communicator.shard(len(stream))
        with self.communicator.raise_on_all_ranks():
            for x, y in stream.row_slice(own.start, own.stop).windows(net.dtype, net.n_classes):
                device_y = net.device.asarray(y, np.int64 if y.ndim == 1 else net.dtype)
                sums += self._sums(net.prepare(x), device_y)
        self.communicator.all_reduce(sums)
        loss, right = (sums / len(stream)).tolist()
        return loss, right

    def _sums(self, x: Array, y: Array) -> np.ndarray:
        """The sum of the rows' costs, and the number of rows whose label is predicted."""
        net, xp = self.net, self.net.device.xp
        logits = net.forward_prepared(x)
        losses = xp.empty(len(x), net.dtype)
        net.kernels.softmax_cross_entropy(logits, y, losses, None, **self.options)
        label = y if y.ndim == 1 else y.argmax(axis=1)
        return np.array([float(losses.sum(dtype=np.float64)), float((logits.argmax(axis=1) == label).sum())])
