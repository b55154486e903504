"""Results on stdout, as text for people or as JSON for machines: whole, or an error. On stderr what else is said."""

import codecs
import json
import math
import sys
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any
from unicodedata import combining, east_asian_width

from gpu_nn.errors import DataError

# So many bytes wait in memory.
_IN_MEMORY = 1 << 22


def print_json(result: dict[str, Any]) -> None:
    """One line of JSON; null stands for a number that is not finite, which JSON does not have."""
    to_stdout(json.dumps(_finite(result), allow_nan=False) + "\n")


def to_stdout(text: str) -> None:
    """All of it, or an error: with PYTHONUNBUFFERED Python drops what a full disk or a reader did not take at once.

    Raises DataError, with a hint, for letters that stdout's encoding does not have.
    """
    _write(_encoded(text))


def to_stdout_whole(texts: Iterable[str], hint: str = "") -> None:
    """All of the texts, or an error and nothing: they wait on the disk, where they are many, until the last is made.

    hint: what the error for letters that stdout does not have names before others.
    """
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as waiting:
        for text in texts:
            waiting.write(_encoded(text, hint))
        waiting.seek(0)
        while piece := waiting.read(_IN_MEMORY):
            _write(piece)


def _encoded(text: str, hint: str = "") -> bytes:
    encoding, errors = sys.stdout.encoding, sys.stdout.errors or "strict"
    try:
        return text.encode(encoding, errors)
    except UnicodeEncodeError as error:
        letter = text[error.start]
        # What UTF-8 does not have is half a letter, such as a file's name of another encoding brings.
        other = "utf-8:backslashreplace" if codecs.lookup(encoding).name == "utf-8" else "utf-8"
        hint = f"{hint}PYTHONIOENCODING={other} lets it through"
        raise DataError(f"stdout is in {encoding}, which does not have {letter!r}: {hint}") from None


def _write(content: bytes) -> None:
    sys.stdout.flush()
    left = memoryview(content)
    while left:
        left = left[sys.stdout.buffer.write(left) :]


def say(line: str) -> None:
    """On stderr, at once."""
    print(line, file=sys.stderr, flush=True)


def keep_silent(line: str) -> None:
    """In place of `say`, where another rank says it."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of aligned columns, the first to the left, the others to the right."""
    lines = [[" ".join(cell.split()) for cell in row] for row in (head, *rows)]
    widths = [max(map(_columns, column)) for column in zip(*lines, strict=True)]
    text = ""
    for first, *others in lines:
        cells = [first + " " * (widths[0] - _columns(first))]
        cells += [" " * (width - _columns(cell)) + cell for cell, width in zip(others, widths[1:], strict=True)]
        text += "  ".join(cells).rstrip() + "\n"
    return text


def _columns(text: str) -> int:
    """The columns that a terminal gives to the text."""
    return sum(0 if combining(letter) else 2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
