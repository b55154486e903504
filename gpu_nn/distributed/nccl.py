"""The communicator over NCCL, through CuPy, for ranks with a GPU each. Needs the extra `nccl12` or `nccl13`."""

import warnings
from importlib import import_module
from typing import Any

import numpy as np

from gpu_nn.device import Array, Device, cupy_module
from gpu_nn.distributed.communicator import Communicator, is_raised_on_all_ranks
from gpu_nn.errors import DeviceError


class NcclCommunicator(Communicator):
    """Arrays on the device or, for a few numbers, on the host.

    host_communicator: of the same ranks, for the rendezvous. CuPy's own store for it is a process that keeps running,
    and listening, when rank 0 is killed.
    """

    def __init__(self, device: Device, host_communicator: Communicator):
        super().__init__(host_communicator.rank, host_communicator.size)
        self._device, self._host_communicator = device, host_communicator
        self._nccl = module()
        with host_communicator.raise_on_all_ranks():
            key = self._nccl.get_unique_id().hex() if self.rank == 0 else None
        key = host_communicator.all_gather_object(key)[0]
        try:
            with device.active():
                self._world = self._nccl.NcclCommunicator(self.size, bytes.fromhex(key), self.rank)
        except RuntimeError as error:
            raise DeviceError(f"rank {self.rank} of {self.size} did not meet the others by NCCL: {error}") from None
        with device.active():
            cuda = cupy_module().cuda
            # The other ranks wait for these sums: they go before other work of the device.
            self._side_stream = cuda.Stream(non_blocking=True, priority=-1)
            self._written, self._summed = (cuda.Event(disable_timing=True) for _ in range(2))

    def all_reduce(self, array: Array) -> None:
        """As `Communicator.all_reduce`. NCCL's order of additions is the same in every run with as many ranks."""
        with self._device.active():
            stream = cupy_module().cuda.get_current_stream()
            if not isinstance(array, np.ndarray):
                self._sum(array, stream)
                return
            there = self._device.asarray(array)
            self._sum(there, stream)
            array[...] = self._device.to_host(there)

    supports_overlap = True

    def all_reduce_async(self, *arrays: Array) -> None:
        with self._device.active():
            self._side_stream.wait_event(cupy_module().cuda.get_current_stream().record(self._written))
            self._nccl.groupStart()  # one launch for all of them
            try:
                for array in arrays:
                    self._sum(array, self._side_stream)
            finally:
                self._nccl.groupEnd()

    def wait(self) -> None:
        with self._device.active():
            cupy_module().cuda.get_current_stream().wait_event(self._side_stream.record(self._summed))

    def _sum(self, array: Array, stream: Any) -> None:
        at, number_type = array.data.ptr, getattr(self._nccl, f"NCCL_{array.dtype.name.upper()}")
        self._world.allReduce(at, at, array.size, number_type, self._nccl.NCCL_SUM, stream.ptr)

    def abort(self, error: Exception) -> None:
        if not is_raised_on_all_ranks(error):
            # Ends the kernels that wait for other ranks; a process that ends would wait for these kernels.
            self._world.abort()
        self._host_communicator.abort(error)

    def close(self, timeout: float | None = None) -> None:
        try:
            self._host_communicator.close(timeout)
        finally:
            if timeout is not None:  # an early end, perhaps with kernels that wait for other ranks
                self._world.abort()


def module() -> Any:
    """CuPy's module of NCCL. Raises DeviceError where NCCL is missing."""
    cupy = cupy_module()
    try:
        # CuPy does not import the module itself. Where the library is missing the module warns and is not available.
        with warnings.catch_warnings(action="ignore"):
            nccl = import_module(f"{cupy.__name__}.cuda.nccl")
    except ImportError:
        nccl = None
    if not getattr(nccl, "available", False):
        raise DeviceError(
            "ranks on GPUs talk by NCCL, which CuPy does not find: pip install 'gpu_nn[nccl12]' beside cuda12x, "
            "'gpu_nn[nccl13]' beside cuda13x"
        )
    return nccl
