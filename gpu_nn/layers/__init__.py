"""The layers of a network. A `Layer` is its fields; a `BoundLayer` is one on the parameters and memory of a network."""

from gpu_nn.layers._dense import Dense, fuse_relu_backward
from gpu_nn.layers._hidden import NORMALISATIONS, hidden_layers
from gpu_nn.layers._layer import BoundLayer, Layer, LayerMemory, Workspace
from gpu_nn.layers._normalisation import BatchNorm, LayerNorm
from gpu_nn.layers._standardize import Standardize
from gpu_nn.layers._stochastic import Dropout, InputNoise

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
    "LayerMemory",
    "LayerNorm",
    "Standardize",
    "Workspace",
    "fuse_relu_backward",
    "hidden_layers",
]
