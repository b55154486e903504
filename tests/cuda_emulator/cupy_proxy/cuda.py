"""``cupy.cuda``: one device, whose work is done when a call returns, with the attributes of an A100 unless changed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import work
from .face import CUDA
from .synchronisations import synchronisations

# Names as in cupy.cuda.Device.attributes, and their numbers in CUDA's enumeration.
ATTRIBUTE_NUMBERS = {
    "MaxThreadsPerBlock": 1,
    "MaxSharedMemoryPerBlock": 8,
    "WarpSize": 10,
    "MultiProcessorCount": 16,
    "L2CacheSize": 38,
    "MaxThreadsPerMultiProcessor": 39,
    "ComputeCapabilityMajor": 75,
    "ComputeCapabilityMinor": 76,
    "MaxSharedMemoryPerMultiprocessor": 81,
    "MaxSharedMemoryPerBlockOptin": 97,
}
attributes = {
    "MaxThreadsPerBlock": 1024,
    "MaxSharedMemoryPerBlock": 48 * 1024,
    "WarpSize": 32,
    "MultiProcessorCount": 108,
    "L2CacheSize": 40 * 2**20,
    "MaxThreadsPerMultiProcessor": 2048,
    "ComputeCapabilityMajor": 8,
    "ComputeCapabilityMinor": 0,
    "MaxSharedMemoryPerMultiprocessor": 164 * 1024,
    "MaxSharedMemoryPerBlockOptin": 163 * 1024,
}
MEMORY_BYTES = 40 * 2**30


@contextmanager
def device_attributes(**changed: int) -> Iterator[None]:
    """Inside the ``with``, the device has other attributes: ``device_attributes(MultiProcessorCount=4)``."""
    if unknown := changed.keys() - attributes.keys():
        raise ValueError(f"no attributes of the device: {', '.join(sorted(unknown))}")
    before = dict(attributes)
    attributes.update(changed)
    try:
        yield
    finally:
        attributes.update(before)


class CUDARuntimeError(RuntimeError):
    """``cupy.cuda.runtime.CUDARuntimeError``."""


class OutOfMemoryError(MemoryError):
    """``cupy.cuda.memory.OutOfMemoryError``."""

    def __init__(self, size: int, total: int, limit: int = 0):
        self._size, self._total, self._limit = size, total, limit
        super().__init__(
            f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes, limit: {limit:,} bytes)."
        )


_largest_array = MEMORY_BYTES


@contextmanager
def memory_limit(size: int) -> Iterator[None]:
    """Inside the ``with``, the device has memory for no new array of more bytes."""
    global _largest_array
    before, _largest_array = _largest_array, size
    try:
        yield
    finally:
        _largest_array = before


def check_memory(size: int) -> None:
    """What CuPy's pool does when it is asked for so many bytes and the device has no more."""
    if size > _largest_array:
        raise OutOfMemoryError(size, 0, _largest_array)


class CompileException(Exception):
    """``cupy.cuda.compiler.CompileException``."""


class Device:
    """``cupy.cuda.Device``. There is one."""

    def __init__(self, device: "int | Device | None" = None):
        self.id: int = device.id if isinstance(device, Device) else int(device or 0)

    def __enter__(self) -> "Device":
        self.use()
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def use(self) -> None:
        if self.id != 0:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def synchronize(self) -> None:
        synchronisations.note("Device.synchronize()")

    @property
    def compute_capability(self) -> str:
        return f"{attributes['ComputeCapabilityMajor']}{attributes['ComputeCapabilityMinor']}"

    @property
    def attributes(self) -> dict[str, int]:
        return dict(attributes)

    @property
    def mem_info(self) -> tuple[int, int]:
        return MEMORY_BYTES, MEMORY_BYTES


class Event:
    """``cupy.cuda.Event``, on the host's clock."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False):
        self.recorded: float | None = None
        self.done = True

    def record(self, stream: Any = None) -> None:
        self.recorded = time.perf_counter()

    def synchronize(self) -> None:
        synchronisations.note("Event.synchronize()")


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds between two recorded events."""
    if start_event.recorded is None or end_event.recorded is None:
        raise CUDARuntimeError("cudaErrorInvalidResourceHandle: an event was not recorded")
    return (end_event.recorded - start_event.recorded) * 1e3


class Stream:
    """``cupy.cuda.Stream``. All streams run at once, and at once."""

    null: "Stream"
    _stack: "list[Stream]"

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None):
        self.is_non_blocking = non_blocking
        self._recording: work.Recording | None = None
        self.ptr = 0 if null else id(self)
        self.done = True

    def __enter__(self) -> "Stream":
        Stream._stack.append(self)
        work.recording = self._recording
        return self

    def __exit__(self, *exception: object) -> None:
        Stream._stack.pop()
        work.recording = Stream._stack[-1]._recording

    def use(self) -> "Stream":
        Stream._stack[-1] = self
        work.recording = self._recording
        return self

    def synchronize(self) -> None:
        synchronisations.note("Stream.synchronize()")

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        pass

    def is_capturing(self) -> bool:
        return self._recording is not None

    def begin_capture(self, mode: Any = None) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if not self.is_non_blocking:
            raise CUDARuntimeError("cudaErrorStreamCaptureImplicit: work on the default stream would join the capture")
        if self._recording is not None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream is being captured")
        self._recording = work.Recording()
        self._show()

    def end_capture(self) -> "Graph":
        recording, self._recording = self._recording, None
        self._show()
        if recording is None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream is not being captured")
        if recording.invalid:
            raise CUDARuntimeError(f"cudaErrorStreamCaptureInvalidated: {recording.invalid}")
        return Graph(recording.works)

    def _show(self) -> None:
        if Stream._stack[-1] is self:
            work.recording = self._recording


class Graph:
    """``cupy.cuda.Graph``: the work of a captured stream, with arguments as they were and arrays where they lay."""

    launches = 0  # of all graphs

    def __init__(self, works: list[work.Work]):
        self._works = tuple(works)

    def launch(self, stream: Stream | None = None) -> None:
        if (stream or Stream._stack[-1]).is_capturing():
            raise NotImplementedError("a graph within a graph is not emulated")
        Graph.launches += 1
        work.replay(self._works)

    def upload(self, stream: Stream | None = None) -> None:
        pass


Stream.null = Stream(null=True)
Stream._stack = [Stream.null]


class MemoryPool:
    """``cupy.get_default_memory_pool()``, which owns nothing: memory is NumPy's."""

    def used_bytes(self) -> int:
        return 0

    def total_bytes(self) -> int:
        return 0

    def free_bytes(self) -> int:
        return 0

    def n_free_blocks(self) -> int:
        return 0

    def free_all_blocks(self, stream: Any = None) -> None:
        pass


def alloc_pinned_memory(size: int) -> bytearray:
    """``cupy.cuda.alloc_pinned_memory``: what has the face of a buffer. Filled with NaN bytes, as ``empty`` is."""
    return bytearray(b"\xff") * size


class _Namespace:
    """A module of CuPy's of which some names are supplied."""

    def __init__(self, name: str, known: frozenset[str] | None, **supplied: Any):
        self._name, self._known = name, known
        self.__dict__.update(supplied)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or (self._known is not None and name not in self._known):
            raise AttributeError(f"module {self._name!r} has no attribute {name!r}")
        raise NotImplementedError(f"{self._name}.{name} is not supplied by the CuPy proxy")


def _set_device(device: int) -> None:
    Device(device).use()


def _device_properties(device: int = 0) -> dict[str, Any]:
    return {
        "name": b"CUDA emulator",
        "major": attributes["ComputeCapabilityMajor"],
        "minor": attributes["ComputeCapabilityMinor"],
        "multiProcessorCount": attributes["MultiProcessorCount"],
        "sharedMemPerBlock": attributes["MaxSharedMemoryPerBlock"],
        "sharedMemPerBlockOptin": attributes["MaxSharedMemoryPerBlockOptin"],
        "sharedMemPerMultiprocessor": attributes["MaxSharedMemoryPerMultiprocessor"],
        "l2CacheSize": attributes["L2CacheSize"],
        "maxThreadsPerBlock": attributes["MaxThreadsPerBlock"],
        "maxThreadsPerMultiProcessor": attributes["MaxThreadsPerMultiProcessor"],
        "warpSize": attributes["WarpSize"],
        "totalGlobalMem": MEMORY_BYTES,
    }


_BY_NUMBER = {number: name for name, number in ATTRIBUTE_NUMBERS.items()}

runtime = _Namespace(
    "cupy.cuda.runtime",
    None,
    CUDARuntimeError=CUDARuntimeError,
    is_hip=False,
    getDeviceCount=lambda: 1,
    getDevice=lambda: 0,
    setDevice=_set_device,
    getDeviceProperties=_device_properties,
    deviceGetAttribute=lambda attribute, device: attributes[_BY_NUMBER[attribute]],
    deviceSynchronize=lambda: synchronisations.note("deviceSynchronize()"),
    streamSynchronize=lambda stream: synchronisations.note("streamSynchronize()"),
    memGetInfo=lambda: (MEMORY_BYTES, MEMORY_BYTES),
    driverGetVersion=lambda: 12090,
    runtimeGetVersion=lambda: 12090,
    **{f"cudaDevAttr{name}": number for name, number in ATTRIBUTE_NUMBERS.items()},
)
cuda = _Namespace(
    "cupy.cuda",
    CUDA,
    Device=Device,
    Event=Event,
    Graph=Graph,
    Stream=Stream,
    MemoryPool=MemoryPool,
    alloc_pinned_memory=alloc_pinned_memory,
    get_current_stream=lambda device_id=None: Stream._stack[-1],
    get_elapsed_time=get_elapsed_time,
    get_device_id=lambda: 0,
    is_available=lambda: True,
    runtime=runtime,
    compiler=_Namespace("cupy.cuda.compiler", None, CompileException=CompileException),
    memory=_Namespace("cupy.cuda.memory", None, OutOfMemoryError=OutOfMemoryError, MemoryPool=MemoryPool),
    device=_Namespace("cupy.cuda.device", None, Device=Device),
    stream=_Namespace("cupy.cuda.stream", None, Stream=Stream, Event=Event),
)
