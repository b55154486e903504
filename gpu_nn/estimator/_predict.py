"""Predictions, scores and pickles of a trained network and its labels."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted

from gpu_nn.device import Array
from gpu_nn.estimator._labels import LabelEncoder
from gpu_nn.estimator._pickling import FitState, from_host, to_host
from gpu_nn.estimator._validation import array_device, check_sample_weight, check_X, check_y, to_device
from gpu_nn.layers import Dense
from gpu_nn.network import Network


class TrainedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A classifier without its fit, which sets these attributes."""

    net_: Network
    _label_encoder: LabelEncoder
    _fit_state: FitState

    def predict(self, X: Any) -> Array:
        """The label of each row of X, (n, features): (n,), or flags (n, labels) of int64 for several labels a row."""
        return self._from_logits(
            X, lambda logits: self._label_encoder.inverse_transform(self._label_encoder.predict(logits))
        )

    def predict_proba(self, X: Any) -> Array:
        """Probabilities, (n, classes), in the order of classes_ and of the network's dtype.

        Rows sum to 1; for several labels a row each is the probability of its label alone, above ½ where `predict`
        gives the label.
        """
        return self._from_logits(X, lambda logits: self.net_.probabilities(logits))

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of `predict_proba`, finite where the probability itself is too small for its dtype."""
        return self._from_logits(X, lambda logits: self._label_encoder.log_probabilities(self.net_, logits))

    def decision_function(self, X: Any) -> Array:
        """Logits: the difference of the two, (n,), for two classes, else (n, classes).

        For several labels a row, (n, labels), positive where `predict` gives the label.
        """
        return self._from_logits(X, lambda logits: self._label_encoder.decision_function(logits))

    def _from_logits(self, X: Any, output: Callable[[Array], Array]) -> Array:
        """`output` of the logits of X, on the device of X unless it is not numbers."""
        check_is_fitted(self)
        x = check_X(self, X, dtype=self.net_.dtype, reset=False)
        logits = self.net_.forward(to_device(x, self.net_.device))
        with self.net_.device.active():
            values = output(logits)
            return to_device(values, array_device(x)) if values.dtype.kind in "biuf" else values

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on X, (n, features), and y; several labels of a row must all be right. The largest of a row of
        probabilities is its label."""
        predicted = self.predict(X)
        device = array_device(predicted)
        y = check_y(y, len(predicted), device)
        weight = check_sample_weight(sample_weight, len(predicted), device)
        with device.active():
            if self._label_encoder.kind == "probabilities" and y.ndim == 2:
                y = y.argmax(axis=1)
            if device.kind == "cpu":
                return float(accuracy_score(y, predicted, sample_weight=weight))
            y = device.asarray(y)
            y = y[:, 0] if predicted.ndim == 1 and y.shape == (len(y), 1) else y
            if y.shape != predicted.shape:
                raise ValueError(f"y has shape {y.shape}; expected {predicted.shape}, as predict gives it")
            correct = predicted == y
            correct = correct if correct.ndim == 1 else correct.all(axis=1)
            return float(correct.mean() if weight is None else (correct * weight).sum() / weight.sum())

    @property
    def coefs_(self) -> list[np.ndarray]:
        """The weights of the dense layers, (inputs, units) each: read-only copies; `net_.parameters` can be changed."""
        return self._dense_parameters("weight")

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """The biases of the dense layers, (units,) each, 0 before a `BatchNorm`: read-only copies."""
        return self._dense_parameters("bias")

    def _dense_parameters(self, name: str) -> list[np.ndarray]:
        net, copies = self.net_, []
        for i, layer in enumerate(net.layers):
            if isinstance(layer, Dense):
                array = net.parameters.get(f"{i}.{name}")
                copy = np.zeros(layer.units, net.dtype) if array is None else np.array(net.device.to_host(array))
                copy.flags.writeable = False
                copies.append(copy)
        return copies

    def __sklearn_is_fitted__(self) -> bool:
        return "net_" in vars(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "net_" in state:
            state["_stored_network"], state["_stored_fit_state"] = to_host(state.pop("net_"), state.pop("_fit_state"))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "_stored_network" in state:
            network, fit_state = dict(state.pop("_stored_network")), state.pop("_stored_fit_state")
            if "several_labels" not in network:  # written before networks had it
                network["several_labels"] = state["_label_encoder"].multilabel(float(state["complement_weight"]))
            state["net_"], state["_fit_state"] = from_host(network, fit_state, state["device"])
        super().__setstate__(state)
