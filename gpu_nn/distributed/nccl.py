"""Ranks with a GPU each, which add up their arrays by NCCL through CuPy. Needs the extra `nccl12` or `nccl13`."""

import warnings
from importlib import import_module
from typing import Any

import numpy as np

from gpu_nn.device import Array, Device, cupy_module
from gpu_nn.distributed.communicator import Communicator, is_raised_on_all_ranks
from gpu_nn.errors import DeviceError


class NcclCommunicator(Communicator):
    """The ranks of NCCL's world, with arrays on the device or, for a few words, on the host.

    others: the same ranks, as they met before. Not by CuPy's own store, a process that is left over, and listens on,
    where rank 0 is ended.
    """

    def __init__(self, device: Device, others: Communicator):
        super().__init__(others.rank, others.size)
        self._device, self._others = device, others
        self._nccl = module()
        with others.raise_on_all_ranks():
            key = self._nccl.get_unique_id().hex() if self.rank == 0 else None
        key = others.all_gather_object(key)[0]
        try:
            with device.active():
                self._world = self._nccl.NcclCommunicator(self.size, bytes.fromhex(key), self.rank)
        except RuntimeError as error:
            raise DeviceError(f"rank {self.rank} of {self.size} did not meet the others by NCCL: {error}") from None
        with device.active():
            cuda = cupy_module().cuda
            # Sums that were begun go first where both want the device: the others wait for them.
            self._beside = cuda.Stream(non_blocking=True, priority=-1)
            self._written, self._summed = (cuda.Event(disable_timing=True) for _ in range(2))

    def all_reduce(self, array: Array) -> None:
        """NCCL's sum: the same bits on every rank and in every run with as many ranks; its order is NCCL's."""
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
            self._beside.wait_event(cupy_module().cuda.get_current_stream().record(self._written))
            self._nccl.groupStart()  # they are one launch
            try:
                for array in arrays:
                    self._sum(array, self._beside)
            finally:
                self._nccl.groupEnd()

    def wait(self) -> None:
        with self._device.active():
            cupy_module().cuda.get_current_stream().wait_event(self._beside.record(self._summed))

    def _sum(self, array: Array, stream: Any) -> None:
        at, number_type = array.data.ptr, getattr(self._nccl, f"NCCL_{array.dtype.name.upper()}")
        self._world.allReduce(at, at, array.size, number_type, self._nccl.NCCL_SUM, stream.ptr)

    def abort(self, error: Exception) -> None:
        if not is_raised_on_all_ranks(error):
            # Ends the sums on this device that wait for others; a process on its way out would wait for them.
            self._world.abort()
        self._others.abort(error)

    def close(self, timeout: float | None = None) -> None:
        try:
            self._others.close(seconds)
        finally:
            if seconds is not None:  # an early end, with sums on their way perhaps
                self._world.abort()


def module() -> Any:
    """CuPy's module for NCCL. Raises DeviceError where it is not there."""
    cupy = cupy_module()
    try:
        # It is no part of cupy.cuda before it is imported. Where the library is missing it warns, and is not available.
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
