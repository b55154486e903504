"""Sums by messages between two ranks at a time: one order of additions, whatever engine carries the messages."""

from abc import abstractmethod

import numpy as np

from gpu_nn.device import Array
from gpu_nn.training.ranks import Ranks


class PairwiseRanks(Ranks):
    """Ranks that send arrays on the host to each other. A subclass gives `_exchange`, `_send` and `_receive`."""

    def __init__(self, rank: int, size: int):
        super().__init__(rank, size)
        self._scratch = np.empty(0, np.uint8)

    def sum(self, array: Array) -> None:
        """Add ranks 0 and 1, then 2 and 3, then these two sums, and so on; all of it is sent log₂(size) times.

        An engine's own all_reduce leaves the order, and so the bits, to the engine. Overflow does not warn, as on GPUs.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            self._all_reduce(array)

    def _all_reduce(self, array: Array) -> None:
        other = self._other(array)
        if self.size & (self.size - 1) == 0:
            distance = 1
            while distance < self.size:
                self._exchange(array, other, self.rank ^ distance)
                array += other  # a + b and b + a are the same bits
                distance *= 2
            return
        # A binomial tree: sums go up to rank 0, and the total comes down the same edges.
        parent, children, distance = None, [], 1
        while distance < self.size:
            if self.rank & distance:
                parent = self.rank - distance
                break
            if self.rank + distance < self.size:
                children.append(self.rank + distance)
            distance *= 2
        for child in children:
            self._receive(other, child)
            array += other
        if parent is not None:
            self._send(array, parent)
            self._receive(array, parent)
        for child in reversed(children):
            self._send(array, child)

    def _other(self, array: Array) -> Array:
        """Memory for another rank's array, kept from sum to sum."""
        if len(self._scratch) < array.nbytes:
            self._scratch = np.empty(array.nbytes, np.uint8)
        return self._scratch[: array.nbytes].view(array.dtype).reshape(array.shape)

    @abstractmethod
    def _exchange(self, array: Array, other: Array, rank: int) -> None:
        """Send `array` to the rank and receive `other` from it, both at once."""

    @abstractmethod
    def _send(self, array: Array, rank: int) -> None: ...

    @abstractmethod
    def _receive(self, other: Array, rank: int) -> None: ...


def as_bytes(array: Array) -> Array:
    """A view that every engine can send; NumPy's extension types, such as bfloat16, have no counterpart in them."""
    return array.reshape(-1).view(np.uint8)
