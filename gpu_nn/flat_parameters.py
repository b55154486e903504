"""What a network has in memory: parameters and their gradients, each in one array, and the state of its layers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpu_nn.device import Array, Device
from gpu_nn.kernels import kernels_for
from gpu_nn.layers import Layer
from gpu_nn.precision import Precision

# Every array begins at a multiple of this many elements of the flat vector, so that it is aligned for vector loads.
_ALIGNMENT = 16


class FlatParameters:
    """flat_parameters, flat_grads: all of them, one after the other, those that decay first: `n_decayed` numbers with
    the gaps between them.  parameters, grads, state: by name, "0.weight" and the like, the first two parts of the flat
    arrays.  n_parameters: numbers that are learned.  exchanged: flat_grads, behind it `beside_grads`, a few numbers
    more, and `running`, the figures of `state` that follow the batches: what ranks add up is one array.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        widths: Sequence[int],
        device: Device,
        precision: Precision,
        random: np.random.Generator,
    ):
        """widths: what goes into each layer."""
        shapes = {
            f"{i}.{name}": shape
            for i, layer in enumerate(layers)
            for name, shape in layer.parameter_shapes(widths[i]).items()
        }
        decayed = {f"{i}.{name}" for i, layer in enumerate(layers) for name in layer.decayed}
        places, self.n_decayed = _laid_out({name: shape for name, shape in shapes.items() if name in decayed}, 0)
        others, end = _laid_out({name: shape for name, shape in shapes.items() if name not in decayed}, self.n_decayed)
        places |= others
        self.n_parameters = sum(place.stop - place.start for place in places.values())
        self._places = places

        def parts(flat: Array) -> dict[str, Array]:
            return {name: flat[places[name]].reshape(shape) for name, shape in shapes.items()}

        flat = np.zeros(end, precision.dtype)
        state = {
            f"{i}.{name}": np.zeros(shape, dtype or precision.dtype)
            for i, layer in enumerate(layers)
            for name, (shape, dtype) in layer.state_shapes(widths[i]).items()
        }
        running_names = [
            name
            for name, array in state.items()
            if array.dtype == precision.dtype and not layers[int(name.partition(".")[0])].fixed
        ]
        parameters = parts(flat)
        for i, layer in enumerate(layers):
            layer.initialise(_of_layer(i, parameters) | _of_layer(i, state), random)
        with device.active(f"a network with fewer than {self.n_parameters:,} parameters needs less"):
            self.flat_parameters = device.empty(flat.shape, precision.dtype)
            self.flat_parameters[...] = device.asarray(flat)
            running, last = _laid_out({name: state[name].shape for name in running_names}, end + _ALIGNMENT)
            self.exchanged: Array = device.zeros((last,), precision.dtype)
            self.flat_grads, self.beside_grads = self.exchanged[:end], self.exchanged[end : end + _ALIGNMENT]
            self.running: Array = self.exchanged[end + _ALIGNMENT :]
            self._flat_copies = device.empty(flat.shape, precision.compute) if precision.mixed else None
            self.state: Mapping[str, Array] = {
                name: self.exchanged[running[name]].reshape(array.shape) if name in running else device.asarray(array)
                for name, array in state.items()
            }
            for name in running:
                self.state[name][...] = device.asarray(state[name])
        self.parameters: Mapping[str, Array] = parts(self.flat_parameters)
        self.grads: Mapping[str, Array] = parts(self.flat_grads)
        half_params = {f"{i}.{name}" for i, layer in enumerate(layers) for name in layer.half_params}
        copies = {} if self._flat_copies is None else parts(self._flat_copies)
        self._copies = {name: array for name, array in copies.items() if name in half_params}
        self._kernels = kernels_for(device)

    @property
    def parameter_bytes(self) -> int:
        """The memory of the parameters, and of their copies in a half type."""
        return int(self.flat_parameters.nbytes + (0 if self._flat_copies is None else self._flat_copies.nbytes))

    def copy(self) -> None:
        """Bring the copies of a half type, with which layers work, up to the parameters."""
        self._kernels.cast(self.flat_parameters, self._flat_copies)

    def of_layer(self, i: int) -> dict[str, Array]:
        """Parameters, as it works with them, and state of layer number i, by their names in it."""
        return _of_layer(i, {**self.parameters, **self._copies, **self.state})

    def decayed_from(self, i: int) -> int:
        """Where in the flat arrays that begins which decays of layer number i and of those behind it."""
        of_those = (place.start for name, place in self._places.items() if int(name.partition(".")[0]) >= i)
        return min((start for start in of_those if start < self.n_decayed), default=self.n_decayed)

    def grads_of_layer(self, i: int) -> dict[str, Array]:
        """Where the gradients of its parameters go."""
        return _of_layer(i, self.grads)


def _laid_out(shapes: Mapping[str, tuple[int, ...]], begin: int) -> tuple[dict[str, slice], int]:
    """The places of arrays one after the other, from there on, and where they end."""
    places, end = {}, begin
    for name, shape in shapes.items():
        places[name] = slice(end, end + math.prod(shape))
        end += -(-math.prod(shape) // _ALIGNMENT) * _ALIGNMENT
    return places, end


def _of_layer(i: int, arrays: Mapping[str, Any]) -> dict[str, Any]:
    prefix = f"{i}."
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
