"""The errors of gpu_nn, and the message for an unknown name.

A wrong argument raises a plain ValueError or TypeError. The classes here are for errors that a caller handles
differently; the command gives each its own exit code.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

# A message that quotes a file may be very long: its first and last characters are kept.
_HEAD, _TAIL = 1500, 400


class DataError(ValueError):
    """A file or a data set that cannot be used: missing, truncated, of another format, or with values out of range.

    The message is one printable line, whatever names and values of a file it quotes.
    """

    def __init__(self, message: object):
        super().__init__(one_line(message))


class MissingFile(DataError):
    """A file that does not exist."""


class DeviceError(RuntimeError):
    """A device that does not exist, or that does not support what is asked of it."""


class OutOfDeviceMemory(DeviceError, MemoryError):
    """A GPU is out of memory. The message says how many bytes were requested and what needs less."""


class TrainingDiverged(ArithmeticError):
    """The loss became NaN or infinite. `step` is the number of the optimizer step, from 1."""

    def __init__(self, step: int, loss: float):
        super().__init__(
            f"the loss became {loss} at step {step}; training stopped. Lower the learning rate, clip the gradient "
            f"(max_norm=1.0), or look for extreme values in the data"
        )
        self.step = step
        self.loss = loss


def one_line(message: object) -> str:
    """The message as one line for a terminal: unprintable characters are escaped, a long message is shortened."""
    text = re.sub(r"\s*[\r\n]\s*", " ", str(message)).strip()
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]} … {text[-_TAIL:]}"
    return "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else ascii(character)[1:-1]


def unknown_name(
    argument: str, value: object, known: Iterable[str], aliases: Mapping[str, str] | None = None
) -> ValueError:
    """The error for `argument=value` where only the `known` names are valid; it suggests the nearest of them."""
    return ValueError(f"{argument}={not_one_of(value, known, aliases)}")


def not_one_of(value: object, known: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """The message of `unknown_name`, without the argument. aliases: other words for known names, for the suggestion."""
    names, word = sorted(known), str(value).lower()
    return f"{value!r} is not one of {', '.join(names)}.{did_you_mean((aliases or {}).get(word, word), names)}"


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The end of a message that suggests the nearest of the `known` names; "" where none is near."""
    near = get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
