"""Tables: columns with names, one of which may be the target."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
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
    cell: says where the value at a row and an input's column stands in the file. named: whether the names are the
    file's own.
    """

    x: np.ndarray
    names: list[str]
    labels: Labels | None
    target: str | None
    cell: Callable[[int, int], str]
    named: bool = True


@dataclass(frozen=True)
class Features:
    """The columns that a model was trained on.

    names: of its inputs, in order, no two alike. target: the name of the labels' column, where it is known. told: is
    called with a sentence where a table has the inputs in another order.
    """

    names: Sequence[str]
    target: str | None = None
    told: Callable[[str], object] = lambda line: None

    def places(self, source: object, columns: Sequence[str]) -> list[int]:
        """Where each of the inputs stands among the columns of a table, but for its target.

        Raises DataError, with its name and the nearest, for one that is not there, and for columns that are no inputs.
        """
        known, place = set(self.names), {name: i for i, name in enumerate(columns)}
        missing = [name for name in self.names if name not in place]
        others = [name for name in columns if name not in known]
        if missing:
            near = get_close_matches(missing[0], others or columns, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{source} has no {_listed(missing)}, which the model was trained on.{hint}")
        if others:
            hint = "drop what is no input, and name the labels as target"
            raise DataError(f"{source} has the {_listed(others)}, which the model was not trained on: {hint}")
        if len(columns) > len(known):
            name, count = Counter(columns).most_common(1)[0]
            raise DataError(f"{source} has {count} columns {name!r}; the model was trained on one")
        places = [place[name] for name in self.names]
        if places != sorted(places):
            self.told(f"{source} has its columns in another order than the model was trained on; they go by name")
        return places

    def target_place(self, source: object, columns: Sequence[str]) -> int:
        """Where the labels stand, of which nothing was said. Raises DataError where all columns are inputs."""
        if self.target in columns:
            return columns.index(self.target)
        known = set(self.names)
        others = [i for i, name in enumerate(columns) if name not in known]
        if not others:
            raise DataError(f"{source} has no labels: its columns are the inputs of the model; add the target's")
        usual = [i for i in others if columns[i].strip().lower() in _USUAL]
        return usual[0] if len(usual) == 1 else others[-1]


def unique_names(names: Iterable[str]) -> list[str] | None:
    """The names by which inputs can be told apart; None where two are alike."""
    found = list(names)
    return found if len(set(found)) == len(found) else None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_NAMES_SHOWN])) + (" …" if len(names) > _NAMES_SHOWN else "")
    return f"column{'s' if len(names) > 1 else ''} {shown}"


@dataclass(frozen=True)
class Target:
    """How the target column is told from the inputs.

    column: its name, or its number from 0, from the end when negative; None: the only one that is called target, label,
    labels, class or y, in any case of letters, else the last.
    n_inputs: for prediction, where the target may not be there: the number of columns that are inputs. With so many
    columns there is no target, unless one is named that is there.
    features: of a model, for a table with names: the inputs are these columns, in their order.
    """

    column: str | int | None = None
    n_inputs: int | None = None
    features: Features | None = None

    def place(self, source: object, names: Sequence[str]) -> int | None:
        """Its number among the columns; None where it is not there and need not be.

        Raises DataError, with the nearest name, for a column that is not there.
        """
        optional = self.n_inputs is not None
        if isinstance(self.column, str) and self.column in names:
            if names.count(self.column) > 1:
                raise DataError(f"{source} has {names.count(self.column)} columns {self.column!r}; name one by number")
            return list(names).index(self.column)
        if self.column is None and self.features is not None:
            there = self.features.target in names
            return self.features.target_place(source, names) if there or not optional else None
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
