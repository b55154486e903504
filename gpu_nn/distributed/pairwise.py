"""all_reduce by messages between two ranks at a time: MPI and Gloo add up in the same order, to the same bits."""

import os
from abc import abstractmethod

import numpy as np

from gpu_nn.device import Array
from gpu_nn.distributed.communicator import Communicator
from gpu_nn.errors import DeviceError

# The size that a rank announces when it closes.
CLOSING = -1


class PairwiseCommunicator(Communicator):
    """A communicator over messages of arrays on the host. A subclass implements `_transfer`."""

    def __init__(self, rank: int, size: int):
        super().__init__(rank, size)
        self._scratch = np.empty(0, np.uint8)
        self._closing = False
        self._problem: BaseException | None = None
        self._process = os.getpid()

    def all_reduce(self, array: Array) -> None:
        """Add ranks 0 and 1, then 2 and 3, then these two sums, and so on, in log₂(size) messages of the whole array.

        The all_reduce of MPI or Gloo leaves the order, and so the bits, to the library. Overflow does not warn, as on
        GPUs.
        """
        if self._closing:
            raise DeviceError(f"rank {self.rank} has closed its communicator; it takes part in no more exchanges")
        if self._problem is not None:
            raise DeviceError(f"rank {self.rank} has failed in an exchange; it takes part in no more of them")
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                self._all_reduce(array)
        except BaseException as error:  # an interrupt, too, leaves unread messages
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
        # A binomial tree: partial sums go up to rank 0, and the total comes down the same edges.
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
        """A buffer for another rank's array, reused by the next calls."""
        if len(self._scratch) < array.nbytes:
            self._scratch = np.empty(array.nbytes, np.uint8)
        return self._scratch[: array.nbytes].view(array.dtype).reshape(array.shape)

    @property
    def _can_close(self) -> bool:
        """Whether this communicator is open, and this process is the rank and no fork of it."""
        return not self._closing and os.getpid() == self._process

    def _close_handshake(self) -> None:
        """A last exchange with the ranks of this rank's messages, without content.

        Raises DeviceError where one of them is in another exchange; that rank raises it, too.
        """
        self._closing = True
        self._all_reduce(np.empty(0, np.uint8))

    @abstractmethod
    def _transfer(self, rank: int, array: Array | None = None, other: Array | None = None) -> None:
        """Send `array` to the rank, receive `other` from it, or both at once.

        Raises DeviceError where the rank has ended, or by `_check`.
        """

    def _announced(self, array: Array) -> int:
        """The size that this rank announces for a message."""
        return CLOSING if self._closing else array.nbytes

    def _check(self, rank: int, received: int | None, other: Array) -> None:
        """Raises DeviceError where the rank announced another size than `other` has; None stands for a larger one."""
        expected = self._announced(other)
        if received == expected:
            return
        if received == CLOSING:
            difference = f"rank {rank} has closed its communicator"
        elif expected == CLOSING:
            difference = f"rank {self.rank} has closed its communicator, and rank {rank} goes on"
        else:
            sent = "more" if received is None else received
            difference = f"rank {rank} sent {sent} bytes where rank {self.rank} sent {expected}"
        raise DeviceError(f"{difference}; all ranks must make the same exchanges in the same order")


def as_bytes(array: Array) -> Array:
    """A view as bytes: MPI and Gloo have no counterpart of NumPy's extension types, such as bfloat16."""
    return array.reshape(-1).view(np.uint8)
