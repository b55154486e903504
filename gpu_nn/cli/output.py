"""Results on stdout, complete or an error: text for people, JSON for programs. Messages on stderr."""

import codecs
import json
import math
import sys
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any
from unicodedata import combining, east_asian_width

from gpu_nn.errors import DataError

# `write_stdout_when_complete` keeps this many bytes in memory and more on the disk.
_BYTES_IN_MEMORY = 1 << 22


def print_json(result: dict[str, Any]) -> None:
    """One line of JSON. Numbers that are not finite become null, because JSON has none."""
    write_stdout(json.dumps(_finite(result), allow_nan=False) + "\n")


def print_result(as_json: bool, result: dict[str, Any], text: str) -> None:
    """Print the result as JSON, or else the text."""
    if as_json:
        print_json(result)
    else:
        write_stdout(text)


def write_stdout(text: str) -> None:
    """Write all of the text. With PYTHONUNBUFFERED Python's own write drops what a full disk or pipe does not accept.

    Raises DataError, with a hint, for characters that stdout's encoding lacks.
    """
    _write(_encode(text))


def write_stdout_when_complete(texts: Iterable[str], hint: str = "") -> None:
    """Write all of the texts after the last one is made; an error before then leaves stdout empty.

    hint: the error for characters that stdout's encoding lacks names this remedy before the others.
    """
    with tempfile.SpooledTemporaryFile(_BYTES_IN_MEMORY) as buffer:
        for text in texts:
            buffer.write(_encode(text, hint))
        buffer.seek(0)
        while chunk := buffer.read(_BYTES_IN_MEMORY):
            _write(chunk)


def _encode(text: str, hint: str = "") -> bytes:
    encoding, errors = sys.stdout.encoding, sys.stdout.errors or "strict"
    try:
        return text.encode(encoding, errors)
    except UnicodeEncodeError as error:
        character = text[error.start]
        # UTF-8 lacks only surrogates, which come from file names in another encoding.
        other = "utf-8:backslashreplace" if codecs.lookup(encoding).name == "utf-8" else "utf-8"
        hint = f"{hint}PYTHONIOENCODING={other} lets it through"
        raise DataError(f"stdout is in {encoding}, which does not have {character!r}: {hint}") from None


def _write(content: bytes) -> None:
    sys.stdout.flush()
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[sys.stdout.buffer.write(remaining) :]


def print_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of aligned columns: the first is aligned left, the others right."""
    lines = [[" ".join(cell.split()) for cell in row] for row in (head, *rows)]
    widths = [max(map(_display_width, column)) for column in zip(*lines, strict=True)]
    text = ""
    for first, *others in lines:
        cells = [first + " " * (widths[0] - _display_width(first))]
        cells += [" " * (width - _display_width(cell)) + cell for cell, width in zip(others, widths[1:], strict=True)]
        text += "  ".join(cells).rstrip() + "\n"
    return text


def _display_width(text: str) -> int:
    """The columns that the text takes on a terminal."""
    return sum(0 if combining(letter) else 2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
