"""Kinds of values on the command line. Each refuses a wrong value before any work is done, saying what it expected."""

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable

from gpu_nn.errors import not_one_of
from gpu_nn.training import Every

# The kernels count columns in 32 bits.
_WIDEST = 2**31 - 1

# What --data and --target say of themselves.
SOURCES = "npz, npy, CSV, Parquet or IDX"
TARGET = (
    "column with the labels, by name or number (default: target, label, class or y, else the last); for npy their file"
)

# Units of `interval`: what is counted, and how many of it one of them is.
_UNITS: dict[str, tuple[str, int]] = {
    "": ("epochs", 1),
    "epochs": ("epochs", 1),
    "steps": ("steps", 1),
    "seconds": ("seconds", 1),
    "s": ("seconds", 1),
    "m": ("seconds", 60),
    "h": ("seconds", 3600),
}


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A whole number from low to high, both included."""
    bounds = f"≥ {low}" if high is None else f"from {low} to {high}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or (high is not None and value > high):
            raise ArgumentTypeError(f"{text!r}; expected a whole number {bounds}")
        return value

    return read


def number(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> Callable[[str], float]:
    """A finite number from low to high; above, below: low, high itself is left out."""
    bounds = f"above {low:g}" if above else f"≥ {low:g}"
    if high < math.inf:
        bounds += f" and below {high:g}" if below else f" and ≤ {high:g}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        within = (low < value if above else low <= value) and (value < high if below else value <= high)
        if not (within and math.isfinite(value)):
            raise ArgumentTypeError(f"{text!r}; expected a finite number {bounds}")
        return value

    return read


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """One of the names; the error names the nearest."""
    known = tuple(names)

    def read(text: str) -> str:
        if text not in known:
            raise ArgumentTypeError(not_one_of(text, known))
        return text

    return read


def widths(text: str) -> list[int]:
    """Whole numbers such as 256,128; none for an empty text."""
    width = whole(1, _WIDEST)
    try:
        return [width(part) for part in text.split(",")] if text.strip() else []
    except ArgumentTypeError:
        expected = f"whole numbers from 1 to {_WIDEST}, such as 256,128"
        raise ArgumentTypeError(f"{text!r}; expected {expected}") from None


def file_name(*suffixes: str) -> Callable[[str], str]:
    """A file's name that ends in one of the suffixes."""

    def read(text: str) -> str:
        if not text.endswith(suffixes):
            raise ArgumentTypeError(f"{text!r}; expected a name that ends in {' or '.join(suffixes)}")
        return text

    return read


def interval(text: str) -> Every:
    """Epochs (5), steps (500steps) or a time (30s, 10m, 2h)."""
    match = re.fullmatch(r"(\d{1,12}) *(\w*)", text, re.ASCII)
    if not (match and match[2] in _UNITS and int(match[1])):
        raise ArgumentTypeError(f"{text!r}; expected epochs, steps or a time, such as 5, 500steps, 30s, 10m, 2h")
    what, factor = _UNITS[match[2]]
    return Every(**{what: int(match[1]) * factor})
