"""Devices by name: "auto", "cpu", "cuda", "cuda:1".

A `Device` has the array module (`xp`: NumPy or CuPy). `gpu_nn.kernels` chooses its kernels.
"""

import math
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from gpu_nn.errors import DeviceError, OutOfDeviceMemory, unknown_name

Array = Any  # a NumPy or CuPy array; the two share no base class


@dataclass(frozen=True)
class Device:
    """Where arrays are stored.

    name: "cpu" or "cuda:N".  xp: numpy or cupy.  reason: why "auto" chose it, "" for a device chosen by name.
    """

    name: str
    xp: ModuleType | Any
    reason: str = ""

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]

    @property
    def index(self) -> int:
        return int(self.name.partition(":")[2] or 0)

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})" if self.reason else self.name

    def active(self, advice: str = "fewer rows at a time need less") -> AbstractContextManager[None]:
        """A context in which new arrays are allocated on this device.

        Raises OutOfDeviceMemory, with the `advice`, when the GPU is out of memory.
        """
        return nullcontext() if self.kind == "cpu" else self._with_memory(advice)

    @contextmanager
    def _with_memory(self, advice: str) -> Iterator[None]:
        try:
            with self.xp.cuda.Device(self.index):
                yield
        except self.xp.cuda.memory.OutOfMemoryError as error:
            requested = f"{error._size:,} bytes were asked for"
            raise OutOfDeviceMemory(f"{self.name} has no memory left: {requested}; {advice} ({error})") from error

    def asarray(self, array: Array, dtype: Any = None, name: str = "the array") -> Array:
        """`array` on this device, C-contiguous, as `dtype` (None: its own); copied only where that is necessary.

        Copies from the CPU to a GPU. For the CPU it raises TypeError, with the `name`, for an array on a GPU: `to_host`
        copies that.
        """
        if self.kind == "cpu":
            check_on_host(name, array)
        with self.active(f"{name} of shape {np.shape(array)} is held there whole: a shorter one needs less"):
            return self.xp.ascontiguousarray(self.xp.asarray(array, dtype=dtype))

    def to_host(self, array: Array) -> np.ndarray:
        """`array` as a NumPy array. On a GPU this synchronizes."""
        return array if isinstance(array, np.ndarray) else array.get()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An uninitialized array on this device, on the CPU aligned to a cache line.

        Raises CuPy's own error when the GPU is out of memory: the caller's `active` knows what needs less.
        """
        if self.kind == "cpu":
            return aligned_empty(shape, dtype)
        with self.xp.cuda.Device(self.index):
            return self.xp.empty(shape, dtype)

    def free_bytes(self) -> int | None:
        """The memory that new arrays can use; None on the CPU, where it is not reliable."""
        if self.kind == "cpu":
            return None
        with self.active():
            free, _ = self.xp.cuda.Device(self.index).mem_info
            return int(free + self.xp.get_default_memory_pool().free_bytes())

    def empty_on_host(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialized host array from which `upload` is fast: for a GPU in pinned memory."""
        if self.kind == "cpu":
            return aligned_empty(shape, dtype)
        count = math.prod(shape)
        with self.xp.cuda.Device(self.index):
            memory = self.xp.cuda.alloc_pinned_memory(max(count, 1) * np.dtype(dtype).itemsize)
        return np.frombuffer(memory, dtype, count).reshape(shape)

    def upload(self, host: np.ndarray, out: Array) -> None:
        """Copy `host` into `out`, of the same shape and dtype, in stream order; returns when `host` can be reused."""
        if self.kind == "cpu":
            np.copyto(out, host)
            return
        with self.xp.cuda.Device(self.index):
            cuda_stream = self.xp.cuda.get_current_stream()
            out.set(host, cuda_stream)
            cuda_stream.synchronize()

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array of zeros, allocated as by `empty`."""
        zeros = self.empty(shape, dtype)
        with self.active():
            zeros.fill(0)
        return zeros


# Bytes. A vector load that crosses two cache lines takes twice as long.
_CACHE_LINE = 64


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """np.empty, aligned to a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


CPU = Device("cpu", np)


# What to install for a GPU.
INSTALL_HINT = "pip install 'gpu_nn[cuda12x]' (drivers from 525 on) or 'gpu_nn[cuda13x]' (drivers from 580 on)"

# Replaces CuPy where it is not None: the tests set their emulated device here.
cupy_override: Any = None


def cupy_module() -> Any:
    """CuPy, or `cupy_override`. Raises DeviceError, with a hint, where CuPy cannot be imported."""
    if cupy_override is not None:
        return cupy_override
    try:
        import cupy
    except ModuleNotFoundError:
        raise DeviceError(f"CuPy is not installed: {INSTALL_HINT}") from None
    except ImportError as error:
        reason = next(iter(str(error).split("\n")))
        raise DeviceError(f"CuPy is installed but cannot be imported ({reason}): {INSTALL_HINT}") from None
    return cupy


def cuda_unavailable_reason() -> str:
    """Why no GPU can be used, with a hint; "" when one can."""
    try:
        available = cupy_module().cuda.is_available()
    except DeviceError as error:
        return str(error)
    if available:
        return ""
    return (
        _driver_too_old() or "CuPy finds no NVIDIA GPU or driver: check nvidia-smi, and in a container pass --gpus all"
    )


def _driver_too_old() -> str:
    """A message, with a hint, where the driver is older than CuPy's CUDA; "" where it is not, or there is no driver."""
    runtime = cupy_module().cuda.runtime
    try:
        driver, built_for = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    except RuntimeError:
        return ""
    # Any driver of the same major version works. 12040 is version 12.4.
    if not 0 < driver // 1000 < built_for // 1000:
        return ""
    versions = f"CUDA {driver // 1000}.{driver % 1000 // 10} and CuPy is made for CUDA {built_for // 1000}"
    return f"the driver knows {versions}: update the driver, or {INSTALL_HINT}"


def device_of(array: Array) -> Device | None:
    """The device of a NumPy or CuPy array; None for any other object."""
    if isinstance(array, np.ndarray):
        return CPU
    # A CuPy array exists only after CuPy was imported.
    cupy = cupy_override or sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        return Device(f"cuda:{array.device.id}", cupy)
    return None


def check_on_host(name: str, array: Any) -> None:
    """Raises TypeError for an array on a GPU."""
    device = device_of(array)
    if device is not None and device.kind != "cpu":
        raise TypeError(f"{name} lies on {device.name}, all else on the CPU; expected a NumPy array: pass {name}.get()")


def resolve_device(name: "str | Device" = "auto") -> Device:
    """The device of that name.

    "auto" is the first GPU that CuPy finds, else the CPU, with the reason in `Device.reason`. Any other name is that
    device or an error.

    Raises ValueError for an unknown name, DeviceError for a GPU that does not exist.
    """
    if isinstance(name, Device):
        return name
    if name == "cpu":
        return CPU
    match = re.fullmatch(r"cuda(?::(\d+))?", name) if isinstance(name, str) else None
    if match is None and name != "auto":
        raise unknown_name("device", name, ("auto", "cpu", "cuda", "cuda:1"), {"gpu": "cuda", "nvidia": "cuda"})
    problem = cuda_unavailable_reason()
    if name == "auto" and problem:
        return Device("cpu", np, f"auto: {problem}")
    if problem:
        raise DeviceError(f"device={name!r}, but {problem}. device='cpu' or 'auto' runs without a GPU")
    cupy = cupy_module()
    count = cupy.cuda.runtime.getDeviceCount()
    index = int(match[1] or 0) if match else 0
    if index >= count:
        raise DeviceError(f"device={name!r}, but the GPUs here are 'cuda:0' to 'cuda:{count - 1}'")
    return Device(f"cuda:{index}", cupy, "auto: the first GPU that CuPy finds" if name == "auto" else "")
