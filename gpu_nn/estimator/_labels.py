"""The targets of the cost from the caller's y, and labels from the network's outputs."""

from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from gpu_nn.device import CPU, Array
from gpu_nn.estimator._validation import array_device, to_device
from gpu_nn.multilabel import REFERENCE, Multilabel, scores, threshold
from gpu_nn.network import Network
from gpu_nn.validation import NON_NEGATIVE

# Tolerance for the sum of a row of probabilities in float16.
_SUM_TOLERANCE = 2e-3

Kind = Literal["labels", "probabilities", "multilabel"]


@dataclass(frozen=True)
class LabelEncoder:
    """Encodes y as targets and decodes the network's outputs.

    kind: what a row of y is. classes: (m,), the label of index or column i; always a NumPy array.
    """

    kind: Kind
    classes: np.ndarray

    @classmethod
    def fit(cls, y: Array, classes: np.ndarray | None = None) -> "LabelEncoder":
        """The encoder of y; `classes`, sorted, replace the labels found in y. Raises ValueError."""
        kind = _kind(y)
        if kind != "labels":
            if classes is not None and not np.array_equal(classes, np.arange(y.shape[1])):
                expected = f"the numbers of the {y.shape[1]} columns of y: leave them out"
                raise ValueError(f"classes={classes.tolist()}; expected {expected}")
            return cls(kind, np.arange(y.shape[1]))
        found = classes if classes is not None else _unique(_to_1d(y))[0]
        if len(found) < 2:
            raise ValueError(f"y has 1 class, {found.tolist()}; a classifier needs at least 2 classes")
        return cls(kind, found)

    @property
    def n_outputs(self) -> int:
        """The number of outputs of the network."""
        return len(self.classes) + (self.kind == "multilabel")

    @property
    def names(self) -> list[Any] | None:
        """The classes for a network and its model file: all text or all numbers; None for other types."""
        found = self.classes.tolist()
        one_type = any(all(isinstance(value, kind) for value in found) for kind in (str, int | float))
        return found if one_type else None

    def multilabel(self, complement_weight: float) -> Multilabel | None:
        """The `multilabel` of the network; None for one label a row."""
        return Multilabel(complement_weight) if self.kind == "multilabel" else None

    def transform(self, y: Array, dtype: np.dtype, name: str = "y") -> Array:
        """The targets: (n,) class indices, or (n, n_outputs) of `dtype`, on the device of y.

        Raises ValueError for labels that are not among the classes, another number of columns, another kind.
        """
        kind = _kind(y, name)
        if kind == "labels" and self.kind != "multilabel":
            return self._indices(_to_1d(y), name)
        if self.kind == "probabilities" and kind == "multilabel":
            kind = _kind_of_columns(y, name, allow_flags=False)
        if kind != self.kind:
            raise ValueError(f"{name} holds {kind}, but the classifier was fitted with {self.kind}")
        if y.shape[1] != len(self.classes):
            raise ValueError(f"{name} has {y.shape[1]} columns; expected {len(self.classes)}, one for each class")
        device = array_device(y)
        with device.active():
            y = y.astype(dtype)
            if kind == "probabilities":
                return y
            return device.xp.concatenate([y, device.xp.full((len(y), 1), REFERENCE, dtype)], axis=1)

    def _indices(self, y: Array, name: str) -> Array:
        found, inverse = _unique(y)
        index = {value: i for i, value in enumerate(self.classes.tolist())}
        unseen = [value for value in found.tolist() if value not in index]
        if unseen:
            raise ValueError(
                f"{name} has labels that are not classes of the classifier: {_listed(unseen)}; expected "
                f"{_listed(index)}. Pass all classes to the first partial_fit as classes=…"
            )
        device = array_device(y)
        with device.active():
            return device.xp.asarray(np.array([index[value] for value in found.tolist()], np.int64))[inverse]

    def class_weights(self, class_weight: Any, targets: Array, weight: Array | None) -> Array | None:
        """The rows' weights, (n,) float64 on the device of `targets`: sample weight times weight of the row's class.

        class_weight: None, a dict {class: weight} (1 for a class that it leaves out), or "balanced": total/(classes ·
        sum of the class's weights). A row of probabilities has the expected weight of its class. Raises ValueError.
        """
        if class_weight is None:
            return weight
        if self.kind == "multilabel":
            raise ValueError("class_weight goes with one label a row; give rows of several labels a sample_weight")
        balanced = isinstance(class_weight, str) and class_weight == "balanced"
        if not (balanced or isinstance(class_weight, dict)):
            raise ValueError(f"class_weight={class_weight!r}; expected None, 'balanced' or a dict {{class: weight}}")
        device, m = array_device(targets), len(self.classes)
        xp = device.xp
        with device.active():
            rows = xp.ones(len(targets)) if weight is None else weight
            if isinstance(class_weight, dict):
                of_class = xp.asarray(self._weights_from_dict(class_weight))
            else:
                total = xp.bincount(targets, weights=rows, minlength=m) if targets.ndim == 1 else rows @ targets
                of_class = xp.where(total > 0, total.sum() / (m * xp.where(total > 0, total, 1)), 1)
            return rows * (of_class[targets] if targets.ndim == 1 else targets @ of_class)

    def _weights_from_dict(self, class_weight: dict[Any, float]) -> np.ndarray:
        classes = self.classes.tolist()
        unknown = [key for key in class_weight if key not in classes]
        # Part of the data may lack a class that the dict names. Where a class has no weight too, the name is wrong.
        if unknown and any(value not in class_weight for value in classes):
            raise ValueError(
                f"class_weight names {unknown[0]!r}, which is not among the classes {_listed(classes)}."
                f"{_suggestion(unknown[0], classes)}"
            )
        weights = [class_weight.get(value, 1) for value in classes]
        if not all(weight in NON_NEGATIVE for weight in weights):
            raise ValueError(f"class_weight={class_weight!r}; expected finite weights ≥ 0")
        return np.array(weights, np.float64)

    def predict(self, logits: Array) -> Array:
        """(n,) class indices, or (n, labels) flags of 0 and 1 for several labels a row."""
        return threshold(logits) if self.kind == "multilabel" else logits.argmax(axis=1)

    def correct(self, logits: Array, targets: Array) -> Array:
        """(n,) booleans: whether the prediction is the target; several labels of a row must all be."""
        predicted = self.predict(logits)
        if self.kind == "multilabel":
            return (predicted == (targets[:, :-1] > REFERENCE)).all(axis=1)
        return predicted == (targets if targets.ndim == 1 else targets.argmax(axis=1))

    def inverse_transform(self, predicted: Array) -> Array:
        """Predictions as labels of y: on their device for classes that are numbers, else on the host."""
        if self.kind == "multilabel":
            return predicted
        device = array_device(predicted)
        if device.kind != "cpu" and self.classes.dtype.kind not in "biuf":
            predicted, device = predicted.get(), CPU
        with device.active():
            return device.xp.asarray(self.classes)[predicted]

    def decision_function(self, logits: Array) -> Array:
        """Positive, or the largest, for the predicted class: (n,) for two classes, else (n, m)."""
        if self.kind == "multilabel":
            return scores(logits)
        return logits[:, 1] - logits[:, 0] if len(self.classes) == 2 else logits

    def log_probabilities(self, net: Network, logits: Array) -> Array:
        """ln of `net.probabilities`; -inf only for a label of several with probability 0. Overwrites `logits`."""
        if self.kind == "multilabel":
            p = net.probabilities(logits)
            with np.errstate(divide="ignore"):
                return net.device.xp.log(p)
        net.kernels.log_softmax(logits, logits)
        return logits


def _kind(y: Array, name: str = "y") -> Kind:
    if y.ndim == 2 and y.shape[1] != 1:
        return _kind_of_columns(y, name, allow_flags=True)
    if array_device(y).kind == "cpu":
        check_classification_targets(y)
    elif y.dtype.kind == "f" and not bool((y == array_device(y).xp.floor(y)).all()):
        raise ValueError(f"Unknown label type: continuous. {name} holds fractions; expected whole numbers")
    return "labels"


def _kind_of_columns(y: Array, name: str, allow_flags: bool) -> Kind:
    expected = "flags of 0 and 1, one column a label, or rows of probabilities that sum to 1, one column a class"
    if y.dtype.kind == "O":
        with suppress(TypeError, ValueError):
            y = y.astype(np.float64)
    if y.dtype.kind not in "biuf":
        raise ValueError(f"Unknown label type: {name} is of shape {y.shape} and {y.dtype}; expected {expected}")
    if allow_flags and bool(((y == 0) | (y == 1)).all()):
        return "multilabel"
    if not bool(((y >= 0) & (y <= 1)).all()) or not bool((abs(y.sum(axis=1) - 1) <= _SUM_TOLERANCE).all()):
        raise ValueError(f"Unknown label type: the 2-D {name} of shape {y.shape} holds other numbers than {expected}")
    return "probabilities"


def _to_1d(y: Array) -> Array:
    """A column as (n,), with scikit-learn's warning for host arrays."""
    if y.ndim == 1:
        return y
    return column_or_1d(y, warn=True) if array_device(y).kind == "cpu" else y[:, 0]


def _unique(y: Array) -> tuple[np.ndarray, Array]:
    """The distinct values of y, sorted, on the host, and each row's index into them on the device of y."""
    device = array_device(y)
    with device.active():
        found, inverse = device.xp.unique(y, return_inverse=True)
    return to_device(found, CPU), inverse


def _suggestion(name: Any, classes: list[Any]) -> str:
    """A sentence that suggests the class nearest to `name`; "" where none is near."""
    near = get_close_matches(str(name), [str(value) for value in classes], n=1)
    if not near:
        return ""
    value = next(value for value in classes if str(value) == near[0])
    if isinstance(name, str) != isinstance(value, str):
        return f" The classes are {'text' if isinstance(value, str) else 'numbers'}: did you mean {value!r}?"
    return f" Did you mean {value!r}?"


def _listed(values: Any) -> str:
    names = [repr(value) for value in values]
    return ", ".join(names[:8]) + (f", … ({len(names)} in all)" if len(names) > 8 else "")
