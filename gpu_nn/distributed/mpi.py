"""The communicator over MPI: `mpiexec -n 4 gpu-nn train --distributed`. Needs the extra `mpi` (mpi4py and an MPI)."""

import atexit
import os
import sys
import threading
import time
from typing import Any

from gpu_nn.device import Array
from gpu_nn.distributed.communicator import is_raised_on_all_ranks
from gpu_nn.distributed.environment import EXIT_FAILURE, FLUSH_SECONDS, exit_silently
from gpu_nn.distributed.pairwise import CLOSING, PairwiseCommunicator, as_bytes
from gpu_nn.errors import DeviceError

# Tags of messages.
_EXCHANGE, _CLOSE = 1, 2


class MpiCommunicator(PairwiseCommunicator):
    """The ranks of MPI's world, with arrays on the host.

    A process that ends while others are in an exchange would wait for them in MPI_Finalize, and they for it. So ranks
    close by a last exchange of messages: where one closes while another does not, both abort all ranks.
    """

    def __init__(self) -> None:
        self._mpi = _mpi()
        self._world = self._mpi.COMM_WORLD
        self._status = self._mpi.Status()
        super().__init__(self._world.Get_rank(), self._world.Get_size())
        atexit.register(self.close)

    def _transfer(self, rank: int, array: Array | None = None, other: Array | None = None) -> None:
        tag = _CLOSE if self._closing else _EXCHANGE
        if other is None:
            self._world.Send(as_bytes(array), rank, tag)
            return
        received: int | None = None
        source = as_bytes(other), rank, self._mpi.ANY_TAG, self._status
        try:
            if array is None:
                self._world.Recv(*source)
            else:
                self._world.Sendrecv(as_bytes(array), rank, tag, *source)
            received = self._status.Get_count(self._mpi.BYTE)
        except self._mpi.Exception as error:
            if error.Get_error_class() != self._mpi.ERR_TRUNCATE:
                raise DeviceError(f"rank {self.rank} of {self.size} lost rank {rank}: {error}") from None
        self._check(rank, CLOSING if self._status.Get_tag() == _CLOSE else received, other)

    def abort(self, error: Exception) -> None:
        """End the processes of all ranks. Where all raise the error, rank 0 returns to raise it, and others exit."""
        if is_raised_on_all_ranks(error):
            self.close()
            if self.rank:
                exit_silently(EXIT_FAILURE)
            return
        try:
            print(f"rank {self.rank} of {self.size} failed: {error}; all ranks end", file=sys.stderr, flush=True)
            sys.stdout.flush()  # MPI_Abort does not
            # A launcher that ends all ranks at once may drop the output that it has not passed on.
            time.sleep(FLUSH_SECONDS)
        finally:  # also where stderr is closed
            self._world.Abort(EXIT_FAILURE)

    def close(self, timeout: float | None = None) -> None:
        if not self._can_close:
            return
        deadline = None if timeout is None else threading.Timer(timeout, self._exit, [timeout])
        if deadline is not None:
            deadline.daemon = True
            deadline.start()
        try:
            self._close_handshake()
        except DeviceError as error:
            self.abort(error)
        except KeyboardInterrupt:  # a second interrupt ends the wait
            self._world.Abort(EXIT_FAILURE)
        finally:
            if deadline is not None:
                deadline.cancel()

    def _exit(self, timeout: float) -> None:
        """End this process; the launcher then ends all. The main thread waits in MPI, and may hold Python's stderr."""
        os.write(
            2, f"rank {self.rank} of {self.size} has ended, others not in {timeout:g} seconds; all ranks end\n".encode()
        )
        sys.stdout.flush()
        os._exit(EXIT_FAILURE)

    def local_rank(self) -> int:
        host = self._world.Split_type(self._mpi.COMM_TYPE_SHARED)
        return int(host.Get_rank())


def _mpi() -> Any:
    try:
        from mpi4py import MPI
    except ImportError as error:
        reason = next(iter(str(error).splitlines()), "")
        raise DeviceError(f"ranks talk by MPI, which cannot be loaded ({reason}): pip install 'gpu_nn[mpi]'") from None
    return MPI
