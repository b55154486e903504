"""Stands for nvmath.bindings where there is no GPU: cublasLt's matrix product as its manual defines it.

    with nvmath_bindings.installed():
        from nvmath.bindings import cublasLt

Matrices are column-major with a leading dimension, and only their addresses come: D = epilogue(alpha·op(A)·op(B) +
beta·C). Only attributes and types in use are known. What cublasLt leaves undefined or refuses is an EmulatorError: a
layout that runs past its array, an address less aligned than the preference said, a workspace too small or missing, an
algorithm of another problem. `refused` holds epilogues for which no algorithm is found, as on some real devices;
`relu_of_nan` is what its ReLU makes of NaN, and `mask_of_zero` the bit of its mask for 0, which the manual leaves open.
"""

import ctypes
import enum
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from .cupy_proxy.arrays import memory_at
from .errors import EmulatorError
from .work import Work, submit


class ComputeType(enum.IntEnum):
    COMPUTE_32F = 68
    COMPUTE_32F_FAST_TF32 = 77
    COMPUTE_64F = 70


class Epilogue(enum.IntEnum):
    DEFAULT = 1
    RELU = 2
    BIAS = 4
    RELU_BIAS = 6
    RELU_AUX_BIAS = 134
    DRELU = 136
    DRELU_BGRAD = 152
    BGRADA = 256
    BGRADB = 512


class MatmulDescAttribute(enum.IntEnum):
    TRANSA = 3
    TRANSB = 4
    EPILOGUE = 7
    BIAS_POINTER = 8
    EPILOGUE_AUX_POINTER = 11
    EPILOGUE_AUX_LD = 12


class MatmulPreferenceAttribute(enum.IntEnum):
    MAX_WORKSPACE_BYTES = 1
    MIN_ALIGNMENT_A_BYTES = 5
    MIN_ALIGNMENT_B_BYTES = 6
    MIN_ALIGNMENT_C_BYTES = 7
    MIN_ALIGNMENT_D_BYTES = 8


_NOT_SUPPORTED = 15
_WORKSPACE_BYTES = 1 << 20  # what this algorithm asks for

_DESCRIPTION = {
    MatmulDescAttribute.TRANSA: np.int32,
    MatmulDescAttribute.TRANSB: np.int32,
    MatmulDescAttribute.EPILOGUE: np.uint32,
    MatmulDescAttribute.BIAS_POINTER: np.int64,
    MatmulDescAttribute.EPILOGUE_AUX_POINTER: np.int64,
    MatmulDescAttribute.EPILOGUE_AUX_LD: np.int64,
}
_POINTERS = (MatmulDescAttribute.BIAS_POINTER, MatmulDescAttribute.EPILOGUE_AUX_POINTER)
_WITH_MASK = (Epilogue.RELU_AUX_BIAS, Epilogue.DRELU, Epilogue.DRELU_BGRAD)
_WITHOUT_BIAS = (Epilogue.DEFAULT, Epilogue.RELU, Epilogue.DRELU)
_PREFERENCE = {
    name: np.uint64 if name is MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES else np.uint32
    for name in MatmulPreferenceAttribute
}


class cuBLASLtError(Exception):
    def __init__(self, status: int):
        self.status = status
        super().__init__(f"cublasLt status {status}")


class MatmulHeuristicResult:
    """An algorithm, in memory that C would read: here the number of the problem that it is for."""

    def __init__(self, size: int = 1):
        self._memory = np.zeros(16 * size, np.int64)
        self.ptr: int = self._memory.ctypes.data

    @property
    def workspace_size(self) -> int:
        return int(self._memory[1])


@dataclass(frozen=True)
class _Layout:
    dtype: np.dtype
    rows: int
    columns: int
    leading: int


@dataclass
class _Attributes:
    """A descriptor or a preference: the values that were set."""

    types: Any = None  # of computing and of scaling
    values: dict[int, int] = field(default_factory=dict)


_objects: dict[int, Any] = {}
_problems: list[tuple[Any, ...]] = []
refused: set[int] = set()
relu_of_nan = float("nan")
mask_of_zero = False


def _kept(made: Any) -> int:
    _objects[len(_objects) + 1] = made
    return len(_objects)


def _dtype(cuda_type: int) -> np.dtype:
    if cuda_type == 14:
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype({0: np.float32, 1: np.float64, 2: np.float16}[cuda_type])


def create() -> int:
    return _kept("handle")


def matmul_desc_create(compute_type: int, scale_type: int) -> int:
    return _kept(_Attributes((ComputeType(compute_type), _dtype(scale_type))))


def matmul_preference_create() -> int:
    return _kept(_Attributes())


def matmul_preference_destroy(preference: int) -> None:
    _objects[preference] = None


def matrix_layout_create(type: int, rows: int, cols: int, ld: int) -> int:
    if not 0 < rows <= ld or cols < 1:
        raise cuBLASLtError(7)
    return _kept(_Layout(_dtype(type), rows, cols, ld))


def _set(target: int, dtypes: Any, attribute: int, buffer: int, size: int) -> None:
    dtype = np.dtype(dtypes[attribute])
    if size != dtype.itemsize:
        raise cuBLASLtError(7)
    _objects[target].values[attribute] = int(np.frombuffer(ctypes.string_at(buffer, size), dtype)[0])


def matmul_desc_set_attribute(desc: int, attr: int, buf: int, size_in_bytes: int) -> None:
    _set(desc, _DESCRIPTION, attr, buf, size_in_bytes)


def matmul_preference_set_attribute(pref: int, attr: int, buf: int, size_in_bytes: int) -> None:
    _set(pref, _PREFERENCE, attr, buf, size_in_bytes)


def _problem(desc: int, *layouts: int) -> tuple[Any, ...]:
    """What an algorithm is for: all but the addresses."""
    values = {name: value for name, value in _objects[desc].values.items() if name not in _POINTERS}
    return (_objects[desc].types, tuple(sorted(values.items())), *(_objects[layout] for layout in layouts))


def matmul_algo_get_heuristic(
    handle: int, desc: int, a: int, b: int, c: int, d: int, preference: int, count: int, results: int, returned: int
) -> None:
    values = _objects[desc].values
    if values.get(MatmulDescAttribute.EPILOGUE, Epilogue.DEFAULT) in refused:
        raise cuBLASLtError(_NOT_SUPPORTED)
    if values.get(MatmulDescAttribute.EPILOGUE) in _WITH_MASK:
        layout, leading = _objects[d], values.get(MatmulDescAttribute.EPILOGUE_AUX_LD, 0)
        if leading % 128 or leading < layout.rows or not values.get(MatmulDescAttribute.EPILOGUE_AUX_POINTER):
            raise cuBLASLtError(7)
        summed = _objects[a].rows if values.get(MatmulDescAttribute.TRANSA) else _objects[a].columns
        # On real devices there is no way for it.
        if summed == 1 and values[MatmulDescAttribute.EPILOGUE] != Epilogue.RELU_AUX_BIAS:
            raise cuBLASLtError(_NOT_SUPPORTED)
    wishes = _objects[preference].values
    room = wishes.get(MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES, 0)
    alignment = tuple(
        wishes.get(MatmulPreferenceAttribute[f"MIN_ALIGNMENT_{matrix}_BYTES"], 256) for matrix in ("A", "B", "C", "D")
    )
    _problems.append((_problem(desc, a, b, c, d), alignment))
    found = np.array([len(_problems), min(room, _WORKSPACE_BYTES)])
    ctypes.memmove(results, found.ctypes.data, found.nbytes)
    ctypes.memmove(returned, np.ones(1, np.int32).ctypes.data, 4)


def matmul(
    light_handle: int,
    compute_desc: int,
    alpha: int,
    a: int,
    adesc: int,
    b: int,
    bdesc: int,
    beta: int,
    c: int,
    cdesc: int,
    d: int,
    ddesc: int,
    algo: int,
    workspace: int,
    workspace_size_in_bytes: int,
    stream: int,
) -> None:
    from .cupy_proxy.cuda import Stream

    if _objects[light_handle] != "handle" or stream != Stream._stack[-1].ptr:
        raise EmulatorError("cublasLt works with another handle or in another stream than the current one")
    number, room = np.frombuffer(ctypes.string_at(algo, 16), np.int64)
    problem, alignment = _problems[number - 1]
    if problem != _problem(compute_desc, adesc, bdesc, cdesc, ddesc):
        raise EmulatorError("an algorithm was chosen for another problem than the one that it works on")
    if workspace_size_in_bytes < room or (room and memory_at(workspace, int(room)).size != room):
        raise EmulatorError(f"a workspace of {workspace_size_in_bytes} bytes for an algorithm that needs {room}")
    for name, address, least in zip("ABCD", (a, b, c, d), alignment, strict=True):
        if address % least:
            raise EmulatorError(f"{name} at {address:#x} is not aligned to {least} bytes, as the preference said")
    (compute, scale), values = _objects[compute_desc].types, _objects[compute_desc].values
    if scale != (np.float64 if compute == ComputeType.COMPUTE_64F else np.float32):
        raise cuBLASLtError(_NOT_SUPPORTED)
    factors = [
        scale.type(np.frombuffer(ctypes.string_at(number, scale.itemsize), scale)[0]) for number in (alpha, beta)
    ]
    matrices = [_matrix(address, _objects[of]) for address, of in ((a, adesc), (b, bdesc), (c, cdesc), (d, ddesc))]
    epilogue = Epilogue(values.get(MatmulDescAttribute.EPILOGUE, Epilogue.DEFAULT))
    transposed = [values.get(name, 0) for name in (MatmulDescAttribute.TRANSA, MatmulDescAttribute.TRANSB)]
    bias = mask = None
    layout = _objects[ddesc]
    if epilogue in _WITH_MASK:
        leading = values[MatmulDescAttribute.EPILOGUE_AUX_LD]
        mask = _mask(values[MatmulDescAttribute.EPILOGUE_AUX_POINTER], leading, layout.columns)
    if epilogue not in _WITHOUT_BIAS:
        length = layout.columns if epilogue == Epilogue.BGRADB else layout.rows
        bias = _vector(values[MatmulDescAttribute.BIAS_POINTER], layout.dtype, length)

    def do(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, bias: Any, mask: Any) -> None:
        if compute == ComputeType.COMPUTE_32F_FAST_TF32:
            a, b = _tf32(a), _tf32(b)
        with np.errstate(all="ignore"):
            a, b = a.T if transposed[0] else a, b.T if transposed[1] else b
            _multiply(a, b, c, d, bias, mask, factors, epilogue, scale)

    name = "gemm" if epilogue == Epilogue.DEFAULT else f"gemm, {epilogue.name.lower()}"
    submit(Work(name, (*matrices, bias, mask), do))


def _matrix(address: int, layout: _Layout) -> np.ndarray:
    """The column-major matrix there, as a view."""
    item = layout.dtype.itemsize
    memory = memory_at(address, ((layout.columns - 1) * layout.leading + layout.rows) * item)
    shape, strides = (layout.rows, layout.columns), (item, layout.leading * item)
    return np.ndarray(shape, layout.dtype, memory, 0, strides)


def _mask(address: int, leading: int, columns: int) -> np.ndarray:
    """The bits there, (columns, leading / 8) bytes: those of a column of D, the lowest bit of a byte first."""
    return memory_at(address, columns * leading // 8).view(np.uint8).reshape(columns, leading // 8)


def _vector(address: int, dtype: np.dtype, length: int) -> np.ndarray:
    return memory_at(address, length * dtype.itemsize).view(dtype)


def _tf32(a: np.ndarray) -> np.ndarray:
    """float32 with 10 bits after the point, to the nearest."""
    bits = np.ascontiguousarray(a).view(np.uint32)
    return ((bits + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)).view(np.float32)


def _multiply(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    d: np.ndarray,
    bias: np.ndarray | None,
    mask: np.ndarray | None,
    factors: list[Any],
    epilogue: Epilogue,
    scale: np.dtype,
) -> None:
    if a.shape[1] != b.shape[0] or d.shape != (a.shape[0], b.shape[1]) or c.shape != d.shape:
        raise EmulatorError(f"matrices {a.shape} · {b.shape} + {c.shape} do not make {d.shape}")
    alpha, beta = factors
    # The transpose of the product, as NumPy would make it of row-major matrices: the same BLAS call.
    wide_a, wide_b = a.astype(scale, copy=False), b.astype(scale, copy=False)
    product = np.matmul(wide_b.T, wide_a.T).T
    result = product if alpha == 1 else alpha * product
    if beta:
        result = result + beta * c.astype(scale)
    if epilogue in (Epilogue.BIAS, Epilogue.RELU_BIAS, Epilogue.RELU_AUX_BIAS) and bias is not None:
        result = result + bias.astype(scale)[:, None]
    if mask is not None and epilogue == Epilogue.RELU_AUX_BIAS:
        positive = result >= 0 if mask_of_zero else result > 0
        bits = np.packbits(positive, axis=0, bitorder="little").T
        mask[:, : bits.shape[1]] = bits  # what lies beyond is nobody's
    elif mask is not None:
        kept = np.unpackbits(mask, axis=1, count=len(result), bitorder="little").T
        result = np.where(kept, result, scale.type(0))
    if epilogue in (Epilogue.RELU, Epilogue.RELU_BIAS, Epilogue.RELU_AUX_BIAS):
        result = np.where(np.isnan(result), scale.type(relu_of_nan), np.maximum(result, 0))
    if bias is not None and epilogue == Epilogue.BGRADA:
        bias[...] = wide_a.sum(axis=1, dtype=scale).astype(bias.dtype)
    if bias is not None and epilogue == Epilogue.DRELU_BGRAD:
        bias[...] = result.sum(axis=1, dtype=scale).astype(bias.dtype)
    if bias is not None and epilogue == Epilogue.BGRADB:
        bias[...] = wide_b.sum(axis=0, dtype=scale).astype(bias.dtype)
    d[...] = result.astype(d.dtype)


def _modules() -> dict[str, ModuleType]:
    nvmath, bindings, cublas = (ModuleType(name) for name in ("nvmath", "nvmath.bindings", "nvmath.bindings.cublas"))
    vars(cublas)["ComputeType"] = ComputeType
    vars(bindings).update(cublas=cublas, cublasLt=sys.modules[__name__])
    vars(nvmath)["bindings"] = bindings
    modules = {"nvmath": nvmath, "nvmath.bindings": bindings, "nvmath.bindings.cublas": cublas}
    return modules | {"nvmath.bindings.cublasLt": sys.modules[__name__]}


@contextmanager
def installed(there: bool = True) -> Iterator[None]:
    """While it lasts, `nvmath.bindings` is this; where not `there`, it cannot be imported, installed or not."""
    modules: dict[str, Any] = _modules()
    before = {name: sys.modules.pop(name) for name in modules if name in sys.modules}
    put: dict[str, Any] = modules if there else dict.fromkeys(modules)
    sys.modules.update(put)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]
        sys.modules.update(before)
