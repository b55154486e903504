"""Between a caller's y and the targets of the cost: labels, rows of probabilities, or several labels a row, of which
`multilabel` says how they and one softmax go together."""

from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from gpu_nn.device import CPU, Array
from gpu_nn.estimator._validation import moved, place
from gpu_nn.multilabel import REFERENCE, Multilabel, scores, threshold
from gpu_nn.network import Network
from gpu_nn.validation import NON_NEGATIVE

# Rows of probabilities may miss 1 by as much, which float16 does.
_SUM_TOLERANCE = 2e-3

Kind = Literal["labels", "probabilities", "multilabel"]


@dataclass(frozen=True)
class Labelling:
    """kind: what a row of y is. classes: (m,) what index or column i stands for; always a NumPy array."""

    kind: Kind
    classes: np.ndarray

    @classmethod
    def learned(cls, y: Array, classes: np.ndarray | None = None) -> "Labelling":
        """The labelling that y sets up, with `classes`, sorted, where they are given."""
        kind = _kind(y)
        if kind != "labels":
            if classes is not None and not np.array_equal(classes, np.arange(y.shape[1])):
                expected = f"the numbers of the {y.shape[1]} columns of y: leave them out"
                raise ValueError(f"classes={classes.tolist()}; expected {expected}")
            return cls(kind, np.arange(y.shape[1]))
        found = classes if classes is not None else _distinct(_flat(y))[0]
        if len(found) < 2:
            raise ValueError(f"y has 1 class, {found.tolist()}; a classifier needs at least 2 classes")
        return cls(kind, found)

    @property
    def n_outputs(self) -> int:
        """How many outputs the network has."""
        return len(self.classes) + (self.kind == "multilabel")

    @property
    def names(self) -> list[Any] | None:
        """The classes as a network and its file hold them: all text or all numbers; None for others."""
        found = self.classes.tolist()
        alike = any(all(isinstance(value, kind) for value in found) for kind in (str, int | float))
        return found if alike else None

    def multilabel(self, complement_weight: float) -> Multilabel | None:
        """What the network has to know of this: None for one label a row."""
        return Multilabel(complement_weight) if self.kind == "multilabel" else None

    def targets(self, y: Array, dtype: np.dtype, name: str = "y") -> Array:
        """(n,) class indices, or (n, n_outputs) of `dtype`, where y lies.

        Raises ValueError for labels that are not among the classes, another number of columns, another kind.
        """
        kind = _kind(y, name)
        if kind == "labels" and self.kind != "multilabel":
            return self._indices(_flat(y), name)
        if self.kind == "probabilities" and kind == "multilabel":
            kind = _kind_of_rows(y, name, may_be_flags=False)
        if kind != self.kind:
            raise ValueError(f"{name} holds {kind}, but the classifier was fitted with {self.kind}")
        if y.shape[1] != len(self.classes):
            raise ValueError(f"{name} has {y.shape[1]} columns; expected {len(self.classes)}, one for each class")
        device = place(y)
        with device.active():
            y = y.astype(dtype)
            if kind == "probabilities":
                return y
            return device.xp.concatenate([y, device.xp.full((len(y), 1), REFERENCE, dtype)], axis=1)

    def _indices(self, y: Array, name: str) -> Array:
        found, inverse = _distinct(y)
        index = {value: i for i, value in enumerate(self.classes.tolist())}
        unseen = [value for value in found.tolist() if value not in index]
        if unseen:
            raise ValueError(
                f"{name} has labels that are not classes of the classifier: {_few(unseen)}; expected {_few(index)}. "
                "The first partial_fit takes all that will come as classes=…"
            )
        device = place(y)
        with device.active():
            return device.xp.asarray(np.array([index[value] for value in found.tolist()], np.int64))[inverse]

    def class_weights(self, class_weight: Any, targets: Array, weight: Array | None) -> Array | None:
        """The rows' weights, (n,) float64 where `targets` lie: sample weight times the weight of the row's class.

        class_weight: None, a dict {class: weight} (1 where it names none), or "balanced": total/(classes · sum of the
        class's weights). A row of probabilities has the expected weight of its class.
        """
        if class_weight is None:
            return weight
        if self.kind == "multilabel":
            raise ValueError("class_weight goes with one label a row; give rows of several labels a sample_weight")
        balanced = isinstance(class_weight, str) and class_weight == "balanced"
        if not (balanced or isinstance(class_weight, dict)):
            raise ValueError(f"class_weight={class_weight!r}; expected None, 'balanced' or a dict {{class: weight}}")
        device, m = place(targets), len(self.classes)
        xp = device.xp
        with device.active():
            rows = xp.ones(len(targets)) if weight is None else weight
            if isinstance(class_weight, dict):
                of_class = xp.asarray(self._named_weights(class_weight))
            else:
                total = xp.bincount(targets, weights=rows, minlength=m) if targets.ndim == 1 else rows @ targets
                of_class = xp.where(total > 0, total.sum() / (m * xp.where(total > 0, total, 1)), 1)
            return rows * (of_class[targets] if targets.ndim == 1 else targets @ of_class)

    def _named_weights(self, named: dict[Any, float]) -> np.ndarray:
        classes = self.classes.tolist()
        unknown = [key for key in named if key not in classes]
        # A part of the data may lack a class that the whole has; a class without a weight shows that a name is wrong.
        if unknown and any(value not in named for value in classes):
            raise ValueError(
                f"class_weight names {unknown[0]!r}, which is not among the classes {_few(classes)}."
                f"{_meant(unknown[0], classes)}"
            )
        weights = [named.get(value, 1) for value in classes]
        if not all(weight in NON_NEGATIVE for weight in weights):
            raise ValueError(f"class_weight={named!r}; expected finite weights ≥ 0")
        return np.array(weights, np.float64)

    def decided(self, logits: Array) -> Array:
        """(n,) class indices, or (n, labels) flags of 0 and 1 for several labels a row."""
        if self.kind == "multilabel":
            return threshold(logits)
        return logits.argmax(axis=1)

    def right(self, logits: Array, targets: Array) -> Array:
        """(n,) booleans: whether the decision is the target, all of a row's labels included."""
        if self.kind == "multilabel":
            return (self.decided(logits) == (targets[:, :-1] > REFERENCE)).all(axis=1)
        return logits.argmax(axis=1) == (targets if targets.ndim == 1 else targets.argmax(axis=1))

    def named(self, decided: Array) -> Array:
        """Decisions as the labels of y: on the GPU for classes that are numbers, else on the host."""
        if self.kind == "multilabel":
            return decided
        device = place(decided)
        if device.kind != "cpu" and self.classes.dtype.kind not in "biuf":
            decided, device = decided.get(), CPU
        with device.active():
            return device.xp.asarray(self.classes)[decided]

    def scores(self, logits: Array) -> Array:
        """Of the decision: positive, or the largest, where a class is chosen. (n,) for two classes, else (n, m)."""
        if self.kind == "multilabel":
            return scores(logits)
        return logits[:, 1] - logits[:, 0] if len(self.classes) == 2 else logits

    def log_probabilities(self, net: Network, logits: Array) -> Array:
        """ln of `net.probabilities`; -inf only for one label of several with probability 0. `logits` are used up."""
        if self.kind == "multilabel":
            p = net.probabilities(logits)
            with np.errstate(divide="ignore"):
                return net.device.xp.log(p)
        net.kernels.log_softmax(logits, logits)
        return logits


def _kind(y: Array, name: str = "y") -> Kind:
    if y.ndim == 1 or y.shape[1] == 1:
        if place(y).kind == "cpu":
            check_classification_targets(y)
        elif y.dtype.kind == "f" and not bool((y == _xp(y).floor(y)).all()):
            raise ValueError(f"Unknown label type: continuous. {name} holds fractions; expected whole numbers")
        return "labels"
    return _kind_of_rows(y, name, may_be_flags=True)


def _kind_of_rows(y: Array, name: str, may_be_flags: bool) -> Kind:
    expected = "flags of 0 and 1, one column a label, or rows of probabilities that sum to 1, one column a class"
    if y.dtype.kind == "O":
        with suppress(TypeError, ValueError):
            y = y.astype(np.float64)
    if y.dtype.kind not in "biuf":
        raise ValueError(f"Unknown label type: {name} is of shape {y.shape} and {y.dtype}; expected {expected}")
    if may_be_flags and bool(((y == 0) | (y == 1)).all()):
        return "multilabel"
    whole = bool(((y >= 0) & (y <= 1)).all()) and bool((abs(y.sum(axis=1) - 1) <= _SUM_TOLERANCE).all())
    if not whole:
        raise ValueError(f"Unknown label type: the 2-D {name} of shape {y.shape} holds other numbers than {expected}")
    return "probabilities"


def _flat(y: Array) -> Array:
    """A column as (n,), with scikit-learn's warning."""
    if y.ndim == 1:
        return y
    return column_or_1d(y, warn=True) if place(y).kind == "cpu" else y[:, 0]


def _distinct(y: Array) -> tuple[np.ndarray, Array]:
    """The different values of y, sorted, on the host, and each row's place among them where y lies."""
    device = place(y)
    with device.active():
        found, inverse = device.xp.unique(y, return_inverse=True)
    return moved(found, CPU), inverse


def _xp(array: Array) -> Any:
    return place(array).xp


def _meant(name: Any, classes: list[Any]) -> str:
    """The class that was meant by a name that is none, as a sentence; nothing where none is near."""
    near = get_close_matches(str(name), [str(value) for value in classes], n=1)
    if not near:
        return ""
    value = next(value for value in classes if str(value) == near[0])
    if isinstance(name, str) != isinstance(value, str):
        return f" The classes are {'text' if isinstance(value, str) else 'numbers'}: did you mean {value!r}?"
    return f" Did you mean {value!r}?"


def _few(values: Any) -> str:
    names = [repr(value) for value in values]
    return ", ".join(names[:8]) + (f", … ({len(names)} in all)" if len(names) > 8 else "")
