"""Tables: named columns, one of which can be the target."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gpu_nn.data.labels import Labels
from gpu_nn.errors import DataError, did_you_mean

# Usual names of a target column, compared without case.
_TARGET_NAMES = ("target", "label", "labels", "class", "y")

_NAMES_SHOWN = 10


@dataclass(frozen=True)
class Table:
    """A table in memory.

    x: (n, inputs).  names: of the inputs.  labels: None for prediction.  target: the name of the target column, None
    without one.  cell: (row, input) → where that value is in the file, for errors.  named: whether the file has names.
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

    names: of its inputs, in order, all different.  target: the name of the target column, None where it is unknown.
    on_reorder: called with a message when a table has the inputs in another order.
    """

    names: Sequence[str]
    target: str | None = None
    on_reorder: Callable[[str], object] = lambda message: None

    def column_indices(self, source: object, columns: Sequence[str]) -> list[int]:
        """The index of each input among the columns of a table, which are given without the target.

        Raises DataError for an input without a column, with the nearest name, and for a column that is not an input.
        """
        known, index = set(self.names), {name: i for i, name in enumerate(columns)}
        missing = [name for name in self.names if name not in index]
        others = [name for name in columns if name not in known]
        if missing:
            hint = did_you_mean(missing[0], others or columns)
            raise DataError(f"{source} has no {_listed(missing)}, which the model was trained on.{hint}")
        if others:
            hint = "drop what is no input, and name the labels as target"
            raise DataError(f"{source} has the {_listed(others)}, which the model was not trained on: {hint}")
        if len(columns) > len(known):
            name, count = Counter(columns).most_common(1)[0]
            raise DataError(f"{source} has {count} columns {name!r}; the model was trained on one")
        indices = [index[name] for name in self.names]
        if indices != sorted(indices):
            self.on_reorder(f"{source} has its columns in another order than the model was trained on; they go by name")
        return indices

    def target_index(self, source: object, columns: Sequence[str]) -> int:
        """The index of the target where the caller named none. Raises DataError where all columns are inputs."""
        if self.target in columns:
            return columns.index(self.target)
        known = set(self.names)
        others = [i for i, name in enumerate(columns) if name not in known]
        if not others:
            raise DataError(f"{source} has no labels: its columns are the inputs of the model; add the target's")
        return _usual_target(columns, others)


def unique_names(names: Iterable[str]) -> list[str] | None:
    """The names as a list; None where two are equal."""
    found = list(names)
    return found if len(set(found)) == len(found) else None


def _usual_target(columns: Sequence[str], candidates: Sequence[int]) -> int:
    """The only candidate with a usual name of a target, else the last one."""
    usual = [i for i in candidates if columns[i].strip().lower() in _TARGET_NAMES]
    return usual[0] if len(usual) == 1 else candidates[-1]


def _listed(names: Sequence[str]) -> str:
    return f"column{'s' if len(names) > 1 else ''} {_shown([repr(name) for name in names])}"


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMES_SHOWN]) + (" …" if len(names) > _NAMES_SHOWN else "")


@dataclass(frozen=True)
class Target:
    """How to find the target column.

    column: its name, or its index, negative from the end; None: the only column called target, label, labels, class or
    y, in any case, else the last.
    n_inputs: for prediction, where the target is optional: the number of inputs. A table with that many columns has no
    target, unless `column` names one of them.
    features: of a model, for a table with names: the inputs are these columns, in their order.
    """

    column: str | int | None = None
    n_inputs: int | None = None
    features: Features | None = None

    def index(self, source: object, names: Sequence[str]) -> int | None:
        """The index of the target among the columns; None where it is absent and optional.

        Raises DataError, with the nearest name, for a column that does not exist.
        """
        optional = self.n_inputs is not None
        if isinstance(self.column, str) and self.column in names:
            if names.count(self.column) > 1:
                raise DataError(f"{source} has {names.count(self.column)} columns {self.column!r}; name one by number")
            return list(names).index(self.column)
        if self.column is None and self.features is not None:
            present = self.features.target in names
            return self.features.target_index(source, names) if present or not optional else None
        n_extra = len(names) - (self.n_inputs or 0)
        if optional and (n_extra == 0 or (self.column is None and n_extra != 1)):
            return None
        if self.column is None:
            return _usual_target(names, range(len(names)))
        index = column_index(self.column)
        if index is None:
            if optional:
                return None
            hint = did_you_mean(str(self.column), names)
            raise DataError(f"{source} has no column {self.column!r}, the target; it has {_shown(names)}.{hint}")
        if not -len(names) <= index < len(names):
            raise DataError(f"{source} has {len(names)} columns; there is no column {index}, the target")
        return index % len(names)


def column_index(column: str | int) -> int | None:
    """The column as an index; None for a name."""
    try:
        return int(column)
    except ValueError:
        return None
