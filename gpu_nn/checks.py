"""Numbers that callers give: what passes for one, and the sentence where something does not.

True and False are no numbers here, though Python has them for 1 and 0.
"""

import math
import sys
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np


@dataclass(frozen=True)
class Range:
    """The finite numbers from `low` to `high`, both included; above, below: `low`, `high` itself is left out."""

    low: float = 0
    high: float = math.inf
    above: bool = False
    below: bool = False

    def has(self, value: Any) -> bool:
        """Whether it is a number, of Python or NumPy, in the range."""
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            return False
        # Python's own numbers of any size can be compared with each other, those of NumPy only with their like.
        found = value if isinstance(value, int | float) else value.item()
        if not abs(found) <= sys.float_info.max:
            return False
        least = found > self.low if self.above else found >= self.low
        most = found < self.high if self.below else found <= self.high
        return bool(least and most)

    def __str__(self) -> str:
        low = "" if self.low == -math.inf else f" {'above' if self.above else '≥'} {self.low:g}"
        high = "" if self.high == math.inf else f" {'below' if self.below else '≤'} {self.high:g}"
        return f"a finite number{low}{' and' if low and high else ''}{high}"


NOT_NEGATIVE, POSITIVE, SHARE = Range(0), Range(0, above=True), Range(0, 1)
BELOW_1 = Range(0, 1, below=True)


def number(name: str, value: Any, within: Range = NOT_NEGATIVE, or_what: str = "") -> float:
    """`value` as a float where it is in the range. or_what: what else would do, for the error, or an example.

    Raises ValueError for anything else.
    """
    if not within.has(value):
        raise ValueError(f"{name}={value!r}; expected {within}{or_what}")
    return float(value)


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number by its type, of Python or NumPy."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def whole(name: str, value: Any, least: int, or_what: str = "") -> int:
    """`value` as an int where it is a whole number ≥ `least`. or_what: as of `number`. Raises ValueError."""
    if not (is_whole(value) and value >= least):
        raise ValueError(f"{name}={value!r}; expected a whole number ≥ {least}{or_what}")
    return int(value)


def generator(seed: Any) -> np.random.Generator:
    """`seed` where it is one, else one made of it, as `numpy.random.default_rng` does. Raises ValueError."""
    try:
        if not isinstance(seed, bool | np.bool_):
            return np.random.default_rng(seed)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"seed={seed!r}; expected a whole number ≥ 0, a numpy.random.Generator, or None for any")
