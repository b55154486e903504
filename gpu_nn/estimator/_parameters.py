"""The parameters of MLPClassifier: what each may be, and the layers and the optimizer that they describe."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_nn.device import resolve_device
from gpu_nn.errors import unknown_name
from gpu_nn.estimator._early_stopping import EpochRate
from gpu_nn.estimator._scoring import scorer
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.layers import NORMALISATIONS, Dense, InputNoise, Layer, Standardize, hidden_layers
from gpu_nn.optimizers import OPTIMIZERS
from gpu_nn.precision import parameter_dtype, precision_name
from gpu_nn.schedules import Constant, Schedule
from gpu_nn.validation import BELOW_1, NON_NEGATIVE, POSITIVE, UNIT_INTERVAL, Interval, check_int, check_number, is_int

# What scikit-learn calls by another name, and what people ask for that is not here.
_OUR_NAMES = {"logistic": "sigmoid"}
_MEANT = {"lbfgs": "adam", "momentum": "sgd", "swish": "silu", "linear": "identity"}
_MEANT |= {"batchnorm": "batch", "batch_norm": "batch", "layernorm": "layer", "layer_norm": "layer"}

_LEARNING_RATES = ("constant", "invscaling", "adaptive")

_NUMBERS: dict[str, Interval] = {
    "alpha": NON_NEGATIVE,
    "learning_rate_init": POSITIVE,
    "power_t": NON_NEGATIVE,
    "tol": NON_NEGATIVE,
    "momentum": BELOW_1,
    "validation_fraction": BELOW_1,
    "beta_1": BELOW_1,
    "beta_2": BELOW_1,
    "epsilon": POSITIVE,
    "dropout": BELOW_1,
    "input_noise": NON_NEGATIVE,
    "label_smoothing": UNIT_INTERVAL,
    "complement_weight": NON_NEGATIVE,
    "max_norm": POSITIVE,
}
_COUNTS = ("max_iter", "n_iter_no_change", "batch_size")
_WORDS: dict[str, tuple[Any, str]] = {
    "batch_size": ("auto", " or 'auto'"),
    "n_iter_no_change": (math.inf, " or infinity"),
    "max_norm": (None, " or None"),
}
_FLAGS = ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping", "standardize")


def check(estimator: Any) -> None:
    """Raises ValueError or TypeError for a parameter that cannot be: its name, its value, and what was expected."""
    for name in (*_NUMBERS, *_COUNTS):
        value, (word, or_word) = getattr(estimator, name), _WORDS.get(name, ("", ""))
        if or_word and (value is word or (np.isscalar(value) and value == word)):
            continue
        if name in _NUMBERS:
            check_number(name, value, _NUMBERS[name], or_word)
        else:
            check_int(name, value, 1, or_word)
    for name in _FLAGS:
        if not isinstance(getattr(estimator, name), bool | np.bool_):
            raise ValueError(f"{name}={getattr(estimator, name)!r}; expected True or False")
    if not isinstance(estimator.solver, str) or estimator.solver not in OPTIMIZERS:
        raise unknown_name("solver", estimator.solver, OPTIMIZERS, _MEANT)
    rate = estimator.learning_rate
    if not isinstance(rate, Schedule) and not (isinstance(rate, str) and rate in _LEARNING_RATES):
        raise unknown_name("learning_rate", rate, _LEARNING_RATES)
    chosen = estimator.normalisation
    if chosen is not None and not (isinstance(chosen, str) and chosen in NORMALISATIONS):
        raise unknown_name("normalisation", chosen, ("None", *NORMALISATIONS), _MEANT)
    activation(estimator)
    dtype(estimator)
    hidden_sizes(estimator)
    scorer(estimator.scoring)
    callbacks(estimator)
    resolve_device(estimator.device)


def activation(estimator: Any) -> str:
    """Of the hidden layers, by our name."""
    came = estimator.activation
    name = _OUR_NAMES.get(came, came) if isinstance(came, str) else came
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise unknown_name("activation", came, (*ACTIVATIONS, *_OUR_NAMES), _MEANT)
    return name


def dtype(estimator: Any) -> np.dtype:
    """Of parameters and data."""
    return parameter_dtype(precision_name(estimator.dtype))


def hidden_sizes(estimator: Any) -> list[int]:
    """The widths of the hidden layers."""
    came = estimator.hidden_layer_sizes
    sizes = list(came) if np.iterable(came) and not isinstance(came, str) else [came]
    if not all(is_int(size) and size >= 1 for size in sizes):
        raise ValueError(f"hidden_layer_sizes={came!r}; expected whole numbers ≥ 1, such as (100,), or () for none")
    return [int(size) for size in sizes]


def callbacks(estimator: Any) -> Sequence[Any]:
    """The callbacks, in the order in which they are called."""
    if estimator.callbacks is None:
        return []
    if not np.iterable(estimator.callbacks):
        raise TypeError(f"callbacks={estimator.callbacks!r}; expected a list of them: put it in brackets")
    return list(estimator.callbacks)


def layers(estimator: Any, n_outputs: int) -> list[Layer]:
    """The network's layers, from the inputs on."""
    made: list[Layer] = [Standardize()] if estimator.standardize else []
    if estimator.input_noise:
        made.append(InputNoise(float(estimator.input_noise)))
    options = {"normalisation": estimator.normalisation, "dropout": float(estimator.dropout)}
    return [*made, *hidden_layers(hidden_sizes(estimator), activation(estimator), **options), Dense(n_outputs)]


def batch_rows(estimator: Any, n: int) -> int:
    """Rows of a batch out of n."""
    return min(200 if estimator.batch_size == "auto" else int(estimator.batch_size), n)


def weight_decay(estimator: Any, n: int, mean_weight: float) -> float:
    """The optimizer's weight decay that alpha stands for.

    scikit-learn adds 0.5·alpha·‖W‖²/v to the mean cost of a batch, v being the sum of its rows' weights; that sum is
    taken here for what it is on average. AdamW's decay is alpha itself.
    """
    if estimator.solver == "adamw":
        return float(estimator.alpha)
    return float(estimator.alpha) / (batch_rows(estimator, n) * mean_weight)


def schedule(estimator: Any) -> Schedule:
    """A learning rate of its own for one fit: those that learn from epochs change."""
    if isinstance(estimator.learning_rate, Schedule):
        return copy.deepcopy(estimator.learning_rate)
    rate = float(estimator.learning_rate_init)
    return EpochRate(rate) if changes_at_epochs(estimator) else Constant(rate)


def changes_at_epochs(estimator: Any) -> bool:
    """Whether "invscaling" or "adaptive" is at work; as in scikit-learn they are for SGD."""
    return estimator.solver == "sgd" and estimator.learning_rate in ("invscaling", "adaptive")


def optimizer_options(estimator: Any) -> dict[str, Any]:
    """The keyword arguments of the solver's optimizer, but for its schedule and weight decay."""
    if estimator.solver == "sgd":
        nesterov = bool(estimator.nesterovs_momentum and estimator.momentum)
        options = {"momentum": estimator.momentum, "nesterov": nesterov}
    else:
        options = {"beta1": estimator.beta_1, "beta2": estimator.beta_2, "eps": estimator.epsilon}
    return {**options, "max_norm": estimator.max_norm}
