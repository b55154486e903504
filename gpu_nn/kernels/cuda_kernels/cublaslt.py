"""Matrix products by cublasLt, through nvmath-python: a CUDA graph may contain them, and they fuse an epilogue.

cublasLt's matrices are column-major. A row-major array is the column-major transpose of itself, so out = a·b is
computed as outᵀ = bᵀ·aᵀ: its A is our b, its B is our a, and its bias, one number for each row of outᵀ, has one for
each of our columns. Layouts and algorithm of a problem are cached; the workspace is scratch memory, allocated before a
capture.
"""

import sys
from functools import cache, lru_cache
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from gpu_nn.device import Array, cupy_module
from gpu_nn.kernels.cuda_kernels.launch_config import ceil_div, scratch

_CUDA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
MISSING = (
    "nvmath-python is not installed: pip install 'gpu_nn[nvmath12]' beside cuda12x, 'gpu_nn[nvmath13]' beside cuda13x"
)

# NVIDIA's recommendation for sm_90; older architectures need less.
_WORKSPACE_BYTES = 32 << 20
# No algorithm requires more.
_MAX_ALIGNMENT = 256
_NOT_SUPPORTED = 15
# Rows of a bit mask are multiples of this many bits.
MASK_BITS = 128


class Problem(NamedTuple):
    """out (n, m) = a (n, k) · b (k, m): everything on which a plan depends."""

    n: int
    k: int
    m: int
    a_transposed: bool  # the memory is that of the transpose
    b_transposed: bool
    dtype: str  # of a and b
    out_dtype: str
    add: bool
    epilogue: str  # a name of cublasLt's Epilogue
    tf32: bool
    alignments: tuple[int, int, int]  # of a, b and out
    bias: int  # addresses, part of the description: threads that share a plan must not change them
    mask: int


class _Plan(NamedTuple):
    description: int
    layouts: tuple[int, int, int]  # of cublasLt's A, B and D
    algorithm: Any
    workspace_bytes: int
    factors: np.ndarray  # alpha and beta


def available() -> bool:
    """Whether nvmath-python and cublasLt are installed."""
    bindings = _bindings()
    return bindings is not None and _handle(bindings, _current_device()) is not None


def gemm(
    a: Array,
    b: Array,
    out: Array,
    *,
    add: bool = False,
    epilogue: str = "DEFAULT",
    bias: Array | None = None,
    mask: Array | None = None,
    tf32: bool = False,
) -> bool:
    """out = a·b, or out += a·b where `add`; False, with nothing done, where cublasLt has no algorithm.

    a and b: C-contiguous, or transposed views. epilogue: "BIAS" and "RELU_BIAS" add bias, (m,), to each row, and the
    latter then applies ReLU; "BGRADA" stores Σ_r b_rj in bias. "RELU_AUX_BIAS" also stores in mask, (n, bytes) with
    rows of whole MASK_BITS, a bit for each number of out. "DRELU" sets numbers to 0 whose bit is not set, and
    "DRELU_BGRAD" then stores Σ_r out_rj in bias, of the type of out.
    """
    bindings = _bindings()
    if bindings is None or 0 in out.shape or 0 in a.shape:
        return False
    handle, (n, k), m = _handle(bindings, _current_device()), a.shape, b.shape[1]
    a_transposed, b_transposed = _is_transposed(a), _is_transposed(b)
    if handle is None or a_transposed is None or b_transposed is None:
        return False
    addresses = a.data.ptr, b.data.ptr, out.data.ptr
    problem = Problem(
        n,
        k,
        m,
        a_transposed,
        b_transposed,
        a.dtype.name,
        out.dtype.name,
        add,
        epilogue,
        tf32,
        (_alignment(addresses[0]), _alignment(addresses[1]), _alignment(addresses[2])),
        bias=0 if bias is None else bias.data.ptr,
        mask=0 if mask is None else mask.data.ptr,
    )
    plan = _plan(bindings, handle, problem)
    if plan is None:
        return False
    alpha, beta = plan.factors.ctypes.data, plan.factors.ctypes.data + plan.factors.itemsize
    workspace = scratch(out, "uint8", plan.workspace_bytes).data.ptr if plan.workspace_bytes else 0
    a_layout, b_layout, d_layout = plan.layouts
    bindings.cublasLt.matmul(
        handle,
        plan.description,
        alpha,
        addresses[1],
        a_layout,
        addresses[0],
        b_layout,
        beta,
        addresses[2],
        d_layout,
        addresses[2],
        d_layout,
        plan.algorithm.ptr,
        workspace,
        plan.workspace_bytes,
        cupy_module().cuda.get_current_stream().ptr,
    )
    return True


def _bindings() -> Any:
    """nvmath.bindings, with cublas and cublasLt imported; None where it is not installed."""
    if "nvmath.bindings.cublasLt" not in sys.modules:
        return _imported()
    return sys.modules["nvmath.bindings"]  # None where the import has been disabled


@cache
def _imported() -> Any:
    try:
        bindings = import_module("nvmath.bindings")
        import_module("nvmath.bindings.cublas")
        import_module("nvmath.bindings.cublasLt")
    except ImportError:
        return None
    return bindings


def _current_device() -> int:
    device: int = cupy_module().cuda.get_device_id()
    return device


@cache
def _handle(bindings: Any, device: int) -> int | None:
    """A handle of the current device; None where nvmath is installed but the library it loads is not."""
    try:
        handle: int = bindings.cublasLt.create()
    except RuntimeError:  # NotFoundError and NotSupportedError of nvmath
        return None
    return handle


def _alignment(address: int) -> int:
    return min(address & -address, _MAX_ALIGNMENT)


def _is_transposed(array: Array) -> bool | None:
    """Whether the memory is that of the transpose; None where it is neither that nor the array's own."""
    if array.flags.c_contiguous:
        return False
    return True if array.flags.f_contiguous else None


@lru_cache(maxsize=4096)
def _plan(bindings: Any, handle: int, problem: Problem) -> _Plan | None:
    lt = bindings.cublasLt
    double = problem.dtype == "float64"
    compute = bindings.cublas.ComputeType
    of_float = compute.COMPUTE_32F_FAST_TF32 if problem.tf32 and problem.dtype == "float32" else compute.COMPUTE_32F
    scale = np.dtype(np.float64 if double else np.float32)
    description = lt.matmul_desc_create(compute.COMPUTE_64F if double else of_float, _CUDA_TYPES[scale.name])
    attribute = lt.MatmulDescAttribute
    _set(lt, attribute.TRANSA, description, int(problem.b_transposed))
    _set(lt, attribute.TRANSB, description, int(problem.a_transposed))
    _set(lt, attribute.EPILOGUE, description, lt.Epilogue[problem.epilogue])
    if problem.bias:
        _set(lt, attribute.BIAS_POINTER, description, problem.bias)
    n, k, m = problem.n, problem.k, problem.m
    if problem.mask:
        _set(lt, attribute.EPILOGUE_AUX_POINTER, description, problem.mask)
        _set(lt, attribute.EPILOGUE_AUX_LD, description, ceil_div(m, MASK_BITS) * MASK_BITS)
    cuda_type = _CUDA_TYPES[problem.dtype]
    layouts = (
        _layout(lt, cuda_type, (k, m) if problem.b_transposed else (m, k)),
        _layout(lt, cuda_type, (n, k) if problem.a_transposed else (k, n)),
        _layout(lt, _CUDA_TYPES[problem.out_dtype], (m, n)),
    )
    algorithm = _algorithm(lt, handle, description, layouts, problem.alignments)
    if algorithm is None:
        return None
    factors = np.array([1, problem.add], scale)
    return _Plan(description, layouts, algorithm, int(algorithm.workspace_size), factors)


def _algorithm(
    lt: Any, handle: int, description: int, layouts: tuple[int, int, int], alignments: tuple[int, int, int]
) -> Any:
    """cublasLt's choice of the fastest algorithm; None where it has none."""
    attribute, preference = lt.MatmulPreferenceAttribute, lt.matmul_preference_create()
    a, b, out = alignments
    attributes = {
        attribute.MAX_WORKSPACE_BYTES: np.uint64(_WORKSPACE_BYTES),
        attribute.MIN_ALIGNMENT_A_BYTES: np.uint32(b),
        attribute.MIN_ALIGNMENT_B_BYTES: np.uint32(a),
        attribute.MIN_ALIGNMENT_C_BYTES: np.uint32(out),
        attribute.MIN_ALIGNMENT_D_BYTES: np.uint32(out),
    }
    for name, value in attributes.items():
        held = np.array([value])
        lt.matmul_preference_set_attribute(preference, name, held.ctypes.data, held.nbytes)
    found, count = lt.MatmulHeuristicResult(), np.zeros(1, np.int32)
    a_layout, b_layout, d_layout = layouts
    try:
        lt.matmul_algo_get_heuristic(
            handle, description, a_layout, b_layout, d_layout, d_layout, preference, 1, found.ptr, count.ctypes.data
        )
    except lt.cuBLASLtError as error:
        if error.status != _NOT_SUPPORTED:
            raise
    finally:
        lt.matmul_preference_destroy(preference)
    return found if count[0] else None


def _layout(lt: Any, cuda_type: int, shape: tuple[int, int]) -> int:
    """A column-major matrix without padding."""
    layout: int = lt.matrix_layout_create(cuda_type, *shape, shape[0])
    return layout


def _set(lt: Any, attribute: Any, description: int, value: int) -> None:
    types = {
        "EPILOGUE": np.uint32,
        **dict.fromkeys(("BIAS_POINTER", "EPILOGUE_AUX_POINTER", "EPILOGUE_AUX_LD"), np.int64),
    }
    held = np.array([value], types.get(attribute.name, np.int32))
    lt.matmul_desc_set_attribute(description, attribute, held.ctypes.data, held.nbytes)
