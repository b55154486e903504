"""The layers of a network. A layer is its fields; a `Stage` is a layer bound to one network's parameters and memory."""

from gpu_nn.layers._dense import Dense
from gpu_nn.layers._dropout import Dropout
from gpu_nn.layers._layer import Layer, Stage, Workplace
from gpu_nn.layers._standardize import Standardize

LAYERS: dict[str, type[Layer]] = {layer.__name__: layer for layer in (Dense, Dropout, Standardize)}

__all__ = ["LAYERS", "Dense", "Dropout", "Layer", "Stage", "Standardize", "Workplace"]
