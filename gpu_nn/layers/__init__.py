"""The layers of a network. A layer is its fields; a `BoundLayer` is a layer bound to one network's parameters and memory."""

from gpu_nn.layers._batch_norm import BatchNorm
from gpu_nn.layers._dense import Dense, join
from gpu_nn.layers._dropout import Dropout
from gpu_nn.layers._hidden import NORMALISATIONS, hidden_layers
from gpu_nn.layers._input_noise import InputNoise
from gpu_nn.layers._layer import BoundLayer, Layer, Workspace
from gpu_nn.layers._layer_norm import LayerNorm
from gpu_nn.layers._standardize import Standardize

LAYERS: dict[str, type[Layer]] = {
    layer.__name__: layer for layer in (BatchNorm, Dense, Dropout, InputNoise, LayerNorm, Standardize)
}

__all__ = [
    "LAYERS",
    "NORMALISATIONS",
    "BatchNorm",
    "BoundLayer",
    "Dense",
    "Dropout",
    "InputNoise",
    "Layer",
    "LayerNorm",
    "Standardize",
    "Workspace",
    "hidden_layers",
    "join",
]
