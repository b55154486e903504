"""The hidden layers of a classifier, from its settings."""

from collections.abc import Iterable

from gpu_nn.layers._dense import Dense
from gpu_nn.layers._layer import Layer
from gpu_nn.layers._normalisation import BatchNorm, LayerNorm
from gpu_nn.layers._stochastic import Dropout

NORMALISATIONS: dict[str, type[LayerNorm] | type[BatchNorm]] = {"layer": LayerNorm, "batch": BatchNorm}


def hidden_layers(
    widths: Iterable[int], activation: str, *, normalisation: str | None = None, dropout: float = 0.0
) -> list[Layer]:
    """For each width: Dense with its activation, or Dense, normalisation and activation; then dropout, unless 0.

    normalisation: None, or a key of `NORMALISATIONS`. Before "batch" Dense has no bias: batch normalisation undoes it.
    """
    layers: list[Layer] = []
    for width in widths:
        if normalisation is None:
            layers.append(Dense(width, activation))
        else:
            layers += [Dense(width, bias=normalisation != "batch"), NORMALISATIONS[normalisation](activation)]
        if dropout:
            layers.append(Dropout(dropout))
    return layers
