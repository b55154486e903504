"""Compilation and launch of every kernel.

A kernel takes its arrays first and its numbers after them:

    kernel = Kernel("gather.cu", "gather<float, __half>", arrays=("float32", "int64", "float16"), numbers=(np.int64,))
    launch(kernel, (blocks,), (256,), (source, rows, out), (source.size, n, n * width), (width,))

`Kernel` costs nothing until its first launch, which compiles this one instantiation for the device of the arrays; keep
kernels in a `functools.cache`, so that a step constructs none. `launch` rejects arrays that a kernel would misread (by
dtype, size, library, device or strides) and casts the numbers to the kernel's types; None is passed as a null pointer.
Work goes to the current stream. Nothing is launched for an empty grid.

CuPy is imported through `device.cupy_module()` only, so an override of it there receives every launch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gpu_nn.device import INSTALL_HINT, Array, cupy_module
from gpu_nn.errors import DeviceError
from gpu_nn.kernels.cuda_kernels.sources import source

# The most shared memory of a block without an opt-in.
_DEFAULT_SHARED_BYTES = 48 * 1024

_NULL = np.intp(0)
# Without -default-device NVRTC takes lambdas in device templates for host functions.
OPTIONS = ("-std=c++17", "-default-device")


@dataclass(frozen=True)
class Limits:
    """Properties of a device on which a launch configuration may depend."""

    compute_capability: int  # 90 for 9.0
    multiprocessors: int
    shared_bytes: int  # the most dynamic shared memory that one block can ask for


_limits: dict[tuple[int, int], Limits] = {}


def limits(array: Array) -> Limits:
    """Those of the device of `array`."""
    module, index = cupy_module(), _device_index(array)
    found = _limits.get((id(module), index))
    if found is None:
        device = module.cuda.Device(index)
        found = _limits[id(module), index] = Limits(
            int(device.compute_capability),
            device.attributes["MultiProcessorCount"],
            device.attributes["MaxSharedMemoryPerBlockOptin"],
        )
    return found


class Kernel:
    """One instantiation of a __global__ function of cuda_src.

    arrays: the dtypes of its leading parameters, which are pointers. numbers: the NumPy types of the others. since: the
    lowest compute capability (90 for 9.0) that has it.
    """

    def __init__(self, file: str, name: str, arrays: Sequence[str], numbers: Sequence[type] = (), since: int = 0):
        self.file, self.name, self.since = file, name, since
        self.arrays = tuple(map(_dtype, arrays))
        self.numbers = tuple(numbers)
        self._compiled: dict[tuple[int, int], Any] = {}
        self._shared_bytes: dict[tuple[int, int], int] = {}

    def get(self, module: Any, index: int, shared_bytes: int) -> Any:
        """The CuPy kernel for device `index`, which is the current one, ready for that much dynamic shared memory."""
        key = (id(module), index)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = self._compile(module)
        if shared_bytes > self._shared_bytes.get(key, _DEFAULT_SHARED_BYTES):
            compiled.max_dynamic_shared_size_bytes = self._shared_bytes[key] = shared_bytes
        return compiled

    def _compile(self, module: Any) -> Any:
        code = source(self.file)
        try:
            raw = module.RawModule(code=code, options=OPTIONS, name_expressions=(self.name,))
            return raw.get_function(self.name)
        except Exception as error:  # any: CuPy's CompileException has no public base; others are raised again
            if (
                not isinstance(error, ImportError | OSError | RuntimeError)
                and type(error).__name__ != "CompileException"
            ):
                raise
            raise DeviceError(
                f"{self.name} of {self.file} could not be compiled: {error}\n"
                f"If CUDA's compiler or headers are missing or newer than the driver: {INSTALL_HINT}"
            ) from error

    def argument_error(self, arrays: Sequence[Array | None], sizes: Sequence[int]) -> Exception:
        """The exception that says what is wrong with the arrays of a launch."""
        module, first = cupy_module(), None
        for place, (array, dtype, size) in enumerate(zip(arrays, self.arrays, sizes, strict=True)):
            if array is None:
                continue
            what = f"array {place} of {self.name}"
            if not isinstance(array, module.ndarray):
                return TypeError(f"{what} is a {type(array).__module__}.{type(array).__name__}, not a CuPy array")
            if array.dtype != dtype:
                return TypeError(f"{what} has dtype {array.dtype}, not {dtype}")
            if array.size != size:
                return ValueError(f"{what} has {array.size} elements (shape {array.shape}), not {size}")
            if not array.flags.c_contiguous:
                return ValueError(f"{what} is not C-contiguous: strides {array.strides} at shape {array.shape}")
            first = array if first is None else first
            if _device_index(array) != _device_index(first):
                return DeviceError(f"{what} is on {array.device}, the first array on {first.device}")
        return AssertionError(f"the arrays of {self.name} were rejected without a reason")


def launch(
    kernel: Kernel,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    arrays: Sequence[Array | None],
    sizes: Sequence[int],
    numbers: Sequence[Any] = (),
    shared_bytes: int = 0,
) -> None:
    """Run `kernel` on the device of its arrays. sizes: how many elements each array must have.

    Raises TypeError for an array of another library or dtype, ValueError for one of another size or with strides,
    DeviceError for arrays of two devices, OverflowError for a number that its type does not hold.
    """
    module = cupy_module()
    array_type, device = module.ndarray, -1
    arguments: list[Any] = []
    for array, dtype, size in zip(arrays, kernel.arrays, sizes, strict=True):
        if array is None:
            arguments.append(_NULL)
            continue
        if not isinstance(array, array_type) or array.dtype != dtype or array.size != size:
            raise kernel.argument_error(arrays, sizes)
        index = _device_index(array)
        if not array.flags.c_contiguous or index != device >= 0:
            raise kernel.argument_error(arrays, sizes)
        device = index
        arguments.append(array)
    for number, as_type in zip(numbers, kernel.numbers, strict=True):
        arguments.append(number if type(number) is as_type else as_type(number))
    if 0 in grid:
        return
    if module.cuda.Device().id == device:
        kernel.get(module, device, shared_bytes)(grid, block, tuple(arguments), shared_mem=shared_bytes)
        return
    with module.cuda.Device(device):
        kernel.get(module, device, shared_bytes)(grid, block, tuple(arguments), shared_mem=shared_bytes)


def _device_index(array: Array) -> int:
    return getattr(array.device, "id", 0)


@cache
def _dtype(name: str) -> np.dtype:
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)
