"""In which types a network keeps its numbers, and in which it computes with them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_nn.device import Device
from gpu_nn.errors import DeviceError, unknown_name
from gpu_nn.kernels import why_no_half_products

DTYPES = ("float32", "float64")
MIXED = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}

# The loss scale of float16 at the start, what it grows to at most, and how: by this factor after so many steps on end
# without an overflow, and back by it at each overflow (Micikevicius et al. 2018).
FIRST_LOSS_SCALE, LARGEST_LOSS_SCALE = 2.0**16, 2.0**24
LOSS_SCALE_FACTOR, LOSS_SCALE_INTERVAL = 2.0, 2000


@dataclass(frozen=True)
class Precision:
    """name: as `Network(dtype=…)` has it.  dtype: of parameters, gradients, optimizer state, logits handed out, losses.
    compute: of the copies of the parameters that layers work with, of activations and their gradients; sums are of
    float32 all the same.  tf32: factors of products of float32 may be rounded to TF32.
    """

    name: str
    dtype: np.dtype
    compute: np.dtype
    tf32: bool = False

    @property
    def mixed(self) -> bool:
        return self.compute != self.dtype

    @property
    def scales_loss(self) -> bool:
        """Whether small gradients would be rounded to 0: float16 ends at 6e-8, the other types at 1e-38."""
        return self.compute == np.float16


def precision(dtype: Any, tf32: bool, device: Device) -> Precision:
    """The precision of that name.

    Raises ValueError for a name that is not known and for tf32 with another type than float32, DeviceError where the
    device has no such products.
    """
    if isinstance(dtype, str) and dtype in MIXED:
        found = Precision(dtype, np.dtype(np.float32), _half(MIXED[dtype]))
    else:
        kind = np.dtype(dtype)
        if kind.name not in DTYPES:
            raise unknown_name("dtype", kind.name, (*DTYPES, *MIXED))
        found = Precision(kind.name, kind, kind, bool(tf32))
    if tf32 and found.name != "float32":
        raise ValueError(f"tf32=True goes with dtype='float32', not with {found.name!r}: leave it out")
    if found.mixed or found.tf32:
        asked = f"dtype={found.name!r}" if found.mixed else "tf32=True"
        problem = why_no_half_products(device)
        if problem:
            raise DeviceError(f"{asked} on {device.name}, but {problem}")
    return found


def _half(name: str) -> np.dtype:
    if name == "float16":
        return np.dtype(np.float16)
    try:
        import ml_dtypes
    except ImportError:
        raise DeviceError(
            "bfloat16 needs ml_dtypes: pip install ml_dtypes, or the extra nvmath12 or nvmath13"
        ) from None
    return np.dtype(ml_dtypes.bfloat16)
