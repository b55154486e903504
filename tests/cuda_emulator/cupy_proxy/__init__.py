"""Stands for the module ``cupy`` where there is no GPU: its names, its refusals, and NumPy's results.

    from tests.cuda_emulator import cupy_proxy as cupy

    x = cupy.asarray(host_array)          # the only ways in: array, asarray, asanyarray, .set()
    with cupy.synchronisations.record() as waits:
        loss = (x @ x.T).sum()            # an array of no dimensions, as from CuPy
    assert waits == []                    # and float(loss) would have added "float() at file:line"
    host = x.get()

- Only names that CuPy 14.2 has exist, and functions take only the keywords that CuPy's take; a name that CuPy has and
  the proxy does not supply raises NotImplementedError when it is called.
- NumPy arrays do not mix with these, and these turn into NumPy arrays by ``get`` and ``asnumpy`` alone.
- ``synchronisations`` counts what makes the host wait (float, bool, int, item, get, tolist, printing, masks, nonzero,
  unique, synchronize); ``uploads`` counts copies from the host.
- ``empty`` holds NaN bytes. An assignment with duplicate indices, which CuPy leaves undefined, and an index out of
  bounds, which it wraps, are errors. ``out=`` of a matrix product must be C-contiguous and of the result's type.
- While a stream is captured, work is recorded and not done: what waits, copies from the host, calls cuBLAS by CuPy or
  makes a new array is an error. ``Graph.launch`` replays it, and finds memory that was freed.
- ``RawModule`` is the CUDA emulator's, which takes these arrays. The device is changed inside
  ``with device_attributes(MultiProcessorCount=4):``, and inside ``with memory_limit(2**20):`` a larger array is CuPy's
  OutOfMemoryError.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..module import RawKernel as _Kernel
from ..module import RawModule as _Module
from ..work import refuse_in_capture
from .arrays import check_keywords, ndarray, product, refuse_new_array, submit, uninitialised, unwrap, wrap
from .cuda import MemoryPool, attributes, cuda, device_attributes, memory_limit
from .face import FUNCTIONS, GENERATOR, NAMES, NUMPYS_OWN, VERSION
from .synchronisations import synchronisations, uploads

__all__ = ["cuda", "device_attributes", "memory_limit", "ndarray", "synchronisations", "uploads"]
__version__ = VERSION

# These need a size or a value on the host.
_WAITING = frozenset(
    (
        *("argwhere", "bincount", "compress", "extract", "flatnonzero", "histogram", "histogramdd", "nonzero"),
        *("repeat", "unique", "array2string", "array_repr", "array_str", "save", "savez", "savetxt"),
    )
)
# NumPy answers these by Python's bool, CuPy by an array.
_BOOLEAN = frozenset(("allclose", "array_equal", "array_equiv"))
_pool, _pinned_pool = MemoryPool(), MemoryPool()


def array(
    object: Any,
    dtype: Any = None,
    copy: bool = True,
    order: Any = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> ndarray:
    if isinstance(object, ndarray):
        return ndarray._of(np.array(object._array, dtype, copy=copy or None, order=order, ndmin=ndmin))
    if isinstance(object, list | tuple) and any(isinstance(member, ndarray) for member in object):
        return ndarray._of(np.array(unwrap(object), dtype, order=order, ndmin=ndmin))
    uploads.note("array()")
    return ndarray._of(np.array(object, dtype, order=order, ndmin=ndmin))


def asarray(
    a: Any, dtype: Any = None, order: Any = None, *, copy: bool | None = None, blocking: bool = False
) -> ndarray:
    if isinstance(a, ndarray) and not copy and (dtype is None or a.dtype == dtype) and order in (None, "K", "A"):
        return a
    return array(a, dtype, copy=bool(copy), order=order or "K", blocking=blocking)


asanyarray = asarray


def asnumpy(a: Any, stream: Any = None, order: Any = "C", out: Any = None, *, blocking: bool = True) -> np.ndarray:
    if isinstance(a, ndarray):
        return a.get(stream, order, out, blocking)
    return np.asarray(a, order=order)


def empty(shape: Any, dtype: Any = float, order: Any = "C") -> ndarray:
    return ndarray(shape, dtype, order=order)


def empty_like(
    prototype: ndarray, dtype: Any = None, order: Any = "K", subok: Any = None, shape: Any = None
) -> ndarray:
    refuse_new_array("empty_like")
    return ndarray._of(uninitialised(np.empty_like(unwrap(prototype), dtype, order, shape=shape)))


def matmul(x1: ndarray, x2: ndarray, /, out: ndarray | None = None) -> ndarray:
    result = product(np.matmul, "matmul", unwrap(x1), unwrap(x2), unwrap(out))
    return wrap(result) if out is None else out


def dot(a: ndarray, b: ndarray, out: ndarray | None = None) -> ndarray:
    result: ndarray = a.dot(b, out)
    return result


def get_array_module(*args: Any) -> Any:
    from tests.cuda_emulator import cupy_proxy

    return cupy_proxy if any(isinstance(argument, ndarray) for argument in args) else np


def get_default_memory_pool() -> MemoryPool:
    return _pool


def get_default_pinned_memory_pool() -> MemoryPool:
    return _pinned_pool


class RawModule(_Module):
    """The CUDA emulator's, within the shared memory of this device."""

    def __init__(self, **arguments: Any):
        super().__init__(shared_memory_limit=attributes["MaxSharedMemoryPerBlockOptin"], **arguments)


def RawKernel(code: str, name: str, options: tuple[str, ...] = (), backend: str = "nvrtc", **arguments: Any) -> _Kernel:
    return RawModule(code=code, options=options, backend=backend, **arguments).get_function(name)


class _Generator:
    """``cupy.random.Generator``: NumPy's numbers, CuPy's names."""

    def __init__(self, seed: Any):
        self._generator = np.random.default_rng(seed)

    def __getattr__(self, name: str) -> Any:
        if name not in GENERATOR:
            raise AttributeError(f"'cupy.random.Generator' object has no attribute {name!r}")
        method = getattr(self._generator, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            refuse_in_capture("cuRAND")
            return wrap(method(*unwrap(args), **kwargs))

        return call


class random:
    """``cupy.random``, as far as it is a generator."""

    Generator = _Generator

    @staticmethod
    def default_rng(seed: Any = None) -> _Generator:
        return _Generator(seed)


def _delegate(name: str) -> Callable[..., Any]:
    function, allowed = getattr(np, name, None), FUNCTIONS.get(name)

    def call(*args: Any, **kwargs: Any) -> Any:
        if function is None:
            raise NotImplementedError(f"cupy.{name} is not supplied by the CuPy proxy")
        check_keywords(name, allowed, kwargs)
        if isinstance(function, np.ufunc) and any(isinstance(argument, list | tuple) for argument in args):
            raise TypeError(f"cupy.{name}: Unsupported type {list}; pass arrays")
        if name in _WAITING:
            synchronisations.note(f"cupy.{name}()")
        out = kwargs.pop("out", None)
        values, options = unwrap(args), {key: unwrap(value) for key, value in kwargs.items()}
        if out is not None:
            submit(name, lambda out, *values: function(*values, **options, out=out), unwrap(out), *values)
            return out
        if name == "copyto":
            submit(name, function, *values)
            return None
        refuse_new_array(name)
        result = function(*values, **options)
        for argument in args:
            if isinstance(argument, ndarray) and argument._array is result:
                return argument
        return ndarray._of(np.asarray(result)) if name in _BOOLEAN else wrap(result)

    call.__name__ = call.__qualname__ = name
    return call


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")
    if name in NUMPYS_OWN:
        return getattr(np, name)
    counterpart = getattr(np, name, None)
    if counterpart is not None and not callable(counterpart):
        return counterpart
    made = globals()[name] = _delegate(name)
    return made
