"""An array that behaves like CuPy's where that differs from NumPy's, on NumPy's memory."""

import operator
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import work
from ..errors import EmulatorError
from .cuda import check_memory
from .face import METHODS
from .synchronisations import synchronisations, uploads


def unwrap(value: Any) -> Any:
    """NumPy's form of an argument. NumPy arrays themselves are refused: CuPy mixes with none."""
    if isinstance(value, ndarray):
        return value._array
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: CuPy does not mix with NumPy arrays")
    if type(value) in (list, tuple):
        return type(value)(unwrap(member) for member in value)
    return value


def wrap(value: Any) -> Any:
    """CuPy's form of a result. What NumPy returns as a scalar is an array of no dimensions."""
    if isinstance(value, np.ndarray | np.generic):
        return ndarray._of(np.asarray(value))
    if type(value) in (list, tuple):
        return type(value)(wrap(member) for member in value)
    return value


def uninitialised(array: np.ndarray) -> np.ndarray:
    """A new array full of 0xff bytes, NaN in every floating type: what is read before it is written shows."""
    array.reshape(-1).view(np.uint8)[...] = 0xFF
    return array


# Methods that make no new memory.
_VIEWS = frozenset(("diagonal", "ravel", "reshape", "squeeze", "swapaxes", "transpose", "view"))


def submit(name: str, do: Callable[..., Any], *arguments: Any) -> None:
    """Give work on these arguments, NumPy arrays among them, to the device."""
    work.submit(work.Work(name, arguments, do))


def refuse_new_array(name: str) -> None:
    """CuPy allows a new array in a capture, whose memory the graph then does not own: here it is an error."""
    work.refuse_in_capture(f"cupy.{name} makes a new array")


def check_keywords(name: str, allowed: frozenset[str] | None, keywords: dict[str, Any]) -> None:
    """Refuse what CuPy's function does not take; None where nobody knows what it takes."""
    if allowed is None:
        return
    for keyword in keywords.keys() - allowed:
        takes = ", ".join(sorted(allowed))
        raise TypeError(f"{name}() got an unexpected keyword argument {keyword!r}; CuPy's takes {takes}")


def product(operation: Callable[..., Any], name: str, a: np.ndarray, b: np.ndarray, out: np.ndarray | None) -> Any:
    """A matrix product as cuBLAS makes it: 16-bit numbers are summed in float32, and `out` is what CuPy asks for."""
    if work.recording is not None:
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
    dtype = np.result_type(a, b)
    if out is not None and (not out.flags.c_contiguous or out.dtype != dtype):
        raise ValueError(
            f"{name}: out must be C-contiguous and of dtype {dtype}; it is {out.dtype} with strides {out.strides}"
        )
    if dtype.itemsize == 2 and dtype.kind in "fV":
        result = operation(a.astype(np.float32), b.astype(np.float32)).astype(dtype)
    else:
        result = operation(a, b)
    if out is None:
        return result
    submit("gemm", lambda a, b, out: np.copyto(out, result), a, b, out)
    return out


# What lies at the addresses that were asked for, as long as it is there.
_addressed: "weakref.WeakValueDictionary[int, np.ndarray]" = weakref.WeakValueDictionary()


class Memory:
    """``array.data``."""

    def __init__(self, array: np.ndarray):
        self.ptr: int = array.__array_interface__["data"][0]
        while isinstance(array.base, np.ndarray):
            array = array.base
        _addressed[self.ptr] = array


def memory_at(address: int, size: int) -> np.ndarray:
    """The bytes at an address that was taken from ``array.data``."""
    root = _addressed.get(address)
    begin = root.__array_interface__["data"][0] if root is not None else 0
    if root is None or address + size > begin + root.nbytes:
        raise EmulatorError(f"{size} bytes at {address:#x} are not within one array whose address was taken")
    return root.reshape(-1).view(np.uint8)[address - begin :][:size]


class Flags:
    """``array.flags``: the three that CuPy has."""

    def __init__(self, flags: Any):
        self.c_contiguous: bool = flags.c_contiguous
        self.f_contiguous: bool = flags.f_contiguous
        self.owndata: bool = flags.owndata


class ndarray:
    """``cupy.ndarray``. ``_array`` is the NumPy array that it stands for."""

    __slots__ = ("__weakref__", "_array")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: Any = "C"):
        if memptr is not None or strides is not None:
            raise NotImplementedError("the CuPy proxy makes arrays of its own memory only")
        refuse_new_array("ndarray")
        array = np.empty(shape, dtype, order)
        check_memory(array.nbytes)
        self._array = uninitialised(array)

    @classmethod
    def _of(cls, array: np.ndarray) -> "ndarray":
        if array.base is None:
            check_memory(array.nbytes)
        made = object.__new__(cls)
        made._array = array
        return made

    # What tells it from a NumPy array

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from tests.cuda_emulator import cupy_proxy

        if method != "__call__":
            return NotImplemented
        return getattr(cupy_proxy, ufunc.__name__)(*inputs, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from tests.cuda_emulator import cupy_proxy

        if function.__module__ != "numpy" or not hasattr(cupy_proxy, function.__name__):
            return NotImplemented
        return getattr(cupy_proxy, function.__name__)(*args, **kwargs)

    def __cuda_emulator_array__(self) -> np.ndarray:
        return self._array

    def __reduce__(self) -> Any:
        raise TypeError("a pickled CuPy array needs a GPU to be loaded: keep NumPy arrays in pickles and files")

    def __copy__(self) -> "ndarray":
        return ndarray._of(self._array.copy())

    def __deepcopy__(self, memo: Any) -> "ndarray":
        return ndarray._of(self._array.copy())

    # What the host waits for

    def get(
        self, stream: Any = None, order: Any = "C", out: np.ndarray | None = None, blocking: bool = True
    ) -> np.ndarray:
        synchronisations.note(".get()")
        if out is None:
            return self._array.copy(order)
        if out.dtype != self.dtype or out.shape != self.shape:
            raise ValueError(f"out is {out.dtype} of shape {out.shape}, the array {self.dtype} of shape {self.shape}")
        out[...] = self._array
        return out

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype or arr.shape != self.shape:
            raise ValueError(f"set() takes {self.dtype} of shape {self.shape}, not {arr.dtype} of shape {arr.shape}")
        uploads.note(".set()")
        self._array[...] = arr

    def item(self) -> Any:
        synchronisations.note(".item()")
        return self._array.item()

    def tolist(self) -> Any:
        synchronisations.note(".tolist()")
        return self._array.tolist()

    def tobytes(self, order: Any = "C") -> bytes:
        synchronisations.note(".tobytes()")
        return self._array.tobytes(order)

    def nonzero(self) -> Any:
        synchronisations.note(".nonzero()")
        return wrap(self._array.nonzero())

    def __bool__(self) -> bool:
        synchronisations.note("bool()")
        return bool(self._array)

    def __int__(self) -> int:
        synchronisations.note("int()")
        return int(self._array)

    def __float__(self) -> float:
        synchronisations.note("float()")
        return float(self._array)

    def __complex__(self) -> complex:
        synchronisations.note("complex()")
        return complex(self._array)

    def __index__(self) -> int:
        synchronisations.note("an index")
        return operator.index(self._array)

    def __repr__(self) -> str:
        synchronisations.note("repr()")
        return repr(self._array)

    def __str__(self) -> str:
        synchronisations.note("str()")
        return str(self._array)

    # Shape, memory and parts

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @shape.setter
    def shape(self, shape: Any) -> None:
        self._array = self._array.reshape(shape, copy=False)

    @property
    def flags(self) -> Flags:
        return Flags(self._array.flags)

    @property
    def data(self) -> Memory:
        return Memory(self._array)

    @property
    def device(self) -> Any:
        from .cuda import Device

        return Device(0)

    @property
    def base(self) -> "ndarray | None":
        base = self._array.base
        return None if base is None else ndarray._of(base)

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator["ndarray"]:
        return (wrap(part) for part in self._array)

    def __getitem__(self, key: Any) -> "ndarray":
        for part in key if isinstance(key, tuple) else (key,):
            if isinstance(part, ndarray) and part._array.dtype == bool:
                synchronisations.note("indexing by a mask")
        made: ndarray = wrap(self._array[unwrap(key)])
        return made

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        indices = [part._array for part in (key if isinstance(key, tuple) else (key,)) if isinstance(part, ndarray)]
        several = isinstance(value, ndarray) and value.ndim > 0
        if several and len(indices) == 1 and indices[0].dtype != bool and np.unique(indices[0]).size != indices[0].size:
            raise ValueError("duplicate indices in an assignment: CuPy leaves open which value stays")
        place = unwrap(key)
        submit("copy", lambda target, value: target.__setitem__(place, value), self._array, unwrap(value))

    def astype(
        self, dtype: Any, order: Any = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> "ndarray":
        if not copy and self.dtype == dtype:
            return self
        refuse_new_array("ndarray.astype")
        return ndarray._of(self._array.astype(dtype, order))

    def dot(self, b: Any, out: Any = None) -> Any:
        result = product(np.dot, "dot", self._array, unwrap(b), unwrap(out))
        return wrap(result) if out is None else out

    def __getattr__(self, name: str) -> Any:
        if name in METHODS:
            method = getattr(self._array, name, None)
            if method is None:
                raise NotImplementedError(f"cupy.ndarray.{name} is not supplied by the proxy")

            def call(*args: Any, out: "ndarray | None" = None, **kwargs: Any) -> Any:
                check_keywords(name, METHODS[name], kwargs | ({"out": out} if out is not None else {}))
                values, options = unwrap(args), {key: unwrap(value) for key, value in kwargs.items()}
                if name == "fill":
                    return submit("fill", lambda array: array.fill(*values), self._array)
                if out is not None:
                    submit(name, lambda out: method(*values, **options, out=out), unwrap(out))
                    return out
                if name not in _VIEWS:
                    refuse_new_array(f"ndarray.{name}")
                return wrap(method(*values, **options))

            return call
        if name in ("T", "dtype", "imag", "itemsize", "mT", "nbytes", "ndim", "real", "size", "strides"):
            return (
                wrap(getattr(self._array, name)) if name in ("T", "mT", "imag", "real") else getattr(self._array, name)
            )
        raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}")

    def __matmul__(self, other: Any) -> Any:
        return wrap(product(np.matmul, "matmul", self._array, unwrap(other), None))


def _binary(operation: Callable[[Any, Any], Any]) -> Callable[[ndarray, Any], Any]:
    def operate(self: ndarray, other: Any) -> Any:
        refuse_new_array(operation.__name__)
        return wrap(operation(self._array, unwrap(other)))

    return operate


def _reflected(operation: Callable[[Any, Any], Any]) -> Callable[[ndarray, Any], Any]:
    def operate(self: ndarray, other: Any) -> Any:
        refuse_new_array(operation.__name__)
        return wrap(operation(unwrap(other), self._array))

    return operate


def _in_place(operation: Callable[[Any, Any], Any]) -> Callable[[ndarray, Any], ndarray]:
    def operate(self: ndarray, other: Any) -> ndarray:
        submit(operation.__name__, operation, self._array, unwrap(other))
        return self

    return operate


def _unary(operation: Callable[[Any], Any]) -> Callable[[ndarray], Any]:
    def operate(self: ndarray) -> Any:
        refuse_new_array(operation.__name__)
        return wrap(operation(self._array))

    return operate


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "lshift", "rshift", "and", "or", "xor"):
    _operation = getattr(operator, f"__{_name}__")
    setattr(ndarray, f"__{_name}__", _binary(_operation))
    setattr(ndarray, f"__r{_name}__", _reflected(_operation))
    setattr(ndarray, f"__i{_name}__", _in_place(getattr(operator, f"__i{_name}__")))
for _name in ("lt", "le", "eq", "ne", "gt", "ge"):
    setattr(ndarray, f"__{_name}__", _binary(getattr(operator, _name)))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(ndarray, f"__{_name}__", _unary(getattr(operator, _name)))
