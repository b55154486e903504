"""The flat memory of a network: parameters and gradients, each in one array, and the state of its layers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpu_nn.device import Array, Device
from gpu_nn.kernels import kernels_for
from gpu_nn.layers import Layer
from gpu_nn.precision import Precision

# Every array begins at a multiple of this many elements of the flat array, so that it is aligned for vector loads.
_ALIGNMENT = 16


class FlatParameters:
    """parameters, grads: mappings "0.weight", "0.bias", … of views into flat_parameters and flat_grads. Parameters
    under weight decay come first, in the first `n_decayed` elements; each array begins on a multiple of 16 elements,
    and the gaps stay 0.  n_parameters: the number of parameters, without gaps.  state: the arrays of the layers that
    have no gradient.

    reduce_buffer: what an all-reduce over several ranks adds up, one array: flat_grads, then `reduce_scalars`, 16
    elements for the trainer's use, then `running_stats`, the part of `state` that training batches update.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        widths: Sequence[int],
        device: Device,
        precision: Precision,
        random: np.random.Generator,
    ):
        """widths: the number of input columns of each layer."""
        shapes = {
            f"{i}.{name}": shape
            for i, layer in enumerate(layers)
            for name, shape in layer.parameter_shapes(widths[i]).items()
        }
        decayed = {f"{i}.{name}" for i, layer in enumerate(layers) for name in layer.weight_decay_params}
        slices, self.n_decayed = _layout({name: shape for name, shape in shapes.items() if name in decayed}, 0)
        others, end = _layout({name: shape for name, shape in shapes.items() if name not in decayed}, self.n_decayed)
        slices |= others
        self.n_parameters = sum(part.stop - part.start for part in slices.values())
        self._slices = slices

        def views(flat: Array) -> dict[str, Array]:
            return {name: flat[slices[name]].reshape(shape) for name, shape in shapes.items()}

        flat = np.zeros(end, precision.dtype)
        state = {
            f"{i}.{name}": np.zeros(shape, dtype or precision.dtype)
            for i, layer in enumerate(layers)
            for name, (shape, dtype) in layer.state_shapes(widths[i]).items()
        }
        running_shapes = {
            name: array.shape
            for name, array in state.items()
            if array.dtype == precision.dtype and not layers[_index(name)].is_preprocessing
        }
        parameters = views(flat)
        for i, layer in enumerate(layers):
            layer.initialise(arrays_of_layer(i, parameters) | arrays_of_layer(i, state), random)
        with device.active(f"a network with fewer than {self.n_parameters:,} parameters needs less"):
            self.flat_parameters = device.empty(flat.shape, precision.dtype)
            self.flat_parameters[...] = device.asarray(flat)
            running, last = _layout(running_shapes, end + _ALIGNMENT)
            self.reduce_buffer: Array = device.zeros((last,), precision.dtype)
            self.flat_grads, self.reduce_scalars = self.reduce_buffer[:end], self.reduce_buffer[end : end + _ALIGNMENT]
            self.running_stats: Array = self.reduce_buffer[end + _ALIGNMENT :]
            self._flat_half = device.empty(flat.shape, precision.compute) if precision.mixed else None
            self.state: Mapping[str, Array] = {
                name: self.reduce_buffer[running[name]].reshape(array.shape)
                if name in running
                else device.asarray(array)
                for name, array in state.items()
            }
            for name in running:
                self.state[name][...] = device.asarray(state[name])
        self.parameters: Mapping[str, Array] = views(self.flat_parameters)
        self.grads: Mapping[str, Array] = views(self.flat_grads)
        half = {f"{i}.{name}" for i, layer in enumerate(layers) for name in layer.half_params}
        half_views = {} if self._flat_half is None else views(self._flat_half)
        self._half_parameters = {name: array for name, array in half_views.items() if name in half}
        self._kernels = kernels_for(device)

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters and of their copies in a half type."""
        return int(self.flat_parameters.nbytes + (0 if self._flat_half is None else self._flat_half.nbytes))

    def update_half_copies(self) -> None:
        """Cast the parameters to the half type in which layers take them; for mixed precision."""
        self._kernels.cast(self.flat_parameters, self._flat_half)

    def of_layer(self, i: int) -> dict[str, Array]:
        """Parameters and state of layer i by their names in the layer; parameters in the type that it computes with."""
        return arrays_of_layer(i, {**self.parameters, **self._half_parameters, **self.state})

    def grads_of_layer(self, i: int) -> dict[str, Array]:
        """The gradients of layer i's parameters by their names in the layer."""
        return arrays_of_layer(i, self.grads)

    def decayed_from(self, i: int) -> int:
        """Where the parameters of layers i, i + 1, … under weight decay begin in the flat arrays."""
        starts = (part.start for name, part in self._slices.items() if _index(name) >= i)
        return min((start for start in starts if start < self.n_decayed), default=self.n_decayed)


def _layout(shapes: Mapping[str, tuple[int, ...]], begin: int) -> tuple[dict[str, slice], int]:
    """Slices of consecutive arrays from `begin` on, and the end of the last."""
    slices, end = {}, begin
    for name, shape in shapes.items():
        slices[name] = slice(end, end + math.prod(shape))
        end += -(-math.prod(shape) // _ALIGNMENT) * _ALIGNMENT
    return slices, end


def _index(name: str) -> int:
    """The layer's index in a name such as "0.weight"."""
    return int(name.partition(".")[0])


def arrays_of_layer(i: int, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the `arrays` that layer i has, by their names in the layer."""
    prefix = f"{i}."
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
