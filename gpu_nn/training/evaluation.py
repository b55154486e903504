"""Mean cost and accuracy over data that are not trained on."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_nn.data.stream import StreamDataset
from gpu_nn.device import Array
from gpu_nn.network import Network


@dataclass(frozen=True)
class Evaluation:
    """Of `net` as it is when asked.

    options: of the cost, for the kernel. ranks: those that share the rows; each gets the figures of all rows.
    """

    net: Network
    options: dict[str, Any]
    ranks: Ranks

    def of_arrays(self, x: Array, y: Array) -> tuple[float, float]:
        """Mean cost and accuracy over prepared data. For targets (n, m) accuracy counts their largest as the label."""
        own = self.communicator.shard(len(x))
        sums = self._sums(x[own], y[own])
        self.communicator.all_reduce(sums)
        loss, right = (sums / len(x)).tolist()
        return loss, right

    def of_stream(self, stream: StreamDataset) -> tuple[float, float]:
        """What `of_arrays` gives, over the rows of a stream as they come. Each rank reads its share of them."""
        net, sums, own = self.net, np.zeros(2), self.communicator.shard(len(stream))
        with self.communicator.raise_on_all_ranks():
            for x, y in stream.row_slice(own.start, own.stop).windows(net.dtype, net.n_classes):
                device_y = net.device.asarray(y, np.int64 if y.ndim == 1 else net.dtype)
                sums += self._sums(net.prepare(x), device_y)
        self.communicator.all_reduce(sums)
        loss, right = (sums / len(stream)).tolist()
        return loss, right

    def _sums(self, x: Array, y: Array) -> np.ndarray:
        """The sum of the rows' costs, and how many of them are right."""
        net, xp = self.net, self.net.device.xp
        logits = net.forward_prepared(x)
        losses = xp.empty(len(x), net.dtype)
        net.kernels.softmax_cross_entropy(logits, y, losses, None, **self.options)
        label = y if y.ndim == 1 else y.argmax(axis=1)
        return np.array([float(losses.sum(dtype=np.float64)), float((logits.argmax(axis=1) == label).sum())])
