"""The score of the held-out rows, by one of scikit-learn's scorers, while the classifier is still learning."""

import math
from collections.abc import Callable
from typing import Any

from sklearn.metrics import get_scorer, get_scorer_names

from gpu_nn.device import CPU, Array
from gpu_nn.errors import unknown_name
from gpu_nn.estimator._labels import Labelling
from gpu_nn.estimator._validation import moved
from gpu_nn.network import Network


def scorer(scoring: Any) -> Callable[..., Any] | None:
    """What `scoring` stands for: None, a name of scikit-learn's scorers, or scorer(estimator, X, y).

    Raises ValueError for another name, TypeError for anything else.
    """
    if scoring is None or callable(scoring):
        return scoring
    if not isinstance(scoring, str):
        raise TypeError(f"scoring={scoring!r}; expected None, the name of a scorer, or scorer(estimator, X, y)")
    if scoring not in get_scorer_names():
        raise unknown_name("scoring", scoring, get_scorer_names())
    return get_scorer(scoring)


def score_of(
    estimator: Any, labelling: Labelling, x: Array, y: Array, weight: Array | None
) -> Callable[[Network], float] | None:
    """What gives the network's score on these rows, as they came to `fit`; None for the accuracy, which is known.

    Scorers get NumPy arrays, whatever device the rows lie on, and `sample_weight` where there is one.
    """
    chosen = scorer(estimator.scoring)
    if chosen is None:
        return None
    x, y = moved(x, CPU), moved(y, CPU)
    y = y.argmax(axis=1) if labelling.kind == "probabilities" and y.ndim == 2 else y
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    weights = {} if weight is None else {"sample_weight": moved(weight, CPU)}

    def score(net: Network) -> float:
        came = chosen(_as_if_fitted(estimator, labelling, net), x, y, **weights)
        try:
            value = float(came)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"scoring={estimator.scoring!r} gave {came!r} on the held-out rows; expected a number")
        return value

    return score


def _as_if_fitted(estimator: Any, labelling: Labelling, net: Network) -> Any:
    """A classifier that answers with `net`, which goes on learning; `estimator` itself is fitted only at the end."""
    view = object.__new__(type(estimator))
    # The rows are arrays by now: without the names of their columns.
    vars(view).update({name: value for name, value in vars(estimator).items() if name != "feature_names_in_"})
    view.net_, view._labelling, view.classes_ = net, labelling, labelling.classes
    return view
