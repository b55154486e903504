"""In which types a network keeps its numbers, and in which it computes with them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_nn.device import Device
from gpu_nn.errors import DeviceError, unknown_name
from gpu_nn.kernels import why_no_half_products

DTYPES = ("float32", "float64")
# What `Network(dtype=…)` may be, and the type that layers then work in; and what people call one of them.
PRECISIONS = {name: name for name in DTYPES}
PRECISIONS |= {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16", "tf32": "float32"}
DTYPE_ALIASES = {name: "mixed_bfloat16" for name in ("bfloat16", "bf16")}
DTYPE_ALIASES |= {name: "mixed_float16" for name in ("float16", "fp16", "half")}

# The loss scale of float16 at the start, what it grows to at most, and how: by this factor after so many steps on end
# without an overflow, and back by it at each overflow (Micikevicius et al. 2018).
FIRST_LOSS_SCALE, LARGEST_LOSS_SCALE = 2.0**16, 2.0**24
LOSS_SCALE_FACTOR, LOSS_SCALE_INTERVAL = 2.0, 2000


@dataclass(frozen=True)
class Precision:
    """name: as `Network(dtype=…)` has it.  dtype: of parameters, gradients, optimizer state, logits handed out, losses.
    compute: of the copies of the parameters that layers work with, of activations and their gradients; sums are of
    float32 all the same.
    """

    name: str
    dtype: np.dtype
    compute: np.dtype

    @property
    def tf32(self) -> bool:
        """Whether factors of products of float32 may be rounded to TF32."""
        return self.name == "tf32"

    @property
    def mixed(self) -> bool:
        return self.compute != self.dtype

    @property
    def scales_loss(self) -> bool:
        """Whether small gradients would be rounded to 0: float16 ends at 6e-8, the other types at 1e-38."""
        return self.compute == np.float16


def precision(dtype: Any, device: Device) -> Precision:
    """The precision of that name.

    Raises ValueError for a name that is not known, DeviceError where the device has no such products.
    """
    name = precision_name(dtype)
    if name not in DTYPES:
        problem = why_no_half_products(device)
        if problem:
            raise DeviceError(f"dtype={name!r} on {device.name}, but {problem}")
    return Precision(name, parameter_dtype(name), _numpy_type(PRECISIONS[name]))


def precision_name(dtype: Any) -> str:
    """The name in PRECISIONS of what a `dtype=` may be: that name, or one of NumPy's types.

    Raises ValueError for all else.
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
    """Of parameters and data in the precision of that name."""
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
