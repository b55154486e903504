"""Checks of numbers: of arguments, and of what the JSON of a file holds.

bool is not a number here, though Python counts True as 1 and False as 0.
"""

import math
import sys
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

# JSON keeps integers below this exactly.
_MAX_JSON_INT = 2**53


@dataclass(frozen=True)
class Interval:
    """The finite numbers from `low` to `high`, both included; above, below: `low`, `high` itself is left out."""

    low: float = 0
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: Any) -> bool:
        """Whether `value` is a number, of Python or NumPy, in the interval."""
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            return False
        # Python compares its own numbers of any size with each other, NumPy's only with numbers of NumPy's range.
        number = value if isinstance(value, int | float) else value.item()
        if not abs(number) <= sys.float_info.max:
            return False
        above_low = number > self.low if self.above else number >= self.low
        below_high = number < self.high if self.below else number <= self.high
        return bool(above_low and below_high)

    def __str__(self) -> str:
        low = "" if self.low == -math.inf else f" {'above' if self.above else '≥'} {self.low:g}"
        high = "" if self.high == math.inf else f" {'below' if self.below else '≤'} {self.high:g}"
        return f"a finite number{low}{' and' if low and high else ''}{high}"


FINITE, NON_NEGATIVE, POSITIVE = Interval(-math.inf), Interval(0), Interval(0, above=True)
UNIT_INTERVAL, BELOW_1 = Interval(0, 1), Interval(0, 1, below=True)


def check_number(name: str, value: Any, interval: Interval = NON_NEGATIVE, alternative: str = "") -> float:
    """`value` as a float. alternative: what else the error offers, or an example.

    Raises ValueError where `value` is not a number in the interval.
    """
    if value not in interval:
        raise ValueError(f"{name}={value!r}; expected {interval}{alternative}")
    return float(value)


def is_int(value: Any) -> TypeGuard[int]:
    """Whether the type of `value` is an integer of Python or NumPy."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_int(name: str, value: Any, minimum: int, alternative: str = "") -> int:
    """`value` as an int. alternative: as for `check_number`. Raises ValueError where it is not an integer ≥ minimum."""
    if not (is_int(value) and value >= minimum):
        raise ValueError(f"{name}={value!r}; expected a whole number ≥ {minimum}{alternative}")
    return int(value)


def check_json_int(name: str, value: Any, minimum: int = 0) -> int:
    """`value`, read from JSON, as an int. Raises ValueError where it is not an integer from `minimum` to 2⁵³ - 1."""
    if check_int(name, value, minimum) >= _MAX_JSON_INT:
        raise ValueError(f"{name}={value!r}; expected a whole number below 2⁵³")
    return int(value)


def random_generator(seed: Any) -> np.random.Generator:
    """`seed` itself where it is a Generator, else `numpy.random.default_rng(seed)`. Raises ValueError."""
    try:
        if not isinstance(seed, bool | np.bool_):
            return np.random.default_rng(seed)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"seed={seed!r}; expected a whole number ≥ 0, a numpy.random.Generator, or None for any")
