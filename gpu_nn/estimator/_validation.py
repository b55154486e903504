"""What callers hand over, brought to one of two forms: a NumPy array, or a CuPy array that stays on its GPU.

Tensors of other libraries come in through DLPack, which shares their memory.
"""

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_array, validate_data

from gpu_nn.device import CPU, Array, Device, cupy_module, device_of

# DLPack's numbers of the kinds of memory that NumPy and CuPy can read: host and pinned host, CUDA and CUDA managed.
_HOST_MEMORY, _CUDA_MEMORY = (1, 3), (2, 13)


def place(array: Any) -> Device:
    """The GPU on which `array` lies; the CPU for everything else, lists and data frames included."""
    return device_of(array) or CPU


def opened(name: str, array: Any) -> Any:
    """`array` as it is, or a tensor that speaks DLPack as a NumPy or CuPy array over the same memory.

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
    except Exception as error:
        # Each library raises its own kind, torch a BufferError for a tensor that requires a gradient.
        raise TypeError(f"{name} of {type(array).__name__} cannot be shared through DLPack: {error}") from error
    raise TypeError(
        f"{name} of {type(array).__name__} lies in memory of DLPack's kind {memory}; expected a host or a CUDA GPU: "
        "bring it there first"
    )


def moved(array: Any, device: Device) -> Any:
    """`array`, None included, with its memory on `device`; it is not copied when it already is there."""
    if array is None or place(array).name == device.name:
        return array
    if device.kind == "cpu":
        return array.get()
    return device.asarray(array)


def inputs(estimator: Any, X: Any, *, dtype: np.dtype, reset: bool, name: str = "X") -> Array:
    """X as finite numbers, (n, features): host data of `dtype`, GPU data of their own type.

    Columns are compared with those that the estimator was fitted on, or noted when `reset`. Raises ValueError and
    TypeError, sparse data among the latter, in scikit-learn's words.
    """
    X = opened(name, X)
    device = place(X)
    if device.kind == "cpu":
        # A number too large for the type becomes infinite, and is then refused as such.
        with np.errstate(over="ignore"):
            return _validated(name, estimator, X, dtype=dtype, order="C", reset=reset)
    _check_on_gpu(name, X, device)
    _validated(name, estimator, X, reset=reset, skip_check_array=True)
    return X


def _validated(name: str, estimator: Any, X: Any, **options: Any) -> Any:
    """scikit-learn's validate_data, for which every input is called X."""
    try:
        return validate_data(estimator, X, **options)
    except (TypeError, ValueError) as error:
        if name == "X":
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}") from error


def labels(y: Any, n: int, device: Device, name: str = "y") -> Array:
    """y, (n,) or (n, columns), without NaN, on the host, or on `device` where both it and y are on a GPU."""
    if y is None:
        raise ValueError(f"requires {name} to be passed, but the target {name} is None")
    y = opened(name, y)
    if place(y).kind != "cpu" and device.kind == "cpu":
        y = y.get()
    if place(y).kind == "cpu":
        came = y if issparse(y) else np.asarray(y)
        if came.dtype.kind == "O":
            _check_present(name, came)
        # NumPy makes text of all that stands beside text in a list.
        if came.dtype.kind in "US" and isinstance(y, list | tuple):
            _check_alike(name, np.array(y, object))
        y = check_array(y, accept_sparse="csr", ensure_2d=False, dtype=None, input_name=name, ensure_min_samples=0)
        y = y if isinstance(y, np.ndarray) else y.toarray()
        if y.dtype.kind == "O":
            _check_alike(name, y)
    if y.ndim not in (1, 2):
        raise ValueError(f"{name} has {y.ndim} dimensions; expected (n,) labels or (n, columns) targets")
    if len(y) != n:
        raise ValueError(f"{name} has {len(y)} rows; expected {n}, one for each row of X")
    return y


def class_names(classes: Any) -> np.ndarray:
    """`classes`, sorted, on the host, each once. Raises as `labels` does."""
    classes = opened("classes", classes)
    found = moved(labels(classes, len(classes), CPU, "classes"), CPU)
    if found.ndim != 1:
        raise ValueError(f"classes has shape {found.shape}; expected (m,), one entry for each class")
    return np.unique(found)


def _check_present(name: str, y: np.ndarray) -> None:
    """None and pandas.NA, of which no comparison is true or false; NaN is found by scikit-learn."""
    for i, value in enumerate(y.ravel().tolist()):
        if value is None or type(value).__name__ == "NAType":
            row = i // (y.size // len(y))
            raise ValueError(f"{name} contains {value} instead of a label, first in row {row}: drop or name such rows")


def _check_alike(name: str, y: np.ndarray) -> None:
    """Labels as objects have to be of one kind, or no order of the classes exists."""
    values = y.ravel().tolist()
    text = {isinstance(value, str) for value in values}
    if len(text) > 1:
        kinds = ", ".join(sorted({type(value).__name__ for value in values}))
        raise TypeError(f"{name} mixes labels of the kinds {kinds}; expected text alone or numbers alone")


def row_weights(sample_weight: Any, n: int, device: Device) -> Array | None:
    """sample_weight as float64, (n,), on `device`."""
    if sample_weight is None:
        return None
    weight = moved(opened("sample_weight", sample_weight), device)
    xp = device.xp
    with device.active():
        weight = xp.asarray(weight, dtype=np.float64)
        if weight.shape != (n,):
            raise ValueError(f"sample_weight has shape {weight.shape}; expected ({n},), one weight for each row of X")
        if not bool((xp.isfinite(weight) & (weight >= 0)).all()):
            raise ValueError("sample_weight has negative, NaN or infinite values; expected finite numbers ≥ 0")
    return weight


def _check_on_gpu(name: str, X: Array, device: Device) -> None:
    """What scikit-learn's check_array does for host data; the device is waited for once."""
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
    with device.active():
        if X.dtype.kind == "f" and not bool(device.xp.isfinite(X).all()):
            raise ValueError(f"{name} contains NaN or infinity; expected finite numbers: impute or drop them")
