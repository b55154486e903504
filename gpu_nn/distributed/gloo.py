"""Ranks that MPI did not start, over torch.distributed's Gloo: of torchrun, Ray, Dask or an environment set by hand.

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
from gpu_nn.distributed.communicator import Communicator, is_raised_on_all_ranks
from gpu_nn.distributed.environment import Environment
from gpu_nn.distributed.hosts import host_name
from gpu_nn.distributed.pairwise import PairwiseCommunicator, as_bytes
from gpu_nn.errors import DeviceError

# A rank may validate, or write a checkpoint, for as long before it comes to a sum; a shorter wait ends slow ranks.
_UNTIL_A_SUM = timedelta(minutes=30)
# All ranks are known to be there when they connect. Gloo waits five times as long for a connection from another rank.
_UNTIL_CONNECTED = timedelta(minutes=1)

# Seconds for the others, where the program ends before they have left.
_UNTIL_ALL_ENDED = 20.0

# Of every array goes a frame of this many bytes: the size of the array, and the array where it is small. A large one
# follows: Gloo ends a process that is sent more than it has room for, so the sizes are compared first.
#
# Where a connection ends, Gloo tells operations that wait their turn, but none that is half done: a wait for that is in
# vain. So nobody waits for sends, nor for a large array before the byte that follows it has come; it is answered with a
# byte, which tells the sender that the array is its own again.
_FRAME, _SIZE = 512, 8


class _Link:
    """What two ranks send each other. sent: frames and bytes on their way, which come before the latest two."""

    def __init__(self) -> None:
        self._frames = [np.zeros(_FRAME, np.uint8) for _ in range(2)]
        self.came, self.signal = np.zeros(_FRAME, np.uint8), np.zeros(1, np.uint8)
        self.sent: deque[Any] = deque(maxlen=4)

    def next_frame(self) -> Array:
        """That before the latest: the other rank has received it, since it has answered."""
        self._frames.reverse()
        return self._frames[0]


class GlooCommunicator(PairwiseCommunicator):
    """The ranks of a group of torch.distributed, with arrays on the host.

    group: of the backend Gloo, made for these ranks alone.
    Closed by `leave` and `fail`: ranks in a sum with this one then raise DeviceError.
    """

    def __init__(self, group: Any):
        self._torch = import_torch()
        self._group = group
        super().__init__(self._torch.distributed.get_rank(group), self._torch.distributed.get_world_size(group))
        self._links: dict[int, _Link] = {}
        self._patience = _UNTIL_A_SUM
        # A group that is left to the interpreter's end may abort it.
        atexit.register(self.close, _UNTIL_ALL_ENDED)

    def _transfer(self, rank: int, array: Array | None = None, other: Array | None = None) -> None:
        link, works = self._links.setdefault(rank, _Link()), []
        large = max(x.nbytes for x in (array, other) if x is not None) > _FRAME - _SIZE
        try:
            if array is not None:
                frame = link.next_frame()
                frame[:_SIZE].view(np.int64)[0] = self._announced(array)
                if not large:
                    frame[_SIZE : _SIZE + array.nbytes] = as_bytes(array)
                link.sent.append(self._send(frame, rank))
                if large:
                    works += [self._send(array, rank), self._send(link.signal, rank)]
            if other is not None:
                self._receive(link.came, rank).wait(self._patience)
                self._check(rank, int(link.came[:_SIZE].view(np.int64)[0]), other)
                if not large:
                    as_bytes(other)[...] = link.came[_SIZE : _SIZE + other.nbytes]
                else:
                    works += [self._receive(other, rank), self._receive(link.came[:1], rank)]
                    works[-1].wait(self._patience)
                    works[-2].wait(self._patience)
                    link.sent.append(self._send(link.signal, rank))
            if array is not None and large:
                self._receive(link.came[:1], rank).wait(self._patience)
        except DeviceError:
            raise
        except RuntimeError as error:
            raise DeviceError(f"rank {self.rank} of {self.size} lost rank {rank}: {reason(error)}") from None
        finally:
            works.clear()  # or the connections stay open while an exception keeps this frame

    def _send(self, array: Array, rank: int) -> Any:
        return self._torch.distributed.isend(self._torch.from_numpy(as_bytes(array)), rank, self._group)

    def _receive(self, other: Array, rank: int) -> Any:
        return self._torch.distributed.irecv(self._torch.from_numpy(as_bytes(other)), rank, self._group)

    def abort(self, error: Exception) -> None:
        """The process, which may be a worker of Ray or Dask, lives on; alone in this error, it leaves at once."""
        if is_raised_on_all_ranks(error):
            self.close()
            return
        if error is not self._problem:
            error.add_note(f"on rank {self.rank} of {self.size}")
        if self._can_leave:
            self._close()

    def close(self, timeout: float | None = None) -> None:
        if self._can_leave:
            self._patience = _UNTIL_A_SUM if seconds is None else timedelta(seconds=seconds)
            try:
                # To close a connection is to reset it: what the others have not received by then would be lost.
                if self._problem is None:
                    # Another rank may go on or be gone, and the program may have destroyed the group.
                    with suppress(DeviceError, ValueError):
                        self._all_leave()
            finally:
                self._close()

    def _close(self) -> None:
        self._leaving = True
        atexit.unregister(self.close)
        for link in self._links.values():
            link.sent.clear()
        group, self._group = self._group, None
        with suppress(ValueError):  # the program has done that
            self._torch.distributed.destroy_process_group(group)

    def local_rank(self) -> int:
        told, hosts = environment.local_rank(), self.all_gather_object(host_name())
        return hosts[: self.rank].count(hosts[self.rank]) if told is None else told


def is_initialized() -> bool:
    """Whether the program, or Ray Train before it, made a group of torch.distributed. Imports nothing."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and bool(distributed.is_initialized())


def of_the_program() -> Communicator:
    """The ranks of the group that the program made, over a group beside it; the program's own is left standing."""
    distributed = import_torch().distributed
    rank, size = distributed.get_rank(), distributed.get_world_size()
    if size == 1:
        return Communicator()
    try:
        return GlooCommunicator(distributed.new_group(backend="gloo", timeout=timedelta(seconds=rendezvous.PATIENCE)))
    except RuntimeError as error:
        raise DeviceError(f"rank {rank} of {size} made no group with the others: {reason(error)}") from None


def met(place: Environment) -> Communicator:
    """The ranks that meet there. Raises DeviceError where they do not."""
    if place.size == 1:
        return Communicator()
    torch = import_torch()
    store = rendezvous.met(torch.distributed, place)
    store.set_timeout(_UNTIL_CONNECTED)
    rank, size, excepthook = place.rank, place.size, sys.excepthook
    try:
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_UNTIL_CONNECTED)
    except RuntimeError as error:
        hint = "set GLOO_SOCKET_IFNAME on each host to the network interface that the other hosts reach"
        unmet = f"rank {rank} of {size} on {host_name()} did not connect to the others: {reason(error)}"
        raise DeviceError(f"{unmet}; {hint}") from None
    finally:
        # torch wraps it each time and never takes that back; a worker that lives on is no rank any more.
        sys.excepthook = excepthook
    return GlooCommunicator(torch.distributed.group.WORLD)


def reason(error: Exception) -> str:
    """What torch says, without its place in torch's sources and its advice."""
    text = re.sub(r"^\[[^\]]*\] ", "", str(error).partition("\n")[0])
    return text.partition(". ")[0]


def import_torch() -> ModuleType:
    """PyTorch. Its C++ side then logs nothing below fatal: that tells what is raised as well, with pages of frames."""
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
