"""Layers bound to a network's arrays and to memory for batches, which is kept from one batch to the next."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from gpu_nn.device import Array, Device
from gpu_nn.flat_parameters import FlatParameters
from gpu_nn.kernels import kernels_for
from gpu_nn.layers import BoundLayer, Layer, LayerMemory, Workspace, fuse_relu_backward
from gpu_nn.precision import Precision

# Bound layers are cached for about this many batch sizes.
_MAX_SIZES = 64

BoundLayers = list[BoundLayer[Any]]


class TrainingPass(NamedTuple):
    """forward: the bound layers of a training step in order.  backward: those of them that gradients pass, the last one
    first.  loss: where the rows' costs go, (n,)."""

    forward: BoundLayers
    backward: BoundLayers
    loss: Array


class LayerPlan:
    """version: incremented when bound layers are replaced; a CUDA graph captured before then uses memory that they no
    longer own.

    n_preprocessing: the number of preprocessing layers at the front. In mixed precision they compute in float32.
    """

    def __init__(
        self, layers: Sequence[Layer], flat: FlatParameters, device: Device, precision: Precision, n_preprocessing: int
    ):
        self.version = 0
        self._layers, self._flat, self._n_preprocessing = layers, flat, n_preprocessing
        self._device, self._kernels, self._precision = device, kernels_for(device), precision
        # Gradients go back to the first layer that has parameters.
        first = (i for i in range(len(layers)) if flat.grads_of_layer(i))
        self._first_with_parameters = next(first, len(layers))
        # By whether they are for training: that of the preprocessing layers first, where it has another type.
        self._workspaces: dict[bool, list[Workspace]] = {}
        self._bound: dict[tuple[int, bool], BoundLayers] = {}
        self._passes: dict[tuple[int, int], TrainingPass] = {}

    def bound_layers(self, n: int, training: bool) -> BoundLayers:
        """The layers bound for batches of n rows; memory is allocated for the largest n so far."""
        bound = self._bound.get((n, training))
        if bound is not None:
            return bound
        workspaces = self._workspaces.get(training)
        if workspaces is None or workspaces[0].capacity < n:
            self.version += workspaces is not None
            precision = self._precision
            self._workspaces[training] = workspaces = [
                Workspace(self._device, self._kernels, dtype, n, precision.tf32)
                for dtype in dict.fromkeys((precision.dtype, precision.compute))
            ]
            self._bound = {key: value for key, value in self._bound.items() if key[1] != training}
            self._passes.clear()
        bound = []
        for i, layer in enumerate(self._layers):
            grads = self._flat.grads_of_layer(i) if training else {}
            workspace = workspaces[0 if i < self._n_preprocessing else -1]
            bound.append(layer.bind(LayerMemory(i, n, self._flat.of_layer(i), grads, workspace)))
        if training:
            fuse_relu_backward(bound)
        if len(self._bound) > _MAX_SIZES:
            self._bound.clear()
        self._bound[n, training] = bound
        return bound

    def training_pass(self, n: int, first: int) -> TrainingPass:
        """A training step on n rows over the layers first, first + 1, …"""
        found = self._passes.get((n, first))
        if found is None:
            forward = self.bound_layers(n, training=True)[first:]
            backward = forward[max(self._first_with_parameters - first, 0) :][::-1]
            if len(self._passes) > _MAX_SIZES:
                self._passes.clear()
            loss = self.workspace(training=True).rows("loss", n, 1, self._precision.dtype)[:, 0]
            found = self._passes[n, first] = TrainingPass(forward, backward, loss)
        return found

    def workspace(self, training: bool) -> Workspace:
        """The workspace of the layers behind the preprocessing ones; it exists once layers are bound."""
        return self._workspaces[training][-1]

    @property
    def nbytes(self) -> int:
        """Bytes allocated for batches."""
        return sum(workspace.nbytes for workspaces in self._workspaces.values() for workspace in workspaces)

    def invalidate(self) -> None:
        """Bind the layers again after `state` was written from outside: a bound layer may hold a host copy of it."""
        self.version += 1
        self._bound.clear()
        self._passes.clear()

    def release(self) -> None:
        """Free all memory for batches: a smaller batch may fit, but not beside the memory of one that was too large."""
        self._workspaces.clear()
        self.invalidate()
