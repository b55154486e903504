"""The communicator over torch.distributed's Gloo, for ranks that torchrun, Ray, Dask or a user's own script starts.

Needs the extra `ranks` (PyTorch).
"""

import atexit
import os
import re
import sys
from collections import deque
from contextlib import suppress
from datetime import timedelta
from types import ModuleType
from typing import Any

import numpy as np

from gpu_nn.device import Array
from gpu_nn.distributed import environment, rendezvous
from gpu_nn.distributed.communicator import CLOSE_TIMEOUT, Communicator, is_raised_on_all_ranks
from gpu_nn.distributed.environment import RendezvousAddress
from gpu_nn.distributed.hosts import host_name
from gpu_nn.distributed.pairwise import PairwiseCommunicator, as_bytes
from gpu_nn.errors import DeviceError

# A rank may validate, or write a checkpoint, for as long before its next exchange.
_EXCHANGE_TIMEOUT = timedelta(minutes=30)
# All ranks have joined the rendezvous when they connect. Gloo waits five times as long to accept a connection.
_CONNECT_TIMEOUT = timedelta(minutes=1)

# Every array is sent as a frame of this many bytes: the size of the array, and the array itself where it is small. A
# large array follows its frame: Gloo ends a process that receives more than it has room for, so the receiver compares
# the sizes first.
#
# When a connection ends, Gloo fails queued operations, but never completes one that is half done. So a rank waits
# neither for its sends, nor for a large array before the byte that follows it has arrived. The receiver answers a large
# array with a byte, after which the sender may write to the array again.
_FRAME, _SIZE = 512, 8


class _Link:
    """The buffers between this rank and another. pending: the latest four sends."""

    def __init__(self) -> None:
        self._frames = [np.zeros(_FRAME, np.uint8) for _ in range(2)]
        self.received, self.signal = np.zeros(_FRAME, np.uint8), np.zeros(1, np.uint8)
        self.pending: deque[Any] = deque(maxlen=4)

    def next_frame(self) -> Array:
        """The frame before the latest one: the other rank has received it, since it has answered."""
        self._frames.reverse()
        return self._frames[0]


class GlooCommunicator(PairwiseCommunicator):
    """The ranks of a group of torch.distributed, with arrays on the host.

    group: of the backend Gloo, made for this communicator alone. `close` and `abort` destroy it; ranks in an exchange
    with this one then raise DeviceError.
    """

    def __init__(self, group: Any):
        self._torch = import_torch()
        self._group = group
        super().__init__(self._torch.distributed.get_rank(group), self._torch.distributed.get_world_size(group))
        self._links: dict[int, _Link] = {}
        self._timeout = _EXCHANGE_TIMEOUT
        # A group that is still open when the interpreter ends may abort the process.
        atexit.register(self.close, CLOSE_TIMEOUT)

    def _transfer(self, rank: int, array: Array | None = None, other: Array | None = None) -> None:
        link, works = self._links.setdefault(rank, _Link()), []
        large = max(x.nbytes for x in (array, other) if x is not None) > _FRAME - _SIZE
        try:
            if array is not None:
                frame = link.next_frame()
                frame[:_SIZE].view(np.int64)[0] = self._announced(array)
                if not large:
                    frame[_SIZE : _SIZE + array.nbytes] = as_bytes(array)
                link.pending.append(self._send(frame, rank))
                if large:
                    works += [self._send(array, rank), self._send(link.signal, rank)]
            if other is not None:
                self._receive(link.received, rank).wait(self._timeout)
                self._check(rank, int(link.received[:_SIZE].view(np.int64)[0]), other)
                if not large:
                    as_bytes(other)[...] = link.received[_SIZE : _SIZE + other.nbytes]
                else:
                    works += [self._receive(other, rank), self._receive(link.received[:1], rank)]
                    works[-1].wait(self._timeout)
                    works[-2].wait(self._timeout)
                    link.pending.append(self._send(link.signal, rank))
            if array is not None and large:
                self._receive(link.received[:1], rank).wait(self._timeout)
        except DeviceError:
            raise
        except RuntimeError as error:
            raise DeviceError(f"rank {self.rank} of {self.size} lost rank {rank}: {reason(error)}") from None
        finally:
            works.clear()  # an exception that keeps this frame would keep the connections open

    def _send(self, array: Array, rank: int) -> Any:
        return self._torch.distributed.isend(self._torch.from_numpy(as_bytes(array)), rank, self._group)

    def _receive(self, other: Array, rank: int) -> Any:
        return self._torch.distributed.irecv(self._torch.from_numpy(as_bytes(other)), rank, self._group)

    def abort(self, error: Exception) -> None:
        """Close the group, without waiting where this rank alone fails. A worker of Ray or Dask lives on."""
        if is_raised_on_all_ranks(error):
            self.close()
            return
        if error is not self._problem:
            error.add_note(f"on rank {self.rank} of {self.size}")
        if self._can_close:
            self._close()

    def close(self, timeout: float | None = None) -> None:
        if self._can_close:
            self._timeout = _EXCHANGE_TIMEOUT if timeout is None else timedelta(seconds=timeout)
            try:
                # Gloo resets connections on closing: what the other ranks have not received by then would be lost.
                if self._problem is None:
                    # Another rank may go on or have ended, and the program may have destroyed the group.
                    with suppress(DeviceError, ValueError):
                        self._close_handshake()
            finally:
                self._close()

    def _close(self) -> None:
        self._closing = True
        atexit.unregister(self.close)
        for link in self._links.values():
            link.pending.clear()
        group, self._group = self._group, None
        with suppress(ValueError):  # the program has destroyed it
            self._torch.distributed.destroy_process_group(group)

    def local_rank(self) -> int:
        local_rank, hosts = environment.local_rank(), self.all_gather_object(host_name())
        return hosts[: self.rank].count(hosts[self.rank]) if local_rank is None else local_rank


def is_initialized() -> bool:
    """Whether the program, or Ray Train before it, made the default group of torch.distributed. Imports nothing."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and bool(distributed.is_initialized())


def from_default_group() -> Communicator:
    """A communicator of the ranks of the program's default group, over a new group; the default group stays open."""
    distributed = import_torch().distributed
    rank, size = distributed.get_rank(), distributed.get_world_size()
    if size == 1:
        return Communicator()
    try:
        return GlooCommunicator(distributed.new_group(backend="gloo", timeout=timedelta(seconds=rendezvous.TIMEOUT)))
    except RuntimeError as error:
        raise DeviceError(f"rank {rank} of {size} made no group with the others: {reason(error)}") from None


def from_environment(address: RendezvousAddress) -> Communicator:
    """A communicator of the ranks that find each other at the address. Raises DeviceError where they do not."""
    if address.size == 1:
        return Communicator()
    torch = import_torch()
    store = rendezvous.open_store(torch.distributed, address)
    store.set_timeout(_CONNECT_TIMEOUT)
    rank, size, excepthook = address.rank, address.size, sys.excepthook
    try:
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_CONNECT_TIMEOUT)
    except RuntimeError as error:
        hint = "set GLOO_SOCKET_IFNAME on each host to the network interface that the other hosts reach"
        unmet = f"rank {rank} of {size} on {host_name()} did not connect to the others: {reason(error)}"
        raise DeviceError(f"{unmet}; {hint}") from None
    finally:
        # torch wraps the hook each time and never restores it; a worker that lives on is no rank any more.
        sys.excepthook = excepthook
    return GlooCommunicator(torch.distributed.group.WORLD)


def reason(error: Exception) -> str:
    """The message of torch, without the place in torch's sources and without its advice."""
    text = re.sub(r"^\[[^\]]*\] ", "", str(error).partition("\n")[0])
    return text.partition(". ")[0]


def import_torch() -> ModuleType:
    """PyTorch, whose C++ side then logs fatal errors only: it would log what it raises, with pages of stack frames."""
    level = "TORCH_CPP_LOG_LEVEL"
    is_silent = "torch" not in sys.modules and level not in os.environ
    if is_silent:
        os.environ[level] = "FATAL"
    try:
        import torch
        import torch.distributed
    except ImportError as error:
        why = next(iter(str(error).splitlines()), "")
        raise DeviceError(
            f"ranks that MPI did not start talk by PyTorch, which cannot be loaded ({why}): pip install 'gpu_nn[ranks]'"
        ) from None
    finally:
        if is_silent:
            del os.environ[level]
    if not torch.distributed.is_available():
        raise DeviceError("ranks that MPI did not start talk by torch.distributed, which this PyTorch is built without")
    return torch
