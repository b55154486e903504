"""Labels as read from a file, and as class indices."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_nn.errors import DataError

# float64 represents every integer up to here exactly.
_MAX_EXACT_INT = 2**53

# NumPy pads each text of an array to the longest: a column of long texts, taken for the target, must not fill memory.
_MAX_LABEL_LENGTH = 256

# Numbers: 7, -1, 1.0, 1e+01. Texts with leading zeros or a plus sign are codes: 01 and 1 are different labels.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Labels:
    """classes: the unique labels, sorted, numbers or text.  codes: (n,) of int64, the index of each row's class."""

    classes: np.ndarray
    codes: np.ndarray


def labels_from_array(where: str, y: np.ndarray, first: int = 0) -> Labels:
    """`y`, (n,), as labels. where: the array's name, for errors; first: the index of y[0] in it.

    Raises DataError for labels that are neither whole numbers nor text.
    """
    if y.dtype.kind == "f":
        y = _to_int(where, y, first)
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
    """The labels texts[codes]: as numbers where all texts are whole numbers, else as names."""
    longest = max(texts, key=len)
    if len(longest) > _MAX_LABEL_LENGTH:
        raise DataError(
            f"{where} has a label of {len(longest)} characters, {longest[:20]!r} …; "
            f"expected names of up to {_MAX_LABEL_LENGTH}: is another column the target?"
        )
    unique = labels_from_array(where, _numbers_or_texts(where, texts))
    return Labels(unique.classes, unique.codes[codes])


def encode_labels(name: str, labels: Labels, classes: Any, first: int = 0) -> np.ndarray:
    """The index of each label in `classes`, (n,) of int64. name: of the data; first: the row of the first label.

    Raises DataError for a label that is not among the classes.
    """
    index = {value: i for i, value in enumerate(np.asarray(classes).tolist())}
    indices = np.array([index.get(value, -1) for value in labels.classes.tolist()], np.int64)
    if (indices < 0).any():
        at = int(np.argmax(indices[labels.codes] < 0))
        known = ", ".join(map(str, list(index)[:10])) + (" …" if len(index) > 10 else "")
        label = labels.classes[labels.codes[at]]
        raise DataError(f"{name}: label {label} at row {first + at} is not a class of the model: {known}")
    return indices[labels.codes]


def _numbers_or_texts(where: str, texts: Sequence[str]) -> np.ndarray:
    """The texts as integers where all of them are whole numbers, else unchanged."""
    # float() accepts 1_000, other readers do not.
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
        return _to_int(where, numbers, 0)


def _to_int(where: str, y: np.ndarray, first: int) -> np.ndarray:
    """Floats as integers. Raises DataError for one that is not a whole number."""
    largest = min(_MAX_EXACT_INT, float(np.finfo(y.dtype).max))
    is_integer = (y == np.floor(y)) & (np.abs(y) <= largest)
    if not is_integer.all():
        at = int(np.argmin(is_integer))
        raise DataError(f"{where}[{first + at}] is {y[at]}, not a class; expected whole numbers or names")
    return y.astype(np.int64)
