"""A training step as a CUDA graph: captured once, and then launched as a whole."""

import logging
import threading
from collections.abc import Callable
from typing import Any

from gpu_nn.device import cupy_module
from gpu_nn.kernels.cuda_kernels import cublaslt
from gpu_nn.kernels.cuda_kernels.launch_config import capturing_for

_log = logging.getLogger("gpu_nn")
_said: set[str] = set()


def cuda_graph(step: Callable[[], None]) -> Callable[[], None]:
    """`step`, to be called many times with the same arrays and numbers: what changes must lie in device memory.

    The first call runs it as it is, which compiles kernels and makes what memory is missing; the second captures it in
    a stream of its own, and from then on its launches are one, in the current stream, or one more for each action
    `apart`. Its arrays must stay where they are, and `step` must hold them. Where no graph can be made the step is
    launched kernel by kernel, and the log of "gpu_nn" says why, once.
    """
    return _Captured(step).run


def host_break(action: Callable[[], None]) -> None:
    """Do it; of a step that is captured at its place in each run, on the host, with a graph before it and one behind.

    For what must not become part of a graph. NCCL's sums do only on all ranks at once, and a rank may have to capture
    its step anew by itself.
    """
    pieces = _capture.pieces
    if pieces is None:
        action()
    else:
        pieces += [_capture.stream.end_capture().launch, action]
        _capture.stream.begin_capture()


class _Capture(threading.local):
    """The stream in which this thread captures a step, and what it captured so far; both None while it does not."""

    stream: Any = None
    pieces: list[Callable[[], None]] | None = None


_capture = _Capture()


class _Captured:
    def __init__(self, step: Callable[[], None]):
        self._step = step
        self._pieces: list[Callable[[], None]] | None = None  # empty where no graph can be made
        self._stream: int | None = None  # in which it has run, so that scratch memory is there

    def run(self) -> None:
        stream = cupy_module().cuda.get_current_stream()
        if stream.ptr == self._stream and not stream.is_capturing():
            if self._pieces is None:
                self._pieces = _pieces(self._step, stream.ptr)
            for piece in self._pieces:
                piece()
            if self._pieces:
                return
        else:
            self._pieces, self._stream = None, stream.ptr
        self._step()


def _pieces(step: Callable[[], None], stream: int) -> list[Callable[[], None]]:
    """The work of a step as launches of CUDA graphs, with what is done apart between them; none if it cannot be."""
    if not cublaslt.available():
        return _without_graph(f"CuPy's own matrix products cannot be captured, and {cublaslt.MISSING}")
    capturing = cupy_module().cuda.Stream(non_blocking=True)
    pieces: list[Callable[[], None]] = []
    problem: Exception | None = None
    with capturing, capturing_for(stream):
        _capture.stream, _capture.pieces = capturing, pieces
        try:
            capturing.begin_capture()
            step()
        except RuntimeError as error:
            problem = error
        finally:
            _capture.stream = _capture.pieces = None
            try:
                pieces.append(capturing.end_capture().launch)
            except RuntimeError as error:
                problem = problem or error
    return _without_graph(str(problem)) if problem else pieces


def _without_graph(why: str) -> list[Callable[[], None]]:
    if why not in _said:
        _said.add(why)
        _log.warning("training steps are launched kernel by kernel, not as a CUDA graph: %s", why)
    return []
