"""``cupy.cublas``: the product that adds to what is there."""

from typing import Any

from .arrays import ndarray


def gemm(
    transa: str, transb: str, a: ndarray, b: ndarray, out: ndarray | None = None, alpha: float = 1.0, beta: float = 0.0
) -> ndarray:
    """out = alpha · op(a)·op(b) + beta · out, of float32 or float64 only; op is the transpose where trans is "T"."""
    if a.dtype != b.dtype or a.dtype.name not in ("float32", "float64"):
        raise TypeError(f"gemm takes two arrays of float32 or of float64, not {a.dtype} and {b.dtype}")
    product: Any = alpha * ((a.T if transa == "T" else a) @ (b.T if transb == "T" else b))
    if out is None:
        return product
    if out.dtype != a.dtype or out.shape != product.shape:
        raise ValueError(f"out is {out.shape} of {out.dtype}; expected {product.shape} of {a.dtype}")
    out[...] = product + beta * out
    return out
