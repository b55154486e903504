"""Tables: columns with names, one of which may be the target."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from gpu_nn.data.labels import Labels
from gpu_nn.errors import DataError

# Names under which people file the target; in any case of letters.
_USUAL = ("target", "label", "labels", "class", "y")

_NAMES_SHOWN = 10


@dataclass(frozen=True)
class Table:
    """x: (n, inputs). names: of the inputs. labels: None for prediction. target: its column's name, None without one.
    cell: says where the value at a row and an input's column stands in the file.
    """

    x: np.ndarray
    names: list[str]
    labels: Labels | None
    target: str | None
    cell: Callable[[int, int], str]


@dataclass(frozen=True)
class Target:
    """How the target column is told from the inputs.

    column: its name, or its number from 0, from the end when negative; None: the only one that is called target, label,
    labels, class or y, in any case of letters, else the last.
    n_inputs: for prediction, where the target may not be there: the number of columns that are inputs. With so many
    columns there is no target, unless one is named that is there.
    """

    column: str | int | None = None
    n_inputs: int | None = None

    def place(self, source: object, names: Sequence[str]) -> int | None:
        """Its number among the columns; None where it is not there and need not be.

        Raises DataError, with the nearest name, for a column that is not there.
        """
        optional = self.n_inputs is not None
        if isinstance(self.column, str) and self.column in names:
            if names.count(self.column) > 1:
                raise DataError(f"{source} has {names.count(self.column)} columns {self.column!r}; name one by number")
            return list(names).index(self.column)
        more = len(names) - (self.n_inputs or 0)
        if optional and (more == 0 or (self.column is None and more != 1)):
            return None
        if self.column is None:
            usual = [i for i, name in enumerate(names) if name.strip().lower() in _USUAL]
            return usual[0] if len(usual) == 1 else len(names) - 1
        number = _number(self.column)
        if number is None:
            if optional:
                return None
            near = get_close_matches(str(self.column), names, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            shown = ", ".join(names[:_NAMES_SHOWN]) + (" …" if len(names) > _NAMES_SHOWN else "")
            raise DataError(f"{source} has no column {self.column!r}, the target; it has {shown}.{hint}")
        if not -len(names) <= number < len(names):
            raise DataError(f"{source} has {len(names)} columns; there is no column {number}, the target")
        return number % len(names)


def _number(column: str | int) -> int | None:
    try:
        return int(column)
    except ValueError:
        return None
