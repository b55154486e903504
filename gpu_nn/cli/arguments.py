"""Kinds of values on the command line. Each refuses a wrong value before any work is done, saying what it expected."""

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gpu_nn.errors import not_one_of
from gpu_nn.training import Trigger
from gpu_nn.validation import Interval

# The kernels count columns in 32 bits.
_WIDEST = 2**31 - 1

# What --data and --target say of themselves.
SOURCES = "npz, npy, CSV, Parquet or IDX"
TARGET = (
    "column with the labels, by name or number (default: target, label, class or y, else the last); for npy their file"
)

# What --stream says of itself.
STREAMED = "read npy and Parquet rows as they are needed: auto, for sets over half of the free memory; always; never"

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


@dataclass(frozen=True)
class Kind:
    """A kind of value, read from text.

    types, said: what it may be in a configuration file, and the words for that.  separator: what stands between the
    entries of a list there in the text of the flag; None where the flag is given again for each.
    """

    read: Callable[[str], Any]
    types: tuple[type, ...]
    said: str
    separator: str | None = None

    def __call__(self, text: str) -> Any:
        """The value; raises ArgumentTypeError for a text that is none."""
        return self.read(text)


TEXT = Kind(str, (str,), "text")
COLUMN = Kind(str, (str, int), "a column's name or number, or a file")


def whole(low: int, high: int | None = None) -> Kind:
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

    return Kind(read, (int,), "a whole number")


def number(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> Kind:
    """A finite number from low to high; above, below: low, high itself is left out."""
    within = Interval(low, high, above, below)

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if value not in within:
            raise ArgumentTypeError(f"{text!r}; expected {within}")
        return value

    return Kind(read, (int, float), "a number")


def one_of(names: Iterable[str], meant: Mapping[str, str] | None = None) -> Kind:
    """One of the names; the error names the nearest. meant: names that people use for a known one."""
    known = tuple(names)

    def read(text: str) -> str:
        if text not in known:
            raise ArgumentTypeError(not_one_of(text, known, meant))
        return text

    return Kind(read, (str,), "a name")


STREAM = one_of(("auto", "always", "never"))


def _widths(text: str) -> list[int]:
    width = whole(1, _WIDEST)
    try:
        return [width(part) for part in text.split(",")] if text.strip() else []
    except ArgumentTypeError:
        expected = f"whole numbers from 1 to {_WIDEST}, such as 256,128"
        raise ArgumentTypeError(f"{text!r}; expected {expected}") from None


# Whole numbers such as 256,128; none for an empty text.
widths = Kind(_widths, (int, list), "a list of whole numbers", ",")


def file_name(*suffixes: str) -> Kind:
    """A file's name that ends in one of the suffixes."""

    def read(text: str) -> str:
        if not text.endswith(suffixes):
            raise ArgumentTypeError(f"{text!r}; expected a name that ends in {' or '.join(suffixes)}")
        return text

    return Kind(read, (str, list), "a file's name or a list of them")


def _interval(text: str) -> Trigger:
    return _every(text, ("epochs", "steps", "seconds"), "epochs, steps or a time, such as 5, 500steps, 30s, 10m, 2h")


def _duration(text: str) -> Trigger:
    return _every(text, ("epochs", "steps"), "epochs or steps, such as 2, 500steps")


def _every(text: str, counted: tuple[str, ...], expected: str) -> Trigger:
    match = re.fullmatch(r"(\d{1,12}) *(\w*)", text, re.ASCII)
    what, factor = _UNITS.get(match[2], ("", 0)) if match else ("", 0)
    if not (match and what in counted and int(match[1])):
        raise ArgumentTypeError(f"{text!r}; expected {expected}")
    return Trigger(**{what: int(match[1]) * factor})


# Epochs (5), steps (500steps) or a time (30s, 10m, 2h).
interval = Kind(_interval, (int, str), "epochs, or a text such as 30s")

# Epochs (2) or steps (500steps).
duration = Kind(_duration, (int, str), "epochs, or a text such as 500steps")
