"""Labels as a file gives them, and as indices of classes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_nn.errors import DataError

# Up to here every whole number is a float64 of its own.
_LARGEST_WHOLE = 2**53

# Arrays of text take the longest label's room for each: a text column taken for the target must not cost memory.
_LONGEST = 256

# How numbers are written, whole or as floats: 7, -1, 1.0, 1e+01. With zeros or a sign before them, as in 01 beside 1,
# they are codes, which differ.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Labels:
    """classes: the different labels, in order, numbers or text. codes: (n,) of int64, the index of each row's."""

    classes: np.ndarray
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)


def labels_from_array(where: str, y: np.ndarray, first: int = 0) -> Labels:
    """`y`, (n,), as labels. where: the name, for errors, of all of them, and first: the number there of y[0]. Raises
    DataError for what is neither whole numbers nor text.
    """
    if y.dtype.kind == "f":
        y = _whole(where, y, first)
    elif y.dtype.kind == "S":
        try:
            y = np.char.decode(y, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{where} holds bytes that are not UTF-8 text: {error}") from None
    elif y.dtype.kind not in "iubU":
        raise DataError(f"{where} is of {y.dtype}; expected whole numbers or names")
    classes, codes = np.unique(y, return_inverse=True)
    return Labels(classes, codes.reshape(-1))


def labels_from_text(where: str, texts: Sequence[str], codes: np.ndarray) -> Labels:
    """Rows whose labels are texts[codes]: numbers where all are whole numbers as they are written, else names."""
    long = max(texts, key=len)
    if len(long) > _LONGEST:
        raise DataError(
            f"{where} has a label of {len(long)} characters, {long[:20]!r} …; expected names of up to {_LONGEST}: "
            "is another column the target?"
        )
    found = labels_from_array(where, _numbers(where, texts))
    return Labels(found.classes, found.codes[codes])


def encode_labels(name: str, labels: Labels, classes: Any, first: int = 0) -> np.ndarray:
    """Labels as indices into `classes`, (n,) of int64. first: the number of their first row. Raises DataError for one
    that is not there.
    """
    index = {value: i for i, value in enumerate(np.asarray(classes).tolist())}
    places = np.array([index.get(value, -1) for value in labels.classes.tolist()], np.int64)
    if (places < 0).any():
        at = int(np.argmax(places[labels.codes] < 0))
        known = ", ".join(map(str, list(index)[:10])) + (" …" if len(index) > 10 else "")
        label = labels.classes[labels.codes[at]]
        raise DataError(f"{name}: label {label} at row {first + at} is not a class of the model: {known}")
    return places[labels.codes]


def _numbers(where: str, texts: Sequence[str]) -> np.ndarray:
    """The texts as whole numbers where all of them are that, else as they are."""
    # Python reads 1_000 as a number; nobody else does.
    if any("_" in text for text in texts):
        return np.array(texts, str)
    try:
        numbers = np.array([float(text) for text in texts])
    except ValueError:
        return np.array(texts, str)
    fraction = (numbers != np.floor(numbers)) | np.isinf(numbers)
    if fraction.any():
        raise DataError(f"{where} has {texts[int(fraction.argmax())]}, not a class; expected whole numbers or names")
    if not all(map(_NUMBER.fullmatch, texts)):
        return np.array(texts, str)
    try:
        return np.array([int(text) for text in texts], np.int64)
    except OverflowError:
        return np.array(texts, str)
    except ValueError:
        return _whole(where, numbers, 0)


def _whole(where: str, y: np.ndarray, first: int) -> np.ndarray:
    """Floats that are whole numbers as integers."""
    largest = min(_LARGEST_WHOLE, float(np.finfo(y.dtype).max))
    whole = (y == np.floor(y)) & (np.abs(y) <= largest)
    if not whole.all():
        at = int(np.argmin(whole))
        raise DataError(f"{where}[{first + at}] is {y[at]}, not a class; expected whole numbers or names")
    return y.astype(np.int64)
