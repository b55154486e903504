"""The caller's arrays, validated as scikit-learn does: NumPy arrays, or CuPy arrays that stay on their GPU.

Tensors of other libraries are shared through DLPack, without a copy.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_array, validate_data

from gpu_nn.device import CPU, Array, Device, cupy_module, device_of

# DLPack's device types: kDLCPU and kDLCUDAHost, which NumPy reads; kDLCUDA and kDLCUDAManaged, which CuPy reads.
_HOST_MEMORY, _CUDA_MEMORY = (1, 3), (2, 13)


@dataclass(frozen=True)
class Rows:
    """Inputs, targets and weights of rows on one device; weight is None for 1 each. y: as the caller passed it."""

    x: Array
    targets: Array
    weight: Array | None
    y: Array

    def subset(self, rows: Array) -> "Rows":
        # y is on the host where its labels are text.
        y = self.y[to_device(rows, array_device(self.y))]
        return Rows(self.x[rows], self.targets[rows], None if self.weight is None else self.weight[rows], y)


def array_device(array: Any) -> Device:
    """The GPU that holds `array`; the CPU for everything else, lists and data frames included."""
    return device_of(array) or CPU


def to_device(array: Any, device: Device) -> Any:
    """`array`, or None, on `device`; it is copied only from another device."""
    if array is None or array_device(array).name == device.name:
        return array
    return array.get() if device.kind == "cpu" else device.asarray(array)


def from_dlpack(name: str, array: Any) -> Any:
    """A NumPy or CuPy array that shares the memory of a tensor with DLPack; any other `array` as it is.

    Raises TypeError for a tensor that cannot be shared.
    """
    if device_of(array) is not None or not hasattr(array, "__dlpack_device__"):
        return array
    memory = int(array.__dlpack_device__()[0])
    try:
        if memory in _HOST_MEMORY:
            return np.from_dlpack(array)
        if memory in _CUDA_MEMORY:
            return cupy_module().from_dlpack(array)
    except Exception as error:  # any: each library raises its own, torch a BufferError where a gradient is required
        raise TypeError(f"{name} of {type(array).__name__} cannot be shared through DLPack: {error}") from error
    raise TypeError(
        f"{name} of {type(array).__name__} is in memory of DLPack device type {memory}; expected a host or a CUDA GPU: "
        "copy it there first"
    )


def check_X(estimator: Any, X: Any, *, dtype: np.dtype, reset: bool, name: str = "X") -> Array:
    """X as finite numbers, (n, features): host arrays of `dtype`, GPU arrays of their own dtype.

    scikit-learn's validate_data compares the columns with those of the fit, or with `reset` records them. Raises
    ValueError, and TypeError for sparse data and others, in scikit-learn's words.
    """
    X = from_dlpack(name, X)
    on_host = array_device(X).kind == "cpu"
    if not on_host:
        _check_on_gpu(name, X)
    options = {"dtype": dtype, "order": "C"} if on_host else {"skip_check_array": True}
    try:
        # A number too large for the dtype becomes infinite, which validate_data refuses.
        with np.errstate(over="ignore"):
            validated = validate_data(estimator, X, reset=reset, **options)
    except (TypeError, ValueError) as error:
        if name == "X":
            raise
        # validate_data calls every array X.
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}") from error
    return validated if on_host else X


def _check_on_gpu(name: str, X: Array) -> None:
    """The checks of scikit-learn's check_array; waits for the device once."""
    if X.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} is of {X.dtype}")
    if X.dtype.kind not in "fiub":
        raise TypeError(f"{name} is of {X.dtype}; expected numbers")
    if X.ndim != 2:
        hint = f"Reshape your data: {name}.reshape(1, -1) for one sample, {name}.reshape(-1, 1) for one feature"
        raise ValueError(f"Expected 2D array, got {name} of shape {X.shape}. {hint}")
    for count, of in zip(X.shape, ("sample", "feature"), strict=True):
        if count == 0:
            raise ValueError(f"Found {name} with 0 {of}(s) (shape={X.shape}) while a minimum of 1 is required.")
    device = array_device(X)
    with device.active():
        if X.dtype.kind == "f" and not bool(device.xp.isfinite(X).all()):
            raise ValueError(f"{name} contains NaN or infinity; expected finite numbers: impute or drop them")


def check_y(y: Any, n: int, device: Device, name: str = "y") -> Array:
    """y, (n,) or (n, columns), without NaN: on `device` where both it and y are on a GPU, else on the host."""
    if y is None:
        raise ValueError(f"requires {name} to be passed, but the target {name} is None")
    y = from_dlpack(name, y)
    if array_device(y).kind != "cpu" and device.kind == "cpu":
        y = y.get()
    if array_device(y).kind == "cpu":
        array = y if issparse(y) else np.asarray(y)
        if array.dtype.kind == "O":
            _check_no_missing(name, array)
        # NumPy converts the numbers in a list with text to text.
        if array.dtype.kind in "US" and isinstance(y, list | tuple):
            _check_one_type(name, np.array(y, object))
        y = check_array(y, accept_sparse="csr", ensure_2d=False, dtype=None, input_name=name, ensure_min_samples=0)
        y = y if isinstance(y, np.ndarray) else y.toarray()
        if y.dtype.kind == "O":
            _check_one_type(name, y)
    if y.ndim not in (1, 2):
        raise ValueError(f"{name} has {y.ndim} dimensions; expected (n,) labels or (n, columns) targets")
    if len(y) != n:
        raise ValueError(f"{name} has {len(y)} rows; expected {n}, one for each row of X")
    return y


def _check_no_missing(name: str, y: np.ndarray) -> None:
    """Raises ValueError for None and pandas.NA, which cannot be compared; check_array finds NaN."""
    for i, value in enumerate(y.ravel().tolist()):
        if value is None or type(value).__name__ == "NAType":
            row = i // (y.size // len(y))
            raise ValueError(f"{name} contains {value} instead of a label, first in row {row}: drop or name such rows")


def _check_one_type(name: str, y: np.ndarray) -> None:
    """Raises TypeError for text beside numbers, which cannot be sorted."""
    values = y.ravel().tolist()
    if len({isinstance(value, str) for value in values}) > 1:
        types = ", ".join(sorted({type(value).__name__ for value in values}))
        raise TypeError(f"{name} mixes labels of the types {types}; expected text alone or numbers alone")


def check_classes(classes: Any) -> np.ndarray:
    """The distinct `classes`, sorted, on the host. Raises as `check_y` does."""
    classes = from_dlpack("classes", classes)
    labels = to_device(check_y(classes, len(classes), CPU, "classes"), CPU)
    if labels.ndim != 1:
        raise ValueError(f"classes has shape {labels.shape}; expected (m,), one entry for each class")
    return np.unique(labels)


def check_sample_weight(sample_weight: Any, n: int, device: Device) -> Array | None:
    """sample_weight as float64, (n,), on `device`. Raises ValueError."""
    if sample_weight is None:
        return None
    weight = to_device(from_dlpack("sample_weight", sample_weight), device)
    xp = device.xp
    with device.active():
        weight = xp.asarray(weight, dtype=np.float64)
        if weight.shape != (n,):
            raise ValueError(f"sample_weight has shape {weight.shape}; expected ({n},), one weight for each row of X")
        if not bool((xp.isfinite(weight) & (weight >= 0)).all()):
            raise ValueError("sample_weight has negative, NaN or infinite values; expected finite numbers ≥ 0")
    return weight
