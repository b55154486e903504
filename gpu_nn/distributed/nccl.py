"""Ranks with a GPU each, which add up their arrays by NCCL through CuPy. Needs the extra `nccl12` or `nccl13`.

They meet by MPI where MPI started them, else where the environment says, as torchrun and others set it: RANK,
WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.
"""

import os
import socket
from typing import Any

import numpy as np

from gpu_nn.device import Array, Device, cupy_module
from gpu_nn.errors import DeviceError
from gpu_nn.training.ranks import Ranks

_LAST_PORT = 65_535
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def started() -> bool:
    """Whether the environment says which rank this process is."""
    return all(name in os.environ for name in _VARIABLES)


def local_rank() -> int:
    """The number of this rank among those on the same host."""
    return _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else _number("RANK")


class NcclRanks(Ranks):
    """The ranks of NCCL's world, with arrays on the device or, for a few words, on the host."""

    def __init__(self, device: Device, mpi: Ranks | None):
        """mpi: the ranks of MPI, when it started them."""
        rank, size = (mpi.rank, mpi.size) if mpi is not None else (_number("RANK"), _number("WORLD_SIZE"))
        if not 0 <= rank < size:
            raise ValueError(f"RANK={rank} with WORLD_SIZE={size}; expected a rank from 0 to {size - 1}")
        super().__init__(rank, size)
        self._device, self._mpi = device, mpi
        self._world = self._met(mpi is not None)

    def _met(self, by_mpi: bool) -> Any:
        distributed = _distributed()
        host, port = None, None
        if not by_mpi:
            host, port = os.environ["MASTER_ADDR"], _number("MASTER_PORT")
            if not 1 <= port <= _LAST_PORT:
                raise ValueError(f"MASTER_PORT={port}; expected a port from 1 to {_LAST_PORT}")
            if self.rank == 0:
                _check_free(host, port)
        try:
            with self._device.active():
                return distributed.init_process_group(
                    self.size, self.rank, backend="nccl", host=host, port=port, use_mpi=by_mpi
                )
        except RuntimeError as error:
            where = "by MPI" if by_mpi else f"at {host}:{port}"
            raise DeviceError(f"rank {self.rank} of {self.size} did not meet the others {where}: {error}") from None

    def sum(self, array: Array) -> None:
        """NCCL's sum: the same bits on every rank and in every run with as many ranks; its order is NCCL's."""
        with self._device.active():
            if not isinstance(array, np.ndarray):
                self._world.all_reduce(array, array)
                return
            there = self._device.asarray(array)
            self._world.all_reduce(there, there)
            array[...] = self._device.to_host(there)

    def abort(self, code: int) -> None:
        if self._mpi is not None:
            self._mpi.abort(code)
        # Not an exception: on the way out it would wait for sums that the others never join.
        os._exit(code)


def _distributed() -> Any:
    cupy = cupy_module()
    try:
        available = cupy.cuda.nccl.available
    except AttributeError:
        available = False
    if not available:
        raise DeviceError(
            "ranks on GPUs talk by NCCL, which CuPy does not find: pip install 'gpu_nn[nccl12]' beside cuda12x, "
            "'gpu_nn[nccl13]' beside cuda13x"
        )
    from cupyx import distributed

    return distributed


def _check_free(host: str, port: int) -> None:
    """CuPy tells nothing of a port that is taken: the others would wait for 25 seconds."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise DeviceError(f"rank 0 cannot listen at {host}:{port}: {reason}; choose another MASTER_PORT") from None


def _number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise ValueError(f"the environment has {name}={text!r}; expected a whole number")
    return int(text)
