"""The types in which a network stores its numbers and computes with them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_nn.device import Device
from gpu_nn.errors import DeviceError, unknown_name
from gpu_nn.kernels import why_no_half_products

DTYPES = ("float32", "float64")
# The values of `Network(dtype=…)` with the compute type of the layers; and other common names, for hints in errors.
PRECISIONS = {name: name for name in DTYPES}
PRECISIONS |= {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16", "tf32": "float32"}
DTYPE_ALIASES = {name: "mixed_bfloat16" for name in ("bfloat16", "bf16")}
DTYPE_ALIASES |= {name: "mixed_float16" for name in ("float16", "fp16", "half")}

# The loss scale of float16 (Micikevicius et al. 2018): its first and largest value; the factor that multiplies it after
# an interval of this many steps without an overflow, and divides it at each overflow.
FIRST_LOSS_SCALE, LARGEST_LOSS_SCALE = 2.0**16, 2.0**24
LOSS_SCALE_FACTOR, LOSS_SCALE_INTERVAL = 2.0, 2000


@dataclass(frozen=True)
class Precision:
    """name: the value of `Network(dtype=…)`.  dtype: of parameters, gradients, optimizer state, logits and losses.
    compute: of the copies of the parameters that layers compute with, of activations and their gradients; sums are
    accumulated in float32 also where it is a half type.
    """

    name: str
    dtype: np.dtype
    compute: np.dtype

    @property
    def tf32(self) -> bool:
        """Whether float32 matrix products may round their factors to TF32."""
        return self.name == "tf32"

    @property
    def mixed(self) -> bool:
        return self.compute != self.dtype

    @property
    def scales_loss(self) -> bool:
        """Whether small gradients would underflow: the least float16 is 6e-8, that of the other types about 1e-38."""
        return self.compute == np.float16


def precision(dtype: Any, device: Device) -> Precision:
    """The precision of that name.

    Raises ValueError for an unknown name, DeviceError where the device has no matrix products of that type.
    """
    name = precision_name(dtype)
    if name not in DTYPES:
        problem = why_no_half_products(device)
        if problem:
            raise DeviceError(f"dtype={name!r} on {device.name}, but {problem}")
    return Precision(name, parameter_dtype(name), _numpy_type(PRECISIONS[name]))


def precision_name(dtype: Any) -> str:
    """The key of PRECISIONS for a `dtype=` argument, which is a key or a NumPy type.

    Raises ValueError for anything else.
    """
    if isinstance(dtype, str) and dtype in PRECISIONS:
        return dtype
    try:
        name = "None" if dtype is None else np.dtype(dtype).name
    except TypeError:
        name = dtype
    if name not in DTYPES:
        raise unknown_name("dtype", name, PRECISIONS, DTYPE_ALIASES)
    return name


def parameter_dtype(name: str) -> np.dtype:
    """The dtype of parameters and data in the precision of that name."""
    return np.dtype(name if name in DTYPES else np.float32)


def _numpy_type(name: str) -> np.dtype:
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise DeviceError(
            "bfloat16 needs ml_dtypes: pip install ml_dtypes, or the extra nvmath12 or nvmath13"
        ) from None
    return np.dtype(ml_dtypes.bfloat16)
