"""`cupy.RawModule` and its kernels, run on the CPU."""

import ctypes
import math
import os
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np

from . import compiler
from .arguments import Arguments, Parameter, RawParameter, Region, is_array
from .errors import EmulatorError
from .guarded import GuardedArrays
from .symbols import with_names
from .work import Work, submit

MODES = ("plain", "address", "thread")
ORDERS = ("forward", "reverse", "both")
# A launch that takes longer counts as hanging.
SECONDS = 120.0
STATIC_SHARED_LIMIT = 48 * 1024
MAX_THREADS = 1024
MAX_BLOCKS = 2**31 - 1  # of a whole grid; a GPU has no such limit
GRID_LIMITS = (2**31 - 1, 65535, 65535)
BLOCK_LIMITS = (1024, 1024, 64)


class RawKernelDescription(ctypes.Structure):
    """cuda_emulator::Kernel."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("run", ctypes.c_void_p),
        ("parameters", ctypes.POINTER(RawParameter)),
        ("parameter_count", ctypes.c_int),
    )


class Launch(ctypes.Structure):
    """cuda_emulator::Launch."""

    _fields_ = (
        ("kernel", ctypes.c_void_p),
        ("arguments", ctypes.c_void_p),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_size_t),
        ("reverse", ctypes.c_int),
        ("check", ctypes.c_int),
        ("regions", ctypes.POINTER(Region)),
        ("region_count", ctypes.c_int),
        ("seconds", ctypes.c_double),
        ("dynamic_shared", ctypes.c_void_p),
        ("dynamic_shared_capacity", ctypes.c_size_t),
    )


def _chosen(value: str | None, variable: str, allowed: tuple[str, ...]) -> str:
    chosen = value or os.environ.get(variable) or allowed[0]
    if chosen not in allowed:
        raise ValueError(f"{variable}: {chosen!r} is none of {', '.join(allowed)}")
    return chosen


def _stands_for_array(value: Any) -> bool:
    return not isinstance(value, np.ndarray) and is_array(value)


class RawModule:
    """CUDA C++ source, compiled for the CPU when it is first needed.

    The arguments of ``cupy.RawModule`` keep their meaning; what has none on a CPU is accepted and ignored. Three are
    the emulator's own: ``mode`` ("plain", "address" or "thread", default ``$CUDA_EMULATOR_MODE``); ``order``, in which
    lanes run ("forward", "reverse" or "both", default ``$CUDA_EMULATOR_ORDER``); ``shared_memory_limit``, in bytes.
    """

    def __init__(
        self,
        *,
        code: str | None = None,
        path: str | None = None,
        options: Iterable[str] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        name_expressions: Iterable[str] | None = None,
        jitify: bool = False,
        mode: str | None = None,
        order: str | None = None,
        shared_memory_limit: int = compiler.DYNAMIC_SHARED_CAPACITY,
    ):
        if code is None or path is not None:
            raise EmulatorError("the emulator compiles source: pass code=, not path=")
        if enable_cooperative_groups or jitify or translate_cucomplex:
            raise EmulatorError("cooperative groups, jitify and translate_cucomplex are not emulated")
        if backend not in ("nvrtc", "nvcc"):
            raise ValueError(f"backend {backend!r} is neither 'nvrtc' nor 'nvcc'")
        self.code = code
        self.options = tuple(options)
        self.backend = backend
        self.name_expressions = tuple(name_expressions or ())
        self.mode = _chosen(mode, "CUDA_EMULATOR_MODE", MODES)
        self.order = _chosen(order, "CUDA_EMULATOR_ORDER", ORDERS)
        self.shared_memory_limit = min(shared_memory_limit, compiler.DYNAMIC_SHARED_CAPACITY)
        self._kernels: dict[str, RawKernel] = {}
        self._lock = threading.Lock()

    def compile(self, log_stream: Any = None) -> None:
        """Compile all name expressions now; ``get_function`` does it otherwise."""
        if self.name_expressions:
            self._load(self.name_expressions)

    def get_function(self, name: str) -> "RawKernel":
        """The kernel of a name expression, or of an ``extern "C"`` name."""
        with self._lock:
            if name not in self._kernels:
                # A name that was not announced is compiled alone, like the first use of an extern "C" kernel.
                self._load(self.name_expressions if name in self.name_expressions else (name,))
            return self._kernels[name]

    def get_global(self, name: str) -> Any:
        raise EmulatorError(f"global variable {name!r}: device globals are not reachable from the host here")

    def _load(self, names: tuple[str, ...]) -> None:
        library = compiler.kernel_library(self.code, self.options, names, checked=self.mode != "plain")
        loaded = ctypes.CDLL(str(library))
        for number, name in enumerate(names):
            self._kernels.setdefault(name, RawKernel(self, name, loaded, number))


class RawKernel:
    """One kernel: ``kernel(grid, block, args, shared_mem=0)`` runs it to its end."""

    def __init__(self, module: RawModule, name: str, loaded: ctypes.CDLL, number: int):
        self.name = name
        self.mode = module.mode
        self.order = module.order
        self.shared_memory_limit = module.shared_memory_limit
        self._loaded = loaded
        self._description = RawKernelDescription.in_dll(loaded, f"cuda_emulator_kernel_{number}")
        count = self._description.parameter_count
        self.parameters = [Parameter.read(i, self._description.parameters[i]) for i in range(count)]
        self._dynamic_shared = ctypes.cast(loaded.cuda_emulator_dynamic, ctypes.c_void_p).value
        self._runtime = ctypes.CDLL(str(compiler.runtime_library()))
        self._max_dynamic_shared = STATIC_SHARED_LIMIT

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        """What a launch may ask for as ``shared_mem``: 48 KB until it is raised, as on a GPU."""
        return self._max_dynamic_shared

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        if not 0 <= size <= self.shared_memory_limit:
            raise EmulatorError(
                f"kernel {self.name}: {size} bytes of shared memory; a block has {self.shared_memory_limit}"
            )
        self._max_dynamic_shared = size

    @property
    def max_threads_per_block(self) -> int:
        return MAX_THREADS

    @property
    def attributes(self) -> dict[str, int]:
        return {
            "max_threads_per_block": MAX_THREADS,
            "max_dynamic_shared_size_bytes": self._max_dynamic_shared,
        }

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        *,
        shared_mem: int = 0,
        stream: Any = None,
    ) -> None:
        def launch(*args: Any) -> None:
            self._launch(grid, block, args, shared_mem)

        arrays = (value.__cuda_emulator_array__() if _stands_for_array(value) else value for value in args)
        submit(Work(self.name, tuple(arrays), launch, grid, block))

    def _launch(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], shared_mem: int) -> None:
        try:
            self._check_shape(grid, block, shared_mem)
            arguments = Arguments(self.parameters, args)
            if self.order == "both":
                self._run_both_orders(grid, block, shared_mem, arguments)
            else:
                self._run(grid, block, shared_mem, arguments, self.order)
        except EmulatorError as error:
            if not error.args[0].startswith("kernel "):
                raise type(error)(f"kernel {self.name}: {error}") from None
            raise

    def _check_shape(self, grid: tuple[int, ...], block: tuple[int, ...], shared_mem: int) -> None:
        for what, shape, limits in (("grid", grid, GRID_LIMITS), ("block", block, BLOCK_LIMITS)):
            if not isinstance(shape, tuple) or not 1 <= len(shape) <= 3:
                raise EmulatorError(f"{what} {shape!r} is no tuple of one to three sizes")
            for axis, size, limit in zip("xyz", shape, limits, strict=False):
                if not 1 <= size <= limit:
                    raise EmulatorError(f"invalid launch: {what} {shape} has {axis} = {size}, allowed are 1 to {limit}")
        if (blocks := math.prod(grid)) > MAX_BLOCKS:
            raise EmulatorError(f"grid {grid} has {blocks} blocks; the emulator counts to {MAX_BLOCKS}")
        if (threads := math.prod(block)) > MAX_THREADS:
            raise EmulatorError(f"invalid launch: block {block} has {threads} threads, allowed are {MAX_THREADS}")
        if not 0 <= shared_mem <= self._max_dynamic_shared:
            raise EmulatorError(
                f"invalid launch: shared_mem = {shared_mem} bytes, allowed are {self._max_dynamic_shared}"
                " (more by kernel.max_dynamic_shared_size_bytes)"
            )

    def _run(
        self, grid: tuple[int, ...], block: tuple[int, ...], shared_mem: int, arguments: Arguments, order: str
    ) -> None:
        request = Launch(
            kernel=ctypes.addressof(self._description),
            arguments=ctypes.addressof(arguments.pointers),
            grid=(*grid, 1, 1)[:3],
            block=(*block, 1, 1)[:3],
            shared_bytes=shared_mem,
            reverse=order == "reverse",
            check=MODES.index(self.mode),
            seconds=SECONDS,
            dynamic_shared=self._dynamic_shared,
            dynamic_shared_capacity=compiler.DYNAMIC_SHARED_CAPACITY,
        )
        guarded = None
        if self.mode != "plain":
            guarded = GuardedArrays(arguments)
            request.regions, request.region_count = guarded.regions, guarded.region_count
        message = ctypes.create_string_buffer(4000)
        failed = self._runtime.cuda_emulator_launch(ctypes.byref(request), message, ctypes.c_size_t(len(message)))
        if guarded:
            guarded.put_back()
        if failed:
            raise EmulatorError(with_names(message.value.decode(errors="replace").rstrip()))

    def _run_both_orders(
        self, grid: tuple[int, ...], block: tuple[int, ...], shared_mem: int, arguments: Arguments
    ) -> None:
        outputs = arguments.outputs()
        before = [array.copy() for _, array in outputs]
        self._run(grid, block, shared_mem, arguments, "forward")
        forward = [array.copy() for _, array in outputs]
        for (_, array), old in zip(outputs, before, strict=True):
            array[...] = old
        self._run(grid, block, shared_mem, arguments, "reverse")
        for (parameter, array), first in zip(outputs, forward, strict=True):
            differs = np.ascontiguousarray(array).view(np.uint8) != first.view(np.uint8)
            if differs.any():
                at = int(np.flatnonzero(differs)[0]) // array.dtype.itemsize
                raise EmulatorError(
                    f"lane order matters: parameter {parameter.number} ({parameter.type}) at flat index {at} is"
                    f" {first.ravel()[at]!r} with lanes in forward and {array.ravel()[at]!r} in reverse order:"
                    " a __syncthreads or __syncwarp is missing, or two threads write one place"
                )
