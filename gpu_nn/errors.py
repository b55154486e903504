"""The errors of gpu_nn, and the sentence for a name that is not known.

A wrong argument is a plain ValueError or TypeError. The classes here are for what a caller may want to tell apart; the
command turns each into its own exit code.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

# A message that quotes a file may be longer than anybody reads; its beginning and its end are kept.
_BEGINNING, _END = 1500, 400


class DataError(ValueError):
    """A file or a data set that cannot be used: missing, truncated, foreign, or with values out of range.

    The message is one printable line, whatever is in the names and values of a file that it quotes.
    """

    def __init__(self, message: object):
        super().__init__(one_line(message))


class DeviceError(RuntimeError):
    """A device that is not there, or that cannot do what is asked of it."""


class OutOfDeviceMemory(DeviceError, MemoryError):
    """A GPU that has no memory left. The message names the bytes that were asked for and what needs less."""


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
    """The message as one line for a terminal: what is no character to print is escaped, what is too long is cut."""
    text = re.sub(r"\s*[\r\n]\s*", " ", str(message)).strip()
    if len(text) > _BEGINNING + _END:
        text = f"{text[:_BEGINNING]} … {text[-_END:]}"
    return "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else ascii(character)[1:-1]


def unknown_name(
    argument: str, came: object, known: Iterable[str], meant: Mapping[str, str] | None = None
) -> ValueError:
    """The error for `argument=came` where only the `known` names are right; it names the nearest of them."""
    return ValueError(f"{argument}={not_one_of(came, known, meant)}")


def not_one_of(came: object, known: Iterable[str], meant: Mapping[str, str] | None = None) -> str:
    """What `unknown_name` says of `came`. meant: names that people use for a known one which is spelled otherwise."""
    names = sorted(known)
    word = str(came).lower()
    near = [(meant or {}).get(word), *get_close_matches(word, names, n=1, cutoff=0.5)]
    hint = next((f" Did you mean {name!r}?" for name in near if name), "")
    return f"{came!r} is not one of {', '.join(names)}.{hint}"
