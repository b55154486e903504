"""Conversion of scikit-learn's fitted MLPClassifier, alone or after scalers in a Pipeline."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier as SklearnMLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from gpu_nn.data.table import unique_names
from gpu_nn.device import Device
from gpu_nn.estimator._early_stopping import SEED_LIMIT, FitMetrics
from gpu_nn.estimator._fit import Fitted
from gpu_nn.estimator._labels import LabelEncoder
from gpu_nn.estimator._parameters import Parameters
from gpu_nn.estimator._pickling import FitState
from gpu_nn.layers import Dense, Layer, Standardize
from gpu_nn.network import Network
from gpu_nn.optimizers import OPTIMIZERS
from gpu_nn.training import History

Affine = tuple[np.ndarray, np.ndarray]

_ACTIVATIONS = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}


def _standard_scaler(scaler: Any) -> Affine:
    n = scaler.n_features_in_
    return scaler.mean_ if scaler.with_mean else np.zeros(n), 1 / scaler.scale_ if scaler.with_std else np.ones(n)


def _min_max_scaler(scaler: Any) -> Affine:
    if scaler.clip:
        raise ValueError(f"{scaler} clips values outside the range, which no layer does; expected clip=False")
    return -scaler.min_ / scaler.scale_, scaler.scale_


# Shift and scale of a fitted scaler, (x - shift)·scale.
_SCALERS: dict[type, Callable[[Any], Affine]] = {
    StandardScaler: _standard_scaler,
    MinMaxScaler: _min_max_scaler,
    MaxAbsScaler: lambda scaler: (np.zeros(scaler.n_features_in_), 1 / scaler.scale_),
}


def from_sklearn(estimator: Any, *, device: str | Device = "auto", dtype: Any = None) -> Network:
    """The network of a fitted scikit-learn classifier; its probabilities are `estimator.predict_proba`.

    estimator: `sklearn.neural_network.MLPClassifier`, or a Pipeline of StandardScaler, MinMaxScaler and MaxAbsScaler
    that ends in one; the scalers become a Standardize layer. dtype: as of `Network`; None for that of the coefficients.

    For two classes scikit-learn has one logistic output z, and the network the outputs -z/2 and z/2, whose softmax is
    1/(1+e^z) and 1/(1+e^-z).

    Raises NotFittedError, TypeError for another estimator, ValueError for several labels a row (their logistic outputs
    are independent, those of a softmax are not), for one class and for an unknown dtype, DeviceError as `Network` does.
    """
    scalers, classifier = _pipeline_steps(estimator)
    labels = _label_encoder(classifier)
    weights, biases = list(classifier.coefs_), list(classifier.intercepts_)
    if len(labels.classes) == 2:
        weights[-1], biases[-1] = (
            np.concatenate([-array / 2, array / 2], axis=-1) for array in (weights[-1], biases[-1])
        )
    hidden = [Dense(bias.size, _ACTIVATIONS[classifier.activation]) for bias in biases[:-1]]
    layers: list[Layer] = [*([Standardize()] if scalers else []), *hidden, Dense(biases[-1].size)]
    net = Network(
        layers, n_inputs=classifier.n_features_in_, device=device, dtype=weights[0].dtype if dtype is None else dtype
    )
    net.classes = labels.names
    net.feature_names = unique_names(getattr(estimator, "feature_names_in_", ())) or None
    if scalers:
        net.state["0.shift"][...], net.state["0.scale"][...] = (
            net.device.asarray(a, net.dtype) for a in _compose(scalers)
        )
    first = len(layers) - len(weights)
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True), first):
        net.parameters[f"{i}.weight"][...] = net.device.asarray(weight, net.dtype)
        net.parameters[f"{i}.bias"][...] = net.device.asarray(bias, net.dtype)
    return net


def shared_parameters(estimator: Any, names: Sequence[str]) -> dict[str, Any]:
    """The parameters of a fitted scikit-learn classifier that are among `names`, those of gpu_nn.MLPClassifier."""
    scalers, classifier = _pipeline_steps(estimator)
    shared = {name: value for name, value in classifier.get_params(deep=False).items() if name in names}
    if shared["solver"] not in OPTIMIZERS:
        shared["solver"] = "adam"
    return {**shared, "complement_weight": 0.0, "standardize": bool(scalers)}


def fitted_from_sklearn(estimator: Any, net: Network, parameters: Parameters) -> tuple[LabelEncoder, Fitted, bool]:
    """Labels and state of a fitted scikit-learn classifier, and whether it has validation scores.

    net: its network. parameters: of the gpu_nn.MLPClassifier.
    """
    _, classifier = _pipeline_steps(estimator)
    scores = getattr(classifier, "validation_scores_", None)
    metrics = FitMetrics(
        losses=list(getattr(classifier, "loss_curve_", ())) or [classifier.loss_],
        scores=list(scores or ()),
        best_loss=None if classifier.early_stopping else getattr(classifier, "best_loss_", None),
        best_score=classifier.best_validation_score_ if scores else None,
        rows_seen=int(classifier.t_),
    )
    options = parameters.optimizer_options()
    optimizer = OPTIMIZERS[parameters.solver](lr=parameters.schedule(), weight_decay=0.0, **options)
    optimizer.bind(net)
    random = np.random.default_rng(int(check_random_state(parameters.random_state).randint(SEED_LIMIT)))
    state = FitState(parameters.solver, options, optimizer, random, metrics)
    return _label_encoder(classifier), Fitted(net, state, History([]), classifier.n_iter_), bool(scores)


def _pipeline_steps(estimator: Any) -> tuple[list[Any], Any]:
    """The scalers, and the classifier behind them; all fitted."""
    steps = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    *before, last = [step for step in steps if step is not None and not isinstance(step, str)] or [None]
    expected = "a fitted sklearn.neural_network.MLPClassifier, or a Pipeline of scalers that ends in one"
    if not isinstance(last, SklearnMLPClassifier):
        raise TypeError(
            f"from_sklearn was given {_type_name(estimator)} that ends in {_type_name(last)}; expected {expected}"
        )
    for scaler in before:
        if type(scaler) not in _SCALERS:
            known = ", ".join(kind.__name__ for kind in _SCALERS)
            raise TypeError(
                f"the pipeline has {_type_name(scaler)} before its classifier; expected {known}: pass the classifier "
                "alone, and transform X before it reaches the network"
            )
        check_is_fitted(scaler)
    check_is_fitted(last)
    return before, last


def _type_name(value: Any) -> str:
    return f"a {type(value).__module__.partition('.')[0]} {type(value).__name__}"


def _label_encoder(classifier: SklearnMLPClassifier) -> LabelEncoder:
    if classifier.out_activation_ == "logistic" and classifier.n_outputs_ > 1:
        raise ValueError(
            f"the classifier gives {classifier.n_outputs_} labels a row, each with a logistic output of its own; a "
            "softmax network has probabilities that sum to 1 and cannot say the same: fit a gpu_nn.MLPClassifier on y"
        )
    if len(classifier.classes_) < 2:
        raise ValueError(f"the classifier knows 1 class, {classifier.classes_.tolist()}; a softmax needs at least 2")
    return LabelEncoder("labels", classifier.classes_)


def _compose(scalers: list[Any]) -> Affine:
    """shift and scale of all the scalers, one after the other."""
    (shift, scale), *rest = (_SCALERS[type(scaler)](scaler) for scaler in scalers)
    for next_shift, next_scale in rest:
        shift, scale = shift + next_shift / scale, scale * next_scale
    return shift, scale
