"""The rows of a batch, gathered from the data set into the batch's own memory."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from gpu_nn.device import Array
from gpu_nn.kernels.cuda_kernels.launch import Kernel, launch
from gpu_nn.kernels.cuda_kernels.launch_config import CUDA_FLOATS, THREADS, elementwise_grid

_CUDA_TYPES = {"bool": "bool", "uint8": "unsigned char", "int32": "int", "int64": "long long", **CUDA_FLOATS}

# Data become what a network computes in, labels one of the two integers that the loss takes; each may stay as it is.
_HALVES = ("float16", "bfloat16")
_CAST_TO = {
    source: tuple(
        dict.fromkeys(
            (
                source,
                "float32",
                "float64",
                *(("int32", "int64") if "int" in source else ()),
                *(_HALVES if source == "float32" else ()),
            )
        )
    )
    for source in _CUDA_TYPES
}


@cache
def _gather(source: str, out: str) -> Kernel:
    if out not in _CAST_TO.get(source, ()):
        raise TypeError(
            f"no kernel gathers {source} into {out}; there are "
            + "; ".join(f"{source} into {', '.join(outs)}" for source, outs in _CAST_TO.items())
        )
    name = f"gather<{_CUDA_TYPES[source]}, {_CUDA_TYPES[out]}>"
    return Kernel("gather.cu", name, (source, "int64", "int64", out), (np.int64, np.int64))


def every_kernel() -> Iterator[Kernel]:
    """Each instantiation that a launch can request."""
    for source, outs in _CAST_TO.items():
        for out in outs:
            yield _gather(source, out)


def gather(source: Array, order: Array, out: Array, first: Array | None = None) -> None:
    """out_i = source[order[first_0 + i]], cast to the type of out. source: 1-D or 2-D.

    order: row numbers, int64, within range. first: (1,) of int64, the index in the order at which the batch begins;
    None stands for 0 and the whole order.
    """
    kernel = _gather(source.dtype.name, out.dtype.name)
    width = source.shape[1] if source.ndim == 2 else 1
    n = order.size if first is None else len(out)
    arrays, sizes = (source, order, first, out), (source.size, order.size, 1, n * width)
    launch(kernel, elementwise_grid(out.size, out.itemsize), (THREADS,), arrays, sizes, (width, out.size))
