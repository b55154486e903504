"""Checks what a kernel is launched with against its parameters, and lays it out in memory as CUDA would."""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import EmulatorError

# Which NumPy kinds stand for a kernel's element; bfloat16 is ml_dtypes' (kind V) or its bits in uint16.
KINDS = {"f": "f", "i": "i", "u": "u", "b": "b", "h": "f"}


class RawParameter(ctypes.Structure):
    """cuda_emulator::Parameter."""

    _fields_ = (
        ("element", ctypes.c_char),
        ("pointer", ctypes.c_bool),
        ("writable", ctypes.c_bool),
        ("element_bytes", ctypes.c_int),
        ("bytes", ctypes.c_int),
        ("type", ctypes.c_char_p),
    )


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel."""

    number: int
    element: str
    pointer: bool
    writable: bool
    element_bytes: int
    size: int
    type: str

    @classmethod
    def read(cls, number: int, raw: RawParameter) -> "Parameter":
        # GCC writes "... type_name() [with T = const float*]".
        name = raw.type.decode().partition("T = ")[2].removesuffix("]")
        return cls(number, raw.element.decode(), raw.pointer, raw.writable, raw.element_bytes, raw.bytes, name)

    def refuse(self, came: str) -> EmulatorError:
        return EmulatorError(f"parameter {self.number} is {self.type!r}: {came}")

    def takes_elements_of(self, dtype: np.dtype[Any]) -> bool:
        """Whether an array of this dtype is an array of the parameter's elements (a vector's are its components)."""
        if self.element == "v":
            return True
        if self.element == "g":
            return dtype.name == "bfloat16" or dtype == np.uint16
        if self.element == "s":
            return dtype.itemsize == self.size
        return dtype.kind == KINDS[self.element] and dtype.itemsize == self.element_bytes

    def array(self, value: Any) -> np.ndarray[Any, Any]:
        """The NumPy array behind an argument for a pointer, after all checks."""
        array: np.ndarray[Any, Any] = value if isinstance(value, np.ndarray) else value.__cuda_emulator_array__()
        fault = ""
        if not self.pointer:
            fault = " where one value is taken"
        elif not self.takes_elements_of(array.dtype):
            fault = "; its dtype is another"
        elif not array.flags.c_contiguous:
            fault = f" with strides {array.strides}; a kernel ignores strides: make it C-contiguous"
        elif self.writable and not array.flags.writeable:
            fault = " that is read-only, and the kernel may write to it"
        elif not array.dtype.isnative:
            fault = " in the other byte order"
        if fault:
            raise self.refuse(f"an array of {array.dtype}, shape {array.shape} came{fault}")
        return array

    def scalar(self, value: Any) -> bytes:
        """The bytes of an argument by value. Python's numbers are int64 and float64 to CuPy, whatever is taken."""
        if value is None:
            raise self.refuse("None came; CuPy passes no valid argument for it (a null pointer is np.intp(0))")
        if not isinstance(value, bool | int | float | np.generic | np.ndarray):
            raise self.refuse(f"{type(value).__name__} came, which no kernel takes")
        scalar = np.asarray(value)
        kind, size = scalar.dtype.kind, scalar.dtype.itemsize
        fault = ""
        if self.pointer:
            if kind not in "iu" or size != 8:
                fault = "an address has 8 bytes"
        elif size != self.size:
            fault = f"it takes {self.size} bytes"
        elif self.element in "iu" and kind in "iu":
            limits = np.iinfo(f"{self.element}{self.size}")
            if not limits.min <= int(scalar) <= limits.max:
                fault = "it does not hold that number"
        elif not (self.element == "v" and kind in "iu") and not self.takes_elements_of(scalar.dtype):
            fault = "it is another kind of number"
        if fault:
            came = f"{scalar.dtype} {value!r} came ({size} bytes)"
            if type(value) in (int, float):
                came += (
                    f"; a Python {type(value).__name__} is passed so: wrap it in a NumPy type of the parameter's width"
                )
            raise self.refuse(f"{came}; {fault}")
        return scalar.tobytes()


def is_array(value: Any) -> bool:
    """Whether an argument is passed by pointer: a NumPy array with elements, or an object that stands for one."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0 or value.dtype.names is None  # a structure is passed by value
    return hasattr(value, "__cuda_emulator_array__")


class Region(ctypes.Structure):
    """cuda_emulator::Region: memory that the kernel may touch."""

    _fields_ = (
        ("begin", ctypes.c_size_t),
        ("end", ctypes.c_size_t),
        ("writable", ctypes.c_int),
        ("argument", ctypes.c_int),
    )


class Arguments:
    """A launch's arguments: the array of pointers to values that CUDA takes, and what keeps them alive."""

    def __init__(self, parameters: list[Parameter], values: tuple[Any, ...]):
        if len(values) != len(parameters):
            types = ", ".join(parameter.type for parameter in parameters)
            raise EmulatorError(f"{len(values)} arguments came for {len(parameters)} parameters ({types})")
        self.arrays: list[tuple[Parameter, np.ndarray[Any, Any]]] = []
        self.addresses_by_value = False
        storage: list[Any] = []
        self.pointers = (ctypes.c_void_p * max(1, len(values)))()
        self.array_slots: list[ctypes.c_size_t] = []
        for i, (parameter, value) in enumerate(zip(parameters, values, strict=True)):
            slot: Any
            if is_array(value):
                array = parameter.array(value)
                slot = ctypes.c_size_t(array.__array_interface__["data"][0])
                self.arrays.append((parameter, array))
                self.array_slots.append(slot)
            else:
                data = parameter.scalar(value)
                self.addresses_by_value |= parameter.pointer and any(data)
                # Eight-byte words, so that every parameter is aligned at least as its type asks.
                slot = (ctypes.c_uint64 * (-(-len(data) // 8)))()
                ctypes.memmove(slot, data, len(data))
            storage.append(slot)
            self.pointers[i] = ctypes.addressof(slot)
        self._storage = storage

    def outputs(self) -> list[tuple[Parameter, np.ndarray[Any, Any]]]:
        """The arrays that the kernel may write."""
        return [(parameter, array) for parameter, array in self.arrays if parameter.writable]
