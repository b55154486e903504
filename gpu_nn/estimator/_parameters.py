"""The parameters of MLPClassifier: their validation, and the layers, optimizer and schedule that they describe."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn.metrics import get_scorer, get_scorer_names

from gpu_nn.device import resolve_device
from gpu_nn.errors import unknown_name
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.layers import NORMALISATIONS, Dense, InputNoise, Layer, Standardize, hidden_layers
from gpu_nn.optimizers import OPTIMIZERS
from gpu_nn.precision import parameter_dtype, precision_name
from gpu_nn.schedules import Constant, Schedule
from gpu_nn.validation import BELOW_1, NON_NEGATIVE, POSITIVE, UNIT_INTERVAL, Interval, check_int, check_number, is_int

# scikit-learn's names for ours, and the closest names that exist for names that do not.
_SKLEARN_ACTIVATIONS = {"logistic": "sigmoid"}
_ALIASES = {"lbfgs": "adam", "momentum": "sgd", "swish": "silu", "linear": "identity"}
_ALIASES |= {"batchnorm": "batch", "batch_norm": "batch", "layernorm": "layer", "layer_norm": "layer"}

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
_ALTERNATIVES: dict[str, tuple[Any, str]] = {
    "batch_size": ("auto", " or 'auto'"),
    "n_iter_no_change": (math.inf, " or infinity"),
    "max_norm": (None, " or None"),
}
_FLAGS = ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping", "standardize")


@dataclass
class EpochRate(Schedule):
    """A learning rate that is constant within an epoch; `EpochEnd` changes it between epochs."""

    lr: float

    def __call__(self, step: int) -> float:
        return self.lr

    def state(self) -> dict[str, Any]:
        return {"lr": self.lr}

    def load_state(self, state: dict[str, Any]) -> None:
        self.lr = check_number("lr", state["lr"])


class Parameters(SimpleNamespace):
    """The parameters of an MLPClassifier during one fit, as attributes of their own names."""

    def validate(self) -> None:
        """Raises ValueError or TypeError with the name, the value and what was expected; DeviceError for no GPU."""
        for name in (*_NUMBERS, *_COUNTS):
            value, (alternative, or_alternative) = getattr(self, name), _ALTERNATIVES.get(name, ("", ""))
            if or_alternative and (value is alternative or (np.isscalar(value) and value == alternative)):
                continue
            if name in _NUMBERS:
                check_number(name, value, _NUMBERS[name], or_alternative)
            else:
                check_int(name, value, 1, or_alternative)
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise ValueError(f"{name}={getattr(self, name)!r}; expected True or False")
        if not isinstance(self.solver, str) or self.solver not in OPTIMIZERS:
            raise unknown_name("solver", self.solver, OPTIMIZERS, _ALIASES)
        rate = self.learning_rate
        if not isinstance(rate, Schedule) and not (isinstance(rate, str) and rate in _LEARNING_RATES):
            raise unknown_name("learning_rate", rate, _LEARNING_RATES)
        chosen = self.normalisation
        if chosen is not None and not (isinstance(chosen, str) and chosen in NORMALISATIONS):
            raise unknown_name("normalisation", chosen, ("None", *NORMALISATIONS), _ALIASES)
        self.hidden_activation()
        self.array_dtype()
        self.hidden_sizes()
        self.scorer()
        self.callback_list()
        resolve_device(self.device)

    def hidden_activation(self) -> str:
        """The activation of the hidden layers by our name."""
        given = self.activation
        name = _SKLEARN_ACTIVATIONS.get(given, given) if isinstance(given, str) else given
        if not isinstance(name, str) or name not in ACTIVATIONS:
            raise unknown_name("activation", given, (*ACTIVATIONS, *_SKLEARN_ACTIVATIONS), _ALIASES)
        return name

    def array_dtype(self) -> np.dtype:
        """The dtype of the network's parameters and of the data."""
        return parameter_dtype(precision_name(self.dtype))

    def hidden_sizes(self) -> list[int]:
        """The widths of the hidden layers."""
        given = self.hidden_layer_sizes
        sizes = list(given) if np.iterable(given) and not isinstance(given, str) else [given]
        if not all(is_int(size) and size >= 1 for size in sizes):
            raise ValueError(
                f"hidden_layer_sizes={given!r}; expected whole numbers ≥ 1, such as (100,), or () for none"
            )
        return [int(size) for size in sizes]

    def scorer(self) -> Callable[..., Any] | None:
        """scorer(estimator, X, y) for `scoring`; None for the accuracy."""
        scoring = self.scoring
        if scoring is None or callable(scoring):
            return scoring
        if not isinstance(scoring, str):
            raise TypeError(f"scoring={scoring!r}; expected None, the name of a scorer, or scorer(estimator, X, y)")
        if scoring not in get_scorer_names():
            raise unknown_name("scoring", scoring, get_scorer_names())
        return get_scorer(scoring)

    def callback_list(self) -> Sequence[Any]:
        """The callbacks in the order of their calls."""
        if self.callbacks is None:
            return []
        if not np.iterable(self.callbacks):
            raise TypeError(f"callbacks={self.callbacks!r}; expected a list of them: put it in brackets")
        return list(self.callbacks)

    def layers(self, n_outputs: int) -> list[Layer]:
        """The network's layers from the inputs to the outputs."""
        inputs: list[Layer] = [Standardize()] if self.standardize else []
        if self.input_noise:
            inputs.append(InputNoise(float(self.input_noise)))
        options = {"normalisation": self.normalisation, "dropout": float(self.dropout)}
        return [*inputs, *hidden_layers(self.hidden_sizes(), self.hidden_activation(), **options), Dense(n_outputs)]

    def batch_rows(self, n: int) -> int:
        """The number of rows of a batch of n rows of data."""
        return min(200 if self.batch_size == "auto" else int(self.batch_size), n)

    def weight_decay(self, n: int, mean_weight: float) -> float:
        """The optimizer's weight decay for alpha.

        scikit-learn adds 0.5·alpha·‖W‖²/v to the mean cost of a batch, v being the sum of its rows' weights; here v is
        its mean over the batches. AdamW's decay is alpha itself.
        """
        if self.solver == "adamw":
            return float(self.alpha)
        return float(self.alpha) / (self.batch_rows(n) * mean_weight)

    def schedule(self) -> Schedule:
        """A learning rate schedule for one fit; `observe` and `EpochEnd` change it."""
        if isinstance(self.learning_rate, Schedule):
            return copy.deepcopy(self.learning_rate)
        rate = float(self.learning_rate_init)
        # As in scikit-learn, "invscaling" and "adaptive" are for SGD.
        by_epoch = self.solver == "sgd" and self.learning_rate in ("invscaling", "adaptive")
        return EpochRate(rate) if by_epoch else Constant(rate)

    def optimizer_options(self) -> dict[str, Any]:
        """The keyword arguments of the solver's optimizer except lr and weight_decay."""
        if self.solver == "sgd":
            nesterov = bool(self.nesterovs_momentum and self.momentum)
            options = {"momentum": self.momentum, "nesterov": nesterov}
        else:
            options = {"beta1": self.beta_1, "beta2": self.beta_2, "eps": self.epsilon}
        return {**options, "max_norm": self.max_norm}
