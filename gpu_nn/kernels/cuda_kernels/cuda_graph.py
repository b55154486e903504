"""A training step as a CUDA graph: captured once, then launched as a whole."""

import logging
import threading
from collections.abc import Callable
from typing import Any

from gpu_nn.device import cupy_module
from gpu_nn.kernels.cuda_kernels import cublaslt
from gpu_nn.kernels.cuda_kernels.launch_config import capturing_for

_log = logging.getLogger("gpu_nn")
_logged: set[str] = set()


def cuda_graph(step: Callable[[], None]) -> Callable[[], None]:
    """`step`, to be called many times with the same arrays and numbers; what changes must lie in device memory.

    The first call runs the step eagerly, which compiles kernels and allocates memory. The second captures it in a
    stream of its own; from then on a call is one launch in the current stream, and one more for each `host_break`. The
    arrays must stay where they are, and `step` must hold them. Where no graph can be captured the step is launched
    kernel by kernel, and the logger "gpu_nn" says why, once.
    """
    return _GraphedStep(step).run


def host_break(action: Callable[[], None]) -> None:
    """Call `action` on the host. In a captured step it runs at this place in every call, between two graphs.

    For work that must not become part of a graph: an NCCL all-reduce would have to be captured on all ranks at once,
    whereas one rank alone may have to capture its step again.
    """
    parts = _capture.parts
    if parts is None:
        action()
    else:
        parts += [_capture.stream.end_capture().launch, action]
        _capture.stream.begin_capture()


class _Capture(threading.local):
    """The stream in which this thread captures a step, and the parts captured so far; None outside a capture."""

    stream: Any = None
    parts: list[Callable[[], None]] | None = None


_capture = _Capture()


class _GraphedStep:
    def __init__(self, step: Callable[[], None]):
        self._step = step
        self._parts: list[Callable[[], None]] | None = None  # empty where no graph can be captured
        self._stream: int | None = None  # in which the step has run, so that its scratch memory exists

    def run(self) -> None:
        stream = cupy_module().cuda.get_current_stream()
        if stream.ptr == self._stream and not stream.is_capturing():
            if self._parts is None:
                self._parts = _graphs(self._step, stream.ptr)
            for part in self._parts:
                part()
            if self._parts:
                return
        else:
            self._parts, self._stream = None, stream.ptr
        self._step()


def _graphs(step: Callable[[], None], stream: int) -> list[Callable[[], None]]:
    """The step as launches of CUDA graphs, with the host breaks between them; empty if it cannot be captured."""
    if not cublaslt.available():
        return _without_graph(f"CuPy's own matrix products cannot be captured, and {cublaslt.MISSING}")
    capturing = cupy_module().cuda.Stream(non_blocking=True)
    parts: list[Callable[[], None]] = []
    failure: Exception | None = None
    with capturing, capturing_for(stream):
        _capture.stream, _capture.parts = capturing, parts
        try:
            capturing.begin_capture()
            step()
        except RuntimeError as error:
            failure = error
        finally:
            _capture.stream = _capture.parts = None
            try:
                parts.append(capturing.end_capture().launch)
            except RuntimeError as error:
                failure = failure or error
    return _without_graph(str(failure)) if failure else parts


def _without_graph(why: str) -> list[Callable[[], None]]:
    if why not in _logged:
        _logged.add(why)
        _log.warning("training steps are launched kernel by kernel, not as a CUDA graph: %s", why)
    return []
