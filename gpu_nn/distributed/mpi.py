"""Ranks that MPI starts: `mpiexec -n 4 gpu-nn train --distributed`. Needs the extra `mpi` (mpi4py and an MPI)."""

from typing import Any

import numpy as np

from gpu_nn.device import Array
from gpu_nn.errors import DeviceError
from gpu_nn.training.ranks import Ranks


class MpiRanks(Ranks):
    """The ranks of MPI's world, with arrays on the host."""

    def __init__(self) -> None:
        self._world = _mpi().COMM_WORLD
        super().__init__(self._world.Get_rank(), self._world.Get_size())

    def sum(self, array: Array) -> None:
        """Ranks 0 and 1 are added first, then 2 and 3, then these two sums, and so on: log₂(size) exchanges of it all.

        MPI's own sums leave the order, and so the bits, to the library.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # as on GPUs
            self._sum(array)

    def _sum(self, array: Array) -> None:
        other = np.empty_like(array)
        if self.size & (self.size - 1) == 0:
            distance = 1
            while distance < self.size:
                self._world.Sendrecv(array, self.rank ^ distance, recvbuf=other, source=self.rank ^ distance)
                array += other  # a + b and b + a are the same bits
                distance *= 2
            return
        distance = 1
        while distance < self.size:
            if self.rank % (2 * distance) == distance:
                self._world.Send(array, self.rank - distance)
                break
            if self.rank + distance < self.size:
                self._world.Recv(other, self.rank + distance)
                array += other
            distance *= 2
        self._world.Bcast(array, 0)

    def abort(self, code: int) -> None:
        self._world.Abort(code)

    def local_rank(self) -> int:
        """The number of this rank among those on the same host: which GPU is its own."""
        host = self._world.Split_type(_mpi().COMM_TYPE_SHARED)
        return int(host.Get_rank())


def _mpi() -> Any:
    try:
        from mpi4py import MPI
    except ImportError as error:
        reason = next(iter(str(error).splitlines()), "")
        raise DeviceError(f"ranks talk by MPI, which cannot be loaded ({reason}): pip install 'gpu_nn[mpi]'") from None
    return MPI
