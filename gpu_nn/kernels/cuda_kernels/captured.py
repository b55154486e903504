"""A training step as a CUDA graph: captured once, and then launched as a whole."""

import logging
from collections.abc import Callable
from typing import Any

from gpu_nn.device import cupy_module
from gpu_nn.kernels.cuda_kernels import cublaslt
from gpu_nn.kernels.cuda_kernels.shapes import capturing_for

_log = logging.getLogger("gpu_nn")
_said: set[str] = set()


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """`step`, to be called many times with the same arrays and numbers: what changes must lie in device memory.

    The first call runs it as it is, which compiles kernels and makes what memory is missing; the second captures it in
    a stream of its own, and from then on its launches are one, in the current stream. Its arrays must stay where they
    are, and `step` must hold them. Where no graph can be made the step is launched kernel by kernel, and the log of
    "gpu_nn" says why, once.
    """
    return _Captured(step).run


class _Captured:
    def __init__(self, step: Callable[[], None]):
        self._step = step
        self._graph: Any = None
        self._stream: int | None = None  # in which it has run, so that scratch memory is there

    def run(self) -> None:
        stream = cupy_module().cuda.get_current_stream()
        if stream.ptr == self._stream and not stream.is_capturing():
            if self._graph is None:
                self._graph = _graph(self._step, stream.ptr)
            if self._graph:
                self._graph.launch()
                return
        else:
            self._graph, self._stream = None, stream.ptr
        self._step()


def _graph(step: Callable[[], None], stream: int) -> Any:
    """The work of a step as a CUDA graph; False where there can be none."""
    if not cublaslt.available():
        return _without_graph(f"CuPy's own matrix products cannot be captured, and {cublaslt.MISSING}")
    capturing = cupy_module().cuda.Stream(non_blocking=True)
    problem: Exception | None = None
    with capturing, capturing_for(stream):
        capturing.begin_capture()
        try:
            step()
        except (NotImplementedError, RuntimeError) as error:
            problem = error
        finally:
            try:
                graph = capturing.end_capture()
            except RuntimeError as error:
                problem = problem or error
    return _without_graph(str(problem)) if problem else graph


def _without_graph(why: str) -> bool:
    if why not in _said:
        _said.add(why)
        _log.warning("training steps are launched kernel by kernel, not as a CUDA graph: %s", why)
    return False
