"""The mathematics, arrays in and arrays out: softmax, all-but-one softmax, and the cost with its gradient.

`z` is an (n, m) NumPy or CuPy array of logits, m ≥ 2, of float16, bfloat16 (CuPy), float32 or float64. Results are
arrays of the same library, device and type; half types are computed in float32. A logit of -inf masks its class:
probability 0, gradient 0. NaN or +inf in a row makes that row NaN and no other.

Derivation and numerics: cuda_src/README.md.
"""

from typing import Any

import numpy as np

from gpu_nn.cost import Cost, check_chunk_rows, check_reduction, class_indices
from gpu_nn.device import Array, Device, device_of
from gpu_nn.kernels import kernels_for
from gpu_nn.validation import is_int

# Bytes of logits that linear_softmax_cross_entropy_with_grad holds at a time, at least and at most. In between it takes
# this many rows for each input column, because each chunk reads and writes all of dw.
_CHUNK_BYTES = {"cpu": (1 << 24, 1 << 29), "cuda": (1 << 30, 1 << 34)}
_CHUNK_ROWS_PER_INPUT = 4

# Logits take at most 1/4 of a GPU's free memory: the caller and the fragmentation of the memory pool need the rest.
_FREE_MEMORY_DIVISOR = 4

# The rows of a tile of a matrix product; chunks are multiples of it where they can be.
_TILE_ROWS = 128

_FLOATS = ("float16", "bfloat16", "float32", "float64")


def softmax(z: Array) -> Array:
    """soft(z, j) = e^{z_j} / Σ_s e^{z_s}, (n, m)."""
    return _family("softmax", z)


def log_softmax(z: Array) -> Array:
    """ln soft(z, j) = z_j - ln Σ_s e^{z_s}, (n, m)."""
    return _family("log_softmax", z)


def log1m_softmax(z: Array) -> Array:
    """ln(1 - soft(z, j)) = ln Σ_{s≠j} e^{z_s} - ln Σ_s e^{z_s}, (n, m), without forming 1 - soft(z, j)."""
    return _family("log1m_softmax", z)


def all_but_one_softmax(z: Array, t: Any) -> Array:
    """soft(z_{≠t}, j) = e^{z_j} / Σ_{s≠t} e^{z_s}, (n, m): the softmax of the classes other than t; column t is 0.

    t: one class for all rows, or (n,) integers. Raises ValueError for t outside 0 … m-1 (on a GPU: a row of NaN).
    """
    device, z = _logits(z)
    n, m = z.shape
    xp = device.xp
    with device.active():
        t = class_indices("t", xp.full(n, t) if is_int(t) else t, n, m, None, xp)
        out = xp.empty_like(z)
        kernels_for(device).all_but_one_softmax(z, t.astype(np.int64, copy=False), out)
    return out


def softmax_cross_entropy(
    z: Array,
    y: Any,
    *,
    complement_weight: float = 1.0,
    class_weight: Any = None,
    sample_weight: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: str = "sum",
) -> Array:
    """The cost C = -Σ_r v_r Σ_t w_t [y_t ln p_t + λ (1-y_t) ln(1-p_t)] of logits z and targets y; 0 · ln 0 is 0.

    y: (n,) class indices (integers), or (n, m) targets in [0, 1] that need not add up to 1: one-hot, soft, multi-hot or
    all zero. complement_weight: λ. class_weight: w, (m,). sample_weight: v, (n,). label_smoothing: ε, y becomes
    (1-ε) y + ε/m first. ignore_index: rows with this label have weight 0.
    reduction: "sum", "mean" (over the samples' weights; 0 when these are all 0) or "none".

    Returns a scalar, or (n,) with reduction="none": float32, or float64 for float64 logits.
    Raises TypeError or ValueError for arguments of a wrong type, shape or range. Labels on a GPU are not copied to the
    host to be checked: a row with a label out of range is NaN.
    """
    cost = Cost(complement_weight, class_weight, label_smoothing, ignore_index)
    device, z = _logits(z)
    loss, _ = _loss(device, z, y, cost, sample_weight, reduction, None)
    return loss


def softmax_cross_entropy_with_grad(
    z: Array,
    y: Any,
    *,
    complement_weight: float = 1.0,
    class_weight: Any = None,
    sample_weight: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: str = "sum",
    out: Array | None = None,
) -> tuple[Array, Array]:
    """The cost, as `softmax_cross_entropy`, and its gradient ∂C/∂z in one pass; returns (loss, dz).

    out: where dz goes, C-contiguous, of the shape and type of z; out=z writes the gradient over the logits. With
    reduction="none" row r of dz is the gradient of loss_r.
    """
    cost = Cost(complement_weight, class_weight, label_smoothing, ignore_index)
    device, logits = _logits(z)
    if out is None:
        with device.active():
            out = device.xp.empty_like(logits)
    else:
        _check_out(out, logits)
    return _loss(device, logits, y, cost, sample_weight, reduction, out)


def linear_softmax_cross_entropy_with_grad(
    a: Array,
    w: Array,
    b: Array | None,
    y: Any,
    *,
    complement_weight: float = 1.0,
    class_weight: Any = None,
    sample_weight: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: str = "sum",
    chunk_rows: int | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """The cost of z = a·w + b and its gradients (loss, da, dw, db), holding the logits of chunk_rows rows at a time.

    a: (n, inputs). w: (inputs, m). b: (m,) or None. All of one type, float32 or float64. Other arguments as
    `softmax_cross_entropy`; chunk_rows=None chooses, on a GPU by the memory that is free.

    Gradients: da = ∂C/∂z·wᵀ, dw = aᵀ·∂C/∂z, db = Σ_r ∂C/∂z.
    """
    cost = Cost(complement_weight, class_weight, label_smoothing, ignore_index)
    check_reduction(reduction, single_gradient=True)
    check_chunk_rows(chunk_rows)
    device, a = _array("a", a, 2, ("float32", "float64"))
    xp = device.xp
    w = _like("w", w, a, (a.shape[1], None), device)
    m = w.shape[1]
    if m < 2:
        raise ValueError(f"w has {m} columns; a softmax needs at least 2 classes")
    if b is not None:
        b = _like("b", b, a, (m,), device)
    n = len(a)
    if chunk_rows is None:
        chunk_rows = _chunk_rows(device, n, a.shape[1], m * a.itemsize)
    kernels = kernels_for(device)
    with device.active(f"chunk_rows below {min(chunk_rows, n)} needs less"):
        y, options = cost.prepare(y, sample_weight, reduction, (n, m), xp, a.dtype)
        row_scale = options.pop("row_scale")
        loss = xp.empty(n, a.dtype)
        da, dw = xp.empty_like(a), xp.zeros_like(w)
        db = None if b is None else xp.zeros_like(b)
        logits = xp.empty((min(chunk_rows, n), m), a.dtype)
        for start in range(0, n, chunk_rows):
            rows = slice(start, min(start + chunk_rows, n))
            z = logits[: rows.stop - start]
            kernels.dense(a[rows], w, b, z, z, "identity")
            chunk_scale = None if row_scale is None else row_scale[rows]
            kernels.softmax_cross_entropy(z, y[rows], loss[rows], z, row_scale=chunk_scale, **options)
            kernels.matmul(z, w.T, out=da[rows])
            kernels.matmul_add(a[rows].T, z, out=dw)
            if db is not None:
                kernels.column_sum_add(z, db)
        return _total(loss), da, dw, db


def _chunk_rows(device: Device, n: int, inputs: int, row_bytes: int) -> int:
    """How many rows of logits to hold at a time."""
    least, most = _CHUNK_BYTES[device.kind]
    wanted = min(max(least, _CHUNK_ROWS_PER_INPUT * inputs * row_bytes), most)
    free = device.free_bytes()
    if free is not None:
        wanted = min(wanted, free // _FREE_MEMORY_DIVISOR)
    rows = wanted // row_bytes
    return max(1, min(n, rows - rows % _TILE_ROWS if rows > _TILE_ROWS else rows))


def _logits(z: Array) -> tuple[Device, Array]:
    device, z = _array("z", z, 2, _FLOATS)
    if z.shape[1] < 2:
        raise ValueError(f"z has shape {z.shape}; a softmax needs at least 2 classes (columns)")
    return device, z


def _array(name: str, array: Array, ndim: int, dtypes: tuple[str, ...]) -> tuple[Device, Array]:
    device = device_of(array)
    if device is None:
        raise TypeError(f"{name} is a {type(array).__name__}; expected a NumPy or CuPy array")
    if array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}; expected {ndim} dimensions")
    if array.dtype.name not in dtypes:
        raise TypeError(f"{name} is of {array.dtype}; expected {', '.join(dtypes)}: use {name}.astype('float32')")
    return device, device.asarray(array)


def _like(name: str, array: Array, reference: Array, shape: tuple[int | None, ...], device: Device) -> Array:
    if device_of(array) != device:
        raise TypeError(f"{name} is a {type(array).__name__} on another device than a; bring both to {device}")
    fits = array.ndim == len(shape) and all(s is None or s == got for s, got in zip(shape, array.shape, strict=True))
    if not fits:
        expected = tuple("m" if s is None else s for s in shape)
        raise ValueError(f"{name} has shape {array.shape}; expected {str(expected).replace(chr(39), '')}")
    if array.dtype != reference.dtype:
        raise TypeError(f"{name} is of {array.dtype} and a of {reference.dtype}; expected one type")
    return device.asarray(array)


def _check_out(out: Array, z: Array) -> None:
    if device_of(out) != device_of(z):
        raise TypeError("out is on another device than z, or of another array library")
    if out.shape != z.shape or out.dtype != z.dtype:
        raise ValueError(f"out is {out.shape} of {out.dtype}; expected {z.shape} of {z.dtype}, as z")
    if not out.flags.c_contiguous:
        raise ValueError("out is not C-contiguous; pass a contiguous array, or leave it out")
    # The kernel reads a row before it writes that row: the same memory is safe, a shifted one is not.
    if isinstance(out, np.ndarray) and np.may_share_memory(out, z) and out.ctypes.data != z.ctypes.data:
        raise ValueError("out overlaps z in part; pass out=z, or an array of its own")


def _family(name: str, z: Array) -> Array:
    device, z = _logits(z)
    with device.active():
        out = device.xp.empty_like(z)
        getattr(kernels_for(device), name)(z, out)
    return out


def _loss(
    device: Device, z: Array, y: Any, cost: Cost, sample_weight: Any, reduction: str, dz: Array | None
) -> tuple[Array, Array]:
    check_reduction(reduction)
    dtype = z.dtype if z.dtype == np.float64 else np.dtype(np.float32)
    with device.active():
        y, options = cost.prepare(y, sample_weight, reduction, z.shape, device.xp, dtype)
        loss = device.xp.empty(len(z), dtype)
        kernels_for(device).softmax_cross_entropy(z, y, loss, dz, **options)
        return (loss if reduction == "none" else _total(loss)), dz


def _total(loss: Array) -> Array:
    return loss.sum(dtype=np.float64).astype(loss.dtype)
