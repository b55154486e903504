"""Sums by messages between two ranks at a time: one order of additions, whatever engine carries the messages."""

import os
from abc import abstractmethod

import numpy as np

from gpu_nn.device import Array
from gpu_nn.distributed.communicator import Communicator
from gpu_nn.errors import DeviceError

# What a rank that leaves announces, in place of a number of bytes.
LEAVING = -1


class PairwiseCommunicator(Communicator):
    """Ranks that send arrays on the host to each other. A subclass gives `_transfer`."""

    def __init__(self, rank: int, size: int):
        super().__init__(rank, size)
        self._scratch = np.empty(0, np.uint8)
        self._leaving = False
        self._problem: BaseException | None = None
        self._process = os.getpid()

    def all_reduce(self, array: Array) -> None:
        """Add ranks 0 and 1, then 2 and 3, then these two sums, and so on; all of it is sent log₂(size) times.

        An engine's own all_reduce leaves the order, and so the bits, to the engine. Overflow does not warn, as on GPUs.
        """
        if self._leaving:
            raise DeviceError(f"rank {self.rank} has left; there are no more sums for it")
        if self._problem is not None:
            raise DeviceError(f"rank {self.rank} has failed in a sum; there are no more for it")
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                self._all_reduce(array)
        except BaseException as error:  # an interrupt, too, leaves messages that were not read
            self._problem = error
            raise

    def _all_reduce(self, array: Array) -> None:
        other = self._other(array)
        if self.size & (self.size - 1) == 0:
            distance = 1
            while distance < self.size:
                self._transfer(self.rank ^ distance, array, other)
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
            self._transfer(child, other=other)
            array += other
        if parent is not None:
            self._transfer(parent, array)
            self._transfer(parent, other=array)
        for child in reversed(children):
            self._transfer(child, array)

    def _other(self, array: Array) -> Array:
        """Memory for another rank's array, kept from sum to sum."""
        if len(self._scratch) < array.nbytes:
            self._scratch = np.empty(array.nbytes, np.uint8)
        return self._scratch[: array.nbytes].view(array.dtype).reshape(array.shape)

    @property
    def _can_leave(self) -> bool:
        """Once, and not in a process that was forked, which is no rank."""
        return not self._leaving and os.getpid() == self._process

    def _all_leave(self) -> None:
        """A last exchange with those that this rank adds up with, in which there is nothing to add.

        Raises DeviceError where one of them is in a sum, as it does there.
        """
        self._leaving = True
        self._all_reduce(np.empty(0, np.uint8))

    @abstractmethod
    def _transfer(self, rank: int, array: Array | None = None, other: Array | None = None) -> None:
        """Send `array` to the rank, receive `other` from it, or both at once.

        Raises DeviceError where the rank is gone, or by `_check`.
        """

    def _announced(self, array: Array) -> int:
        """The bytes that a message is announced with."""
        return LEAVING if self._leaving else array.nbytes

    def _check(self, rank: int, came: int | None, other: Array) -> None:
        """Raises DeviceError where the rank announced something else than room was made for; None is more than that."""
        expected = self._announced(other)
        if came == expected:
            return
        if came == LEAVING:
            unlike = f"rank {rank} has left"
        elif expected == LEAVING:
            unlike = f"rank {self.rank} has left, and rank {rank} goes on"
        else:
            gave = "more" if came is None else came
            unlike = f"rank {rank} gave {gave} bytes to a sum where rank {self.rank} gave {expected}"
        raise DeviceError(f"{unlike}; all ranks must do the same in the same order")


def as_bytes(array: Array) -> Array:
    """A view that every engine can send; NumPy's extension types, such as bfloat16, have no counterpart in them."""
    return array.reshape(-1).view(np.uint8)
