"""Numbers as JSON of a file tells them: a checkpoint may say anything."""

import math
from typing import Any


def whole(name: str, value: Any, least: int = 0) -> int:
    """`value` where it is a whole number from `least` up to 2⁵³, which JSON keeps. Raises ValueError."""
    if type(value) is not int or not least <= value < 2**53:
        raise ValueError(f"{name} is {value!r}; expected a whole number ≥ {least}")
    return value


def number(name: str, value: Any, least: float = 0.0) -> float:
    """`value` as a float where it is a finite number ≥ `least`. Raises ValueError, OverflowError for a huge integer."""
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not (real and math.isfinite(value) and value >= least):
        raise ValueError(f"{name} is {value!r}; expected a finite number{'' if least == -math.inf else f' ≥ {least}'}")
    return float(value)
