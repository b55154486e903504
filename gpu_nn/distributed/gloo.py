"""Ranks that MPI did not start, over torch.distributed's Gloo: of torchrun, Ray, Dask or an environment set by hand.

Needs the extra `ranks` (PyTorch).
"""

import os
import re
import sys
from datetime import timedelta
from types import ModuleType
from typing import Any

import numpy as np

from gpu_nn.device import Array
from gpu_nn.distributed import launcher, rendezvous
from gpu_nn.distributed.launcher import Environment
from gpu_nn.distributed.pairwise import PairwiseRanks, as_bytes
from gpu_nn.errors import DeviceError
from gpu_nn.hosts import own_name
from gpu_nn.training.ranks import Ranks, raised_on_all_ranks

# A rank may validate, or write a checkpoint, for as long before it comes to a sum; a shorter wait ends slow ranks.
_UNTIL_A_SUM = timedelta(minutes=30)
# All ranks are known to be there when they connect. Gloo waits five times as long for a connection from another rank.
_UNTIL_CONNECTED = timedelta(minutes=1)

# Every message is a frame of this many bytes: the size of the array, and the array where it is small. A larger one
# follows by itself. Gloo ends a process that receives more than it has room for, so the sizes are compared first.
_FRAME, _SIZE = 512, 8


class GlooRanks(PairwiseRanks):
    """The ranks of a group of torch.distributed, with arrays on the host.

    group: of the backend Gloo, made for these ranks alone; None for the default group, which they made themselves.
    Closed by `leave` and `fail`: ranks in a sum with this one then raise DeviceError within seconds.
    """

    def __init__(self, group: Any = None):
        self._torch = import_torch()
        self._group, self._is_open = group, True
        super().__init__(self._torch.distributed.get_rank(group), self._torch.distributed.get_world_size(group))
        self._frame, self._other_frame = (np.zeros(_FRAME, np.uint8) for _ in range(2))
        self._lost: DeviceError | None = None

    def _transfer(self, rank: int, array: Array | None = None, other: Array | None = None) -> None:
        frame, other_frame = None, None
        if array is not None:
            frame = self._frame
            frame[:_SIZE].view(np.int64)[0] = n_bytes = array.nbytes
            if n_bytes <= _FRAME - _SIZE:
                frame[_SIZE : _SIZE + n_bytes] = as_bytes(array)
        if other is not None:
            other_frame, n_bytes = self._other_frame, other.nbytes
        self._move(rank, frame, other_frame)
        if other is not None and other_frame is not None:
            came = int(other_frame[:_SIZE].view(np.int64)[0])
            if came != n_bytes:
                raise DeviceError(self._unlike(rank, came, n_bytes))
            if n_bytes <= _FRAME - _SIZE:
                as_bytes(other)[...] = other_frame[_SIZE : _SIZE + n_bytes]
        if n_bytes > _FRAME - _SIZE:
            self._move(rank, array, other)

    def _move(self, rank: int, array: Array | None, other: Array | None) -> None:
        if not self._is_open:
            raise DeviceError(f"rank {self.rank} has left; there are no more sums for it")
        distributed, from_numpy = self._torch.distributed, self._torch.from_numpy
        works = []
        try:
            if array is not None:
                works.append(distributed.isend(from_numpy(as_bytes(array)), rank, self._group))
            if other is not None:
                works.append(distributed.irecv(from_numpy(as_bytes(other)), rank, self._group))
            while works:
                works.pop().wait(_UNTIL_A_SUM)
        except RuntimeError as error:
            works.clear()  # they would keep the connections open as long as anybody looks at the traceback
            self._lost = DeviceError(f"rank {self.rank} of {self.size} lost rank {rank}: {reason(error)}")
            raise self._lost from None

    def fail(self, error: Exception) -> None:
        """Closes the connections to the other ranks. The process, which may be a worker of Ray or Dask, lives on."""
        if not raised_on_all_ranks(error) and error is not self._lost:
            error.add_note(f"on rank {self.rank} of {self.size}")
        self.leave()

    def leave(self, seconds: float | None = None) -> None:
        if self._is_open:
            self._is_open = False
            self._torch.distributed.destroy_process_group(self._group)
            self._group = None

    def local_rank(self) -> int:
        told, hosts = launcher.local_rank(), self.gathered(own_name())
        return hosts[: self.rank].count(hosts[self.rank]) if told is None else told


def is_initialized() -> bool:
    """Whether the program, or Ray Train before it, made a group of torch.distributed. Imports nothing."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and bool(distributed.is_initialized())


def of_the_program() -> Ranks:
    """The ranks of the group that the program made, over a group beside it; the program's own is left standing."""
    distributed = import_torch().distributed
    if distributed.get_world_size() == 1:
        return Ranks()
    return GlooRanks(distributed.new_group(backend="gloo", timeout=_UNTIL_CONNECTED))


def met(place: Environment) -> Ranks:
    """The ranks that meet there. Raises DeviceError where they do not."""
    if place.size == 1:
        return Ranks()
    torch = import_torch()
    store = rendezvous.met(torch.distributed, place)
    store.set_timeout(_UNTIL_CONNECTED)
    rank, size, excepthook = place.rank, place.size, sys.excepthook
    try:
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_UNTIL_CONNECTED)
    except RuntimeError as error:
        hint = "set GLOO_SOCKET_IFNAME on each host to the network interface that the other hosts reach"
        unmet = f"rank {rank} of {size} on {own_name()} did not connect to the others: {reason(error)}"
        raise DeviceError(f"{unmet}; {hint}") from None
    finally:
        # torch wraps it each time and never takes that back; a worker that lives on is no rank any more.
        sys.excepthook = excepthook
    return GlooRanks()


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
